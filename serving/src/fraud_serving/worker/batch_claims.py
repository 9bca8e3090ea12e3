"""The worker's claims: looking ids up, claiming what it decided, saying what is published. Nothing is decided here.

Redis may be away at any time: then decisions say so (``idempotency``), and what it missed is kept until it is back. A claim is
said to be published once the next batch is committed or there is nothing to process. A crash before loses that; whoever gets the partition
says it of what lies behind the place up to which all is said (``vouched``). So an id is known as published as long as its claim lives.

Any worker also shrinks the claims whose retry window is over, some with each question: Redis knows which they are.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from typing import Any, Final, Protocol

from fraud_contracts.errors import Degraded, StoreError
from fraud_contracts.names import Identity
from fraud_contracts.records import Decision
from fraud_process.instruments import Instruments
from fraud_serving import claims
from fraud_serving.claims import ClaimAttempt, ClaimRef, Command
from fraud_serving.cooldown import CoolDown
from fraud_serving.ruling import with_mark
from fraud_serving.worker.batch import Incoming
from fraud_serving.worker.claim_loss import ClaimLoss
from fraud_serving.worker.published_ids import KEPT, Publication

# What is made up at once, and for how long at a time: the loop has records to process.
_CHUNK: Final = 256
_SECONDS: Final = 0.05
_TRIES: Final = 3
# So often Redis is asked where there is nothing to do.
_IDLE_SECONDS: Final = 1.0
# So many claims are shrunk with one question, twice a batch; where fewer were due, none is for so long.
_SHRUNK: Final = 128
_SHRINK_SECONDS: Final = 1.0
_log = logging.getLogger(__name__)


class ClaimStore(Protocol):
    """Redis as the worker needs it; StoreError where it fails."""

    def mark_and_read(self, mark: Command | None, keys: list[str], *then: Command) -> list[Any]: ...

    def claim(self, take: Command, *then: Command) -> list[bytes | None]: ...

    def send(self, *commands: Command) -> list[Any]: ...


class BatchClaims:
    def __init__(self, store: ClaimStore, of: Identity, instruments: Instruments) -> None:
        self._store, self._of, self._instruments = store, of, instruments
        self._cool_down = CoolDown(failures=1)
        self._loss = ClaimLoss(of, instruments)
        self.expect, self.doubt = self._loss.expect, self._loss.doubt
        # Of ``decisions``; empty while it isn't known.
        self.topic_id = ""
        self._asked = 0.0
        self._shrink_at = 0.0
        # Published decisions whose claims Redis lacks, as it was away or held another; the newest KEPT.
        self._unclaimed: deque[Decision] = deque(maxlen=KEPT)
        # By partition, as many as are remembered of one: ids whose claims are yet to say that they are published.
        self._unmarked: dict[int, deque[ClaimRef]] = {}
        # By partition, offsets in ``decisions``: before which all claims said so when it was looked at last, and before which they will
        # once nothing is left to say.
        self._vouched: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        # Whether Redis was away for longer than is remembered: some ids have no claim, or one that doesn't say that it is published.
        self._missed = False
        # Whether Redis told nothing of the last batch.
        self.away = False

    def look_up(self, batch: Sequence[Incoming]) -> None:
        """Fills in what Redis has under each id; a record that can't know says so in ``degraded``."""
        if not batch:
            self.catch_up()
            return
        values = self._ask([self._of.redis_claim(incoming.id) for incoming in batch])
        self.away = values is None
        if values is None:
            for incoming in batch:
                incoming.degraded.append(Degraded.IDEMPOTENCY)
            return
        for incoming, value in zip(batch, values, strict=True):
            self._note(incoming, value)
        self.catch_up()  # what an absence of Redis has left; nothing as a rule

    def claim(self, decided: Sequence[Incoming]) -> None:
        """Claims decisions. Where another one was claimed meanwhile, ``claim`` holds it and the record loses its decision."""
        asked = [incoming for incoming in decided if incoming.instead_of is not None]
        for _ in range(_TRIES):
            if not asked:
                return
            try:
                held = self._claim([self._attempt(incoming) for incoming in asked])
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

    def published(self, partition: int, entries: Collection[Publication]) -> None:
        """Claims of these ids, where they hold these decisions, are to say that they are published, and where: of what was just
        committed none is left out unnoticed."""
        if len(self._unmarked.get(partition, ())) + len(entries) > KEPT:
            self._missed = True
        self.remembered(partition, entries)

    def remembered(self, partition: int, entries: Iterable[Publication]) -> None:
        """As ``published``, of a log whose newest ids are remembered: what is older than those was another worker's to mark."""
        unmarked = self._unmarked.setdefault(partition, deque(maxlen=KEPT))
        for one in entries:
            place = claims.place(self.topic_id, partition, one.offset)
            unmarked.append(ClaimRef(self._of.redis_claim(one.id), *one.stamp, one.action, place))

    def begin(self, partition: int, vouched: int, end: int) -> None:
        """All that is published from ``vouched`` to ``end`` of a partition of ``decisions`` has been told by ``published``."""
        self._vouched[partition], self._ends[partition] = vouched, end

    def reach(self, partition: int, end: int) -> None:
        """As ``begin``, up to a later end."""
        self._ends[partition] = end

    def vouched(self, partition: int) -> int | None:
        """Before which offset of ``decisions`` each claim says that it is published."""
        if (
            partition in self._ends
            and not self._missed
            and not self._unclaimed
            and not self._unmarked.get(partition)
        ):
            self._vouched[partition] = self._ends[partition]
        return self._vouched.get(partition)

    def unclaimed(self, decision: Decision) -> None:
        """A published decision whose claim may be missing: it is claimed as soon as may be, so that a retry gets it."""
        self._missed = self._missed or len(self._unclaimed) == KEPT
        self._unclaimed.append(decision)

    def forget(self, partition: int) -> None:
        """The partition is another worker's, who reads its tail."""
        for of_partitions in (self._unmarked, self._vouched, self._ends):
            of_partitions.pop(partition, None)
        self._loss.forget(partition)

    def catch_up(self) -> None:
        """Writes to Redis what it missed, for _SECONDS at most; the rest follows with the next call. A loss is noticed in a second."""
        until = time.monotonic() + _SECONDS
        if time.monotonic() - self._asked > _IDLE_SECONDS and self._ask([]) is None:
            return
        while any(self._unmarked.values()) and time.monotonic() < until:
            if self._ask([]) is None:
                return
        while self._unclaimed and time.monotonic() < until:
            some = list(islice(self._unclaimed, _CHUNK))
            if not self._cool_down.take_turn("redis", time.monotonic()):
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

    def shrink(self) -> None:
        """Shrinks what is due, for _SECONDS at most; to be called where there is nothing else to do."""
        until = time.monotonic() + _SECONDS
        while self._shrink_at <= time.monotonic() < until:
            if self._ask([]) is None:
                return

    def _take_or_mark(self, published: list[Decision]) -> list[Decision]:
        """Claims published ids, or marks their claims as published: a resend would publish what lies there.

        A claim with another answer to the same body stays, so that retries get that answer again. A claim of
        another body is replaced, and so are bytes that are no claim; -> the decisions whose claims changed
        meanwhile.
        """
        attempts = [
            ClaimAttempt(
                self._of.redis_claim(decision["id"]), claims.pack(decision, appended=True, published=True)
            )
            for decision in published
        ]
        refs: list[ClaimRef] = []
        others: list[tuple[Decision, ClaimAttempt]] = []
        for decision, attempt, value in zip(published, attempts, self._claim(attempts), strict=True):
            if value is None:
                continue
            try:
                claim = claims.read(value, decision["id"])
            except ValueError as error:
                self._instruments.unreadable("claim", id=decision["id"], error=str(error))
                claim = None
            if claim is None or (not claim.is_of(decision["hash"]) and not claim.published):
                others.append((decision, attempt._replace(instead_of=value)))
            elif claim.decision is not None:
                held_one = claim.decision
                refs.append(ClaimRef(attempt.key, claim.hash, held_one["decided"], held_one["action"]))
        if refs:
            self._store.send(self._told(refs, int(time.time() * 1000)))
        held = self._claim([attempt for _, attempt in others]) if others else []
        return [decision for (decision, _), value in zip(others, held, strict=True) if value is not None]

    def _ask(self, keys: list[str]) -> list[bytes | None] | None:
        """Marks some claims as published, then reads these keys' values; None where Redis is away."""
        refs: list[ClaimRef] = []
        sent: list[tuple[deque[ClaimRef], int]] = []
        for unmarked in self._unmarked.values():
            some = list(islice(unmarked, _CHUNK - len(refs)))
            sent.append((unmarked, len(some)))
            refs += some
        if not self._cool_down.take_turn("redis", time.monotonic()):
            return None
        now, self._asked = int(time.time() * 1000), time.monotonic()
        asked = [*keys, *self._loss.keys()]
        before, witness = self._loss.confirmed_before(now), self._loss.bear_witness(now)
        shrinks = self._asked >= self._shrink_at
        mark = self._told(refs, now) if refs else None
        then = [witness.command] if refs else []
        if shrinks:
            then.append(claims.shrink(self._of.redis_due, now, _SHRUNK))
        try:
            values = self._store.mark_and_read(mark, asked, *then)
            more = values[len(asked) :]
            if shrinks:
                self._shrink_at = self._asked + (0.0 if more[-1] == _SHRUNK else _SHRINK_SECONDS)
            if refs:
                self._loss.confirmed(witness, more[0] or b"", now)
            loss = self._loss.heard(values[len(keys) : len(asked)], before, now)
            if loss is None and self._missed:
                loss = self._loss.lost(now)
            if loss is not None:
                self._store.send(loss)
            self._missed = False
        except StoreError as error:
            self._failed(error)
            return None
        self._cool_down.answered("redis")
        for unmarked, count in sent:
            for _ in range(count):
                unmarked.popleft()
        return values[: len(keys)]

    def _claim(self, attempts: list[ClaimAttempt]) -> list[bytes | None]:
        now = int(time.time() * 1000)
        witness = self._loss.bear_witness(now)
        *held, reply = self._store.claim(claims.take(attempts, self._of.redis_due, now), witness.command)
        self._loss.confirmed(witness, reply or b"", now)
        return held

    def _told(self, refs: list[ClaimRef], now: int) -> Command:
        return claims.mark_published(refs, self._of.redis_due, now)

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

    def _attempt(self, incoming: Incoming) -> ClaimAttempt:
        assert incoming.decision is not None
        assert incoming.instead_of is not None
        value = claims.pack(incoming.decision, appended=True)
        return ClaimAttempt(self._of.redis_claim(incoming.id), value, incoming.instead_of)


def _mark(incoming: Incoming) -> None:
    if incoming.decision is not None:
        incoming.decision = with_mark(incoming.decision, Degraded.IDEMPOTENCY)
