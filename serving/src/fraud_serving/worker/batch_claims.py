"""The worker's claims: looking ids up, claiming what it decided, saying what is published. Nothing is decided here.

Redis may be away at any time: then decisions say so (``idempotency``), and what it missed is kept until it is back. A claim is
said to be published once the next batch is committed or there is nothing to process. A crash before loses that; the successor says it of
the tail of ``decisions`` that it reads. So an id is known as published as long as its claim lives.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final, Protocol

from fraud_contracts.errors import Degraded, StoreError
from fraud_contracts.names import Identity
from fraud_contracts.records import Decision
from fraud_process.instruments import Instruments
from fraud_serving import claims
from fraud_serving.claims import OwnClaim, Taking
from fraud_serving.cooldown import CoolDown
from fraud_serving.ruling import with_mark
from fraud_serving.worker.batch import Incoming
from fraud_serving.worker.published_ids import KEPT, DecisionStamp

# What is made up at once, and for how long at a time: the loop has records to process.
_CHUNK: Final = 256
_SECONDS: Final = 0.05
_TRIES: Final = 3
_log = logging.getLogger(__name__)


class ClaimStore(Protocol):
    """Redis as the worker needs it; StoreError where it fails."""

    def look_up(self, published: list[OwnClaim], keys: list[str]) -> list[bytes | None]: ...

    def claim(self, takings: list[Taking]) -> list[bytes | None]: ...


class BatchClaims:
    def __init__(self, store: ClaimStore, of: Identity, instruments: Instruments) -> None:
        self._store, self._of, self._instruments = store, of, instruments
        self._cool_down = CoolDown(failures=1)
        # Claims of what was published though Redis was away or held another; the oldest go first where they are too many.
        self._unclaimed: deque[Decision] = deque(maxlen=KEPT)
        # By partition, as many as are remembered of one: ids whose claims are yet to say that they are published.
        self._unmarked: dict[int, deque[OwnClaim]] = {}

    def look_up(self, batch: Sequence[Incoming]) -> None:
        """Fills in what Redis has under each id; a record that can't know says so in ``degraded``."""
        if not batch:
            self.make_up()
            return
        values = self._ask([self._of.redis_claim(incoming.id) for incoming in batch])
        if values is None:
            for incoming in batch:
                incoming.degraded.append(Degraded.IDEMPOTENCY)
            return
        for incoming, value in zip(batch, values, strict=True):
            self._note(incoming, value)
        self.make_up()  # what an absence of Redis has left; nothing as a rule

    def claim(self, decided: Sequence[Incoming]) -> None:
        """Claims decisions. Where another one was claimed meanwhile, ``claim`` holds it and the record loses its decision."""
        asked = [incoming for incoming in decided if incoming.instead_of is not None]
        for _ in range(_TRIES):
            if not asked:
                return
            try:
                held = self._store.claim([self._taking(incoming) for incoming in asked])
            except StoreError as error:
                self._failed(error)
                break
            lost = [
                (incoming, value) for incoming, value in zip(asked, held, strict=True) if value is not None
            ]
            for incoming, value in lost:
                self._note(incoming, value)
                if incoming.claim is not None:
                    incoming.decision = None
                elif Degraded.IDEMPOTENCY in incoming.degraded:
                    _mark(incoming)
            asked = [incoming for incoming, _ in lost if incoming.claim is None]
        for incoming in asked:
            _mark(incoming)

    def published(self, partition: int, entries: Iterable[tuple[str, DecisionStamp]]) -> None:
        """Claims of these ids, where they hold these decisions, are to say that they are published."""
        unmarked = self._unmarked.setdefault(partition, deque(maxlen=KEPT))
        unmarked.extend(OwnClaim(self._of.redis_claim(event_id), *stamp) for event_id, stamp in entries)

    def unclaimed(self, decision: Decision) -> None:
        """A published decision whose claim may be missing: it is claimed as soon as may be, so that a retry gets it."""
        self._unclaimed.append(decision)

    def forget(self, partition: int) -> None:
        """The partition is another worker's, who reads its tail."""
        self._unmarked.pop(partition, None)

    def make_up(self) -> None:
        """Brings Redis what it missed, for a moment; the rest with the next call."""
        until = time.monotonic() + _SECONDS
        while any(self._unmarked.values()) and time.monotonic() < until:
            if self._ask([]) is None:
                return
        while self._unclaimed and time.monotonic() < until:
            some = list(islice(self._unclaimed, _CHUNK))
            if not self._cool_down.ready("redis", time.monotonic()):
                return
            try:
                changed = self._take_or_mark(some)
            except StoreError as error:
                self._failed(error)
                return
            self._cool_down.answered("redis")
            for _ in some:
                self._unclaimed.popleft()
            self._unclaimed.extend(changed)

    def _take_or_mark(self, published: list[Decision]) -> list[Decision]:
        """Sees to it that the claims of published ids say so: a resend would publish what else lies there.

        Another answer to the same body stays, so that retries hear it again. A claim of another body, or what is none, gives way;
        -> those where it changed meanwhile.
        """
        takings = [
            Taking(self._of.redis_claim(decision["id"]), claims.pack(decision, appended=True, published=True))
            for decision in published
        ]
        owns: list[OwnClaim] = []
        others: list[tuple[Decision, Taking]] = []
        for decision, taking, value in zip(published, takings, self._store.claim(takings), strict=True):
            if value is None:
                continue
            try:
                claim = claims.read(value, decision["id"])
            except ValueError as error:
                self._instruments.unreadable("claim", id=decision["id"], error=str(error))
                claim = None
            if claim is None or (claim.hash != decision["hash"] and not claim.published):
                others.append((decision, taking._replace(instead_of=value)))
            else:
                owns.append(OwnClaim(taking.key, claim.hash, claim.decision["decided"]))
        if owns:
            self._store.look_up(owns, [])
        held = self._store.claim([taking for _, taking in others]) if others else []
        return [decision for (decision, _), value in zip(others, held, strict=True) if value is not None]

    def _ask(self, keys: list[str]) -> list[bytes | None] | None:
        """What lies under these keys, once some claims were told that they are published; None where Redis is away."""
        owns: list[OwnClaim] = []
        sent: list[tuple[deque[OwnClaim], int]] = []
        for unmarked in self._unmarked.values():
            some = list(islice(unmarked, _CHUNK - len(owns)))
            sent.append((unmarked, len(some)))
            owns += some
        if not self._cool_down.ready("redis", time.monotonic()):
            return None
        try:
            values = self._store.look_up(owns, keys)
        except StoreError as error:
            self._failed(error)
            return None
        self._cool_down.answered("redis")
        for unmarked, count in sent:
            for _ in range(count):
                unmarked.popleft()
        return values

    def _failed(self, error: StoreError) -> None:
        _log.warning("store failed", extra={"data": {"store": "redis", "error": error.message}})
        self._cool_down.failed("redis", time.monotonic())

    def _note(self, incoming: Incoming, value: bytes | None) -> None:
        incoming.instead_of = value or b""
        try:
            incoming.claim = claims.read(value, incoming.id)
        except ValueError as error:
            # As good as lost: the id is decided, and the decision takes the place of these very bytes.
            self._instruments.unreadable("claim", id=incoming.id, error=str(error))
            incoming.degraded.append(Degraded.IDEMPOTENCY)

    def _taking(self, incoming: Incoming) -> Taking:
        assert incoming.decision is not None
        assert incoming.instead_of is not None
        value = claims.pack(incoming.decision, appended=True)
        return Taking(self._of.redis_claim(incoming.id), value, incoming.instead_of)


def _mark(incoming: Incoming) -> None:
    if incoming.decision is not None:
        incoming.decision = with_mark(incoming.decision, Degraded.IDEMPOTENCY)
