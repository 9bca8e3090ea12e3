"""The worker's claims: looking ids up, claiming what it decided, making up for what Redis missed. Nothing is decided here.

Redis may be away at any time: then decisions say so (``idempotency``), and what it missed is kept until it is back.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

from fraud_contracts.errors import Degraded, StoreError
from fraud_contracts.names import Identity
from fraud_contracts.records import Decision
from fraud_serving import claims
from fraud_serving.claims import Taking
from fraud_serving.instruments import Instruments
from fraud_serving.worker.cooldown import CoolDown
from fraud_serving.worker.incoming import Incoming

KEPT: Final = 50_000
# What is made up at once, and for how long at a time: the loop has records to judge.
_CHUNK: Final = 256
_SECONDS: Final = 0.05
_TRIES: Final = 3


class ClaimStore(Protocol):
    """Redis as the worker needs it; StoreError where it fails."""

    def get(self, keys: list[str]) -> list[bytes | None]: ...

    def claim(self, takings: list[Taking]) -> list[bytes | None]: ...


class Claiming:
    def __init__(
        self, store: ClaimStore, of: Identity, instruments: Instruments, cool_down: CoolDown
    ) -> None:
        self._store, self._of, self._instruments, self._cool_down = store, of, instruments, cool_down
        # Claims of what was published though Redis was away; the oldest go first where they are too many.
        self._unclaimed: deque[Taking] = deque(maxlen=KEPT)

    def look_up(self, batch: Sequence[Incoming]) -> None:
        """Fills in what Redis has under each id; a record that can't know says so in ``degraded``."""
        if not batch:
            return
        try:
            self._cool_down.check("redis")
            values = self._store.get([self._of.redis_claim(incoming.id) for incoming in batch])
        except StoreError as error:
            self._cool_down.failed("redis", error)
            for incoming in batch:
                incoming.degraded.append(Degraded.IDEMPOTENCY)
            return
        for incoming, value in zip(batch, values, strict=True):
            self._note(incoming, value)

    def claim(self, decided: Sequence[Incoming]) -> None:
        """Claims decisions. Where another one was claimed meanwhile, ``claim`` holds it and the record loses its decision."""
        asked = [incoming for incoming in decided if incoming.instead_of is not None]
        for _ in range(_TRIES):
            if not asked:
                return
            try:
                held = self._store.claim([self._taking(incoming) for incoming in asked])
            except StoreError as error:
                self._cool_down.failed("redis", error)
                break
            lost = [
                (incoming, value) for incoming, value in zip(asked, held, strict=True) if value is not None
            ]
            for incoming, value in lost:
                self._note(incoming, value)
                if incoming.claim is not None:
                    incoming.decision = None
                elif Degraded.IDEMPOTENCY in incoming.degraded:
                    _mark(incoming.decision)
            asked = [incoming for incoming, _ in lost if incoming.claim is None]
        for incoming in asked:
            _mark(incoming.decision)

    def published(self, decisions: Sequence[Decision]) -> None:
        """Of committed decisions: those whose claim may be missing are claimed as soon as may be, so that a retry gets them."""
        for decision in decisions:
            if Degraded.IDEMPOTENCY in decision["degraded"]:
                value = claims.pack(decision, appended=True)
                self._unclaimed.append(Taking(self._of.redis_claim(decision["id"]), value))
        self.make_up()

    def make_up(self) -> None:
        """Brings Redis what it missed, for a moment; the rest with the next call."""
        until = time.monotonic() + _SECONDS
        while self._unclaimed and time.monotonic() < until:
            takings = [self._unclaimed[i] for i in range(min(_CHUNK, len(self._unclaimed)))]
            try:
                self._cool_down.check("redis")
                self._store.claim(takings)
            except StoreError as error:
                self._cool_down.failed("redis", error)
                return
            for _ in takings:
                self._unclaimed.popleft()

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


def _mark(decision: Decision | None) -> None:
    if decision is not None:
        decision["degraded"] = sorted({*map(str, decision["degraded"]), str(Degraded.IDEMPOTENCY)})
