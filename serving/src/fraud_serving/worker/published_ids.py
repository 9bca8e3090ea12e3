"""Ids that were published lately, by partition: what tells a repeat after a restart of the stream or of this worker.

Filled with what is read of ``decisions`` when a partition comes (``tail.py``), then by every committed batch. Bounded: of an older one
its claim says that it is published (a day), and at last the ledger keeps its first decision.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

KEPT: Final = 50_000


class DecisionStamp(NamedTuple):
    """What tells a decision from another one of its id: its body's hash, and when it was made (UTC ms)."""

    hash: str
    decided: int


class Publication(NamedTuple):
    """A decision in ``decisions``; where they are known, what it says and its offset, which else is negative."""

    id: str
    stamp: DecisionStamp
    action: str = ""
    offset: int = -1


class PublishedIds:
    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._by_partition: dict[int, dict[str, DecisionStamp]] = {}

    def get(self, event_id: str) -> DecisionStamp | None:
        """The published decision of an id, on any of our partitions: another body may lie on another one."""
        for stamps in self._by_partition.values():
            stamp = stamps.get(event_id)
            if stamp is not None:
                return stamp
        return None

    def add(self, partition: int, entries: Iterable[tuple[str, DecisionStamp]]) -> None:
        """Of several decisions of an id the first stands."""
        stamps = self._by_partition.setdefault(partition, {})
        for event_id, stamp in entries:
            stamps[event_id] = stamps.pop(event_id, stamp)
        while len(stamps) > self._kept:
            del stamps[next(iter(stamps))]

    def forget(self, partition: int) -> None:
        self._by_partition.pop(partition, None)

    def __len__(self) -> int:
        return sum(len(stamps) for stamps in self._by_partition.values())
