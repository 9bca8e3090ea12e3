"""Notices that Redis lost claims, with what the worker asks of it anyway.

A loss while no worker ran shows in none of its witnesses. So the newest decisions of a partition's tail must have their claims: what
Redis loses by being put back is what came last.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from fraud_contracts.names import Identity
from fraud_process.instruments import Instruments
from fraud_serving.claims import Command
from fraud_serving.wholeness import DAY_MS, SKEW_MS, Mark, Wholeness
from fraud_serving.worker.published_ids import DecisionStamp

_CHECKED: Final = 64


class ClaimLoss:
    def __init__(self, of: Identity, instruments: Instruments) -> None:
        self._of = of
        self._wholeness = Wholeness(of, instruments)
        # By partition: (key of the claim, when it was decided).
        self._unchecked: dict[int, deque[tuple[str, int]]] = {}
        self.bear_witness = self._wholeness.bear_witness
        self.confirmed, self.lost = self._wholeness.confirmed, self._wholeness.lost
        self.confirmed_before = self._wholeness.confirmed_before

    def expect(self, partition: int, event_id: str, stamp: DecisionStamp) -> None:
        """A decision of the tail, in the order of the log, that was made with a claim."""
        unchecked = self._unchecked.setdefault(partition, deque(maxlen=_CHECKED))
        unchecked.append((self._of.redis_claim(event_id), stamp.decided))

    def forget(self, partition: int) -> None:
        self._unchecked.pop(partition, None)

    def keys(self) -> list[str]:
        """What ``heard`` needs the values of, in this order."""
        expected = [key for unchecked in self._unchecked.values() for key, _ in unchecked]
        return [*self._wholeness.keys, *expected]

    def heard(self, values: Sequence[bytes | None], before: int, now: int) -> Command | None:
        """As ``Wholeness.heard``, with the claims that are expected."""
        loss = self._wholeness.heard(values[:2], before, now)
        held = values[2:]
        decided = [at for unchecked in self._unchecked.values() for _, at in unchecked]
        self._unchecked.clear()
        # Older claims may be over by now, and those from before a known loss are missed already.
        oldest = max(self._wholeness.since or 0, now - DAY_MS + SKEW_MS)
        if loss is None and any(
            value is None and at >= oldest for value, at in zip(held, decided, strict=True)
        ):
            loss = self._wholeness.lost(now)
        return loss

    def doubt(self, now: int) -> Mark | None:
        return self._wholeness.doubt(now)
