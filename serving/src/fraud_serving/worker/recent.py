"""Ids that were published lately, by partition: what tells a repeat after a restart of the stream or of this worker.

Filled from the tail of the ``decisions`` partition on assignment, then by every committed batch. Bounded: an older repeat
is still caught by the claim (a day) and at last by the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

KEPT: Final = 50_000
Door = Literal["inline", "stream"]
Known = tuple[str, Door]


class Recent:
    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._by_partition: dict[int, dict[str, Known]] = {}

    def get(self, partition: int, event_id: str) -> Known | None:
        """(body hash, door) of a published decision; inline where both doors decided it."""
        return self._by_partition.get(partition, {}).get(event_id)

    def add(self, partition: int, entries: Iterable[tuple[str, Known]]) -> None:
        known = self._by_partition.setdefault(partition, {})
        for event_id, entry in entries:
            before = known.pop(event_id, None)
            known[event_id] = entry if before is None or before[1] == "stream" else before
        while len(known) > self._kept:
            del known[next(iter(known))]

    def forget(self, partition: int) -> None:
        self._by_partition.pop(partition, None)

    def __len__(self) -> int:
        return sum(len(known) for known in self._by_partition.values())
