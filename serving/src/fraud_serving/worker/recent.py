"""Ids that were published lately, by partition: what tells a repeat after a restart of the stream or of this worker.

Filled from the tail of the ``decisions`` partition on assignment, then by every committed batch. Bounded: of an older one
its claim says that it is published (a day), and at last the ledger keeps its first decision.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

KEPT: Final = 50_000


class Known(NamedTuple):
    """Of a published decision: its body's hash, and when it was made, which tells it from another one of the same body."""

    hash: str
    decided: int


class Recent:
    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._by_partition: dict[int, dict[str, Known]] = {}

    def get(self, event_id: str) -> Known | None:
        """The published decision of an id, on any of our partitions: another body may lie on another one."""
        for known in self._by_partition.values():
            found = known.get(event_id)
            if found is not None:
                return found
        return None

    def add(self, partition: int, entries: Iterable[tuple[str, Known]]) -> None:
        """Of several decisions of an id the first stands."""
        known = self._by_partition.setdefault(partition, {})
        for event_id, entry in entries:
            known[event_id] = known.pop(event_id, entry)
        while len(known) > self._kept:
            del known[next(iter(known))]

    def forget(self, partition: int) -> None:
        self._by_partition.pop(partition, None)

    def __len__(self) -> int:
        return sum(len(known) for known in self._by_partition.values())
