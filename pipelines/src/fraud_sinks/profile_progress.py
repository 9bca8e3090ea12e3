"""What the profiles that were written say of the stream's sources: the subtasks' records, put together for each partition."""

from __future__ import annotations

from fraud_contracts.lineage import ByPlace, by_place, by_topic
from fraud_contracts.stream_progress import Applied, StreamProgress, in_all


class PartitionProgress:
    """One partition's, of one feature set: its newest lineage counts.

    Where the job was made anew with another parallelism, what the subtasks before it told of is as true as ever. So is what one told of
    before its job went back to a checkpoint, since no profile goes back, and what Redis holds: it loses that with profiles only.
    """

    def __init__(self, held: Applied | None) -> None:
        """``held``: what Redis holds; None where that is nothing."""
        self._epoch, self._beat = (0, 0) if held is None else (held.epoch, held.beat)
        self._applied: ByPlace = {} if held is None else by_place(held.applied)
        # What each subtask of each stage told of, by how many there are of both.
        self._told: dict[tuple[int, int], dict[tuple[int, int], ByPlace]] = {}

    def read(self, progress: StreamProgress) -> bytes | None:
        """Takes a record in the partition's order. What Redis is to hold then; None where it says nothing new."""
        if progress.epoch < self._epoch:
            return None
        if progress.epoch > self._epoch:
            self._epoch, self._applied, self._told = progress.epoch, {}, {}
        told = self._told.setdefault((progress.stages, progress.parallelism), {})
        _raise_to(told.setdefault((progress.stage, progress.subtask), {}), by_place(progress.applied))
        if len(told) < progress.stages * progress.parallelism:
            return None
        _raise_to(self._applied, in_all(list(told.values())))
        self._beat += 1
        applied = by_topic(self._applied)
        return Applied(epoch=self._epoch, beat=self._beat, applied=applied, reach=progress.reach).to_json()


def _raise_to(offsets: ByPlace, newer: ByPlace) -> None:
    for place, offset in newer.items():
        offsets[place] = max(offset, offsets.get(place, 0))
