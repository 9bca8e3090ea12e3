"""What the profiles that were written say of the stream's sources: the subtasks' records, put together for each partition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fraud_contracts.lineage import Positions
from fraud_contracts.stream_progress import Applied, StreamProgress, pack_applied

_Offsets = dict[tuple[str, int], int]


class PartitionProgress:
    """One partition's, of one feature set: its newest lineage counts.

    Where the job was made anew with another parallelism, what the subtasks before it told of is as true as ever. So is what one told of
    before its job went back to a checkpoint, since no profile goes back, and what Redis holds: it loses that with profiles only.
    """

    def __init__(self, held: Applied | None) -> None:
        """``held``: what Redis holds; None where that is nothing."""
        self._epoch, self._beat = (0, 0) if held is None else (held.epoch, held.beat)
        self._applied: _Offsets = {} if held is None else _flat(held.applied)
        # What each subtask of each stage told of, by how many there are of both.
        self._told: dict[tuple[int, int], dict[tuple[int, int], _Offsets]] = {}

    def read(self, progress: StreamProgress) -> bytes | None:
        """Takes a record in the partition's order. What Redis is to hold then; None where it says nothing new."""
        if progress.epoch < self._epoch:
            return None
        if progress.epoch > self._epoch:
            self._epoch, self._applied, self._told = progress.epoch, {}, {}
        told = self._told.setdefault((progress.stages, progress.parallelism), {})
        _raise_to(told.setdefault((progress.stage, progress.subtask), {}), _flat(progress.applied))
        if len(told) < progress.stages * progress.parallelism:
            return None
        everywhere = set.intersection(*(set(offsets) for offsets in told.values()))
        _raise_to(
            self._applied, {place: min(offsets[place] for offsets in told.values()) for place in everywhere}
        )
        self._beat += 1
        applied: Positions = {}
        for (noun, partition), offset in self._applied.items():
            applied.setdefault(noun, {})[partition] = offset
        return pack_applied(self._epoch, self._beat, applied, progress.reach)


def _flat(positions: Positions) -> _Offsets:
    return dict(_places(positions))


def _places(positions: Positions) -> Iterator[tuple[tuple[str, int], int]]:
    for noun, offsets in positions.items():
        for partition, offset in offsets.items():
            yield (noun, partition), offset


def _raise_to(offsets: _Offsets, newer: Mapping[tuple[str, int], int]) -> None:
    for place, offset in newer.items():
        offsets[place] = max(offset, offsets.get(place, 0))
