"""Which events make up the difference of two digests, where a job took them in the order of its inputs' partitions.

A job without a record in evidence, since it took all in silence, has of each partition all up to some place. So between two of its
states lies one window of each partition. An inline vector has seen the newest events of its door beside them, which were pending.
Digests and counts of windows are differences of running sums, so all windows are tried at once: meet in the middle, over the sums of one half of
the partitions and those of the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Sums = NDArray[np.uint64]
# Beside a digest a count must fit: as part of the same sum of 64 bits.
_EACH: Final = np.uint64(0x9E3779B97F4A7C15)
_MASK: Final = (1 << 64) - 1
# At most so many sums of either half.
MOST: Final = 1 << 18
# Windows begin so many events at most from where the other state's newest event lies in time.
SKEWS: Final = (0, 2, 6)
# So many newest events of one door may have been pending, which it appended perhaps in another order than it decided them.
PENDING: Final = 64
LATE: Final = 3


class Origin(NamedTuple):
    """Where an event came from, and when it was appended there, UTC ms. Offsets that fall are of a topic that was made anew."""

    topic: str = ""
    partition: int = 0
    appended: int = 0
    offset: int = 0


class EventRows:
    """The events of one key: ``origins`` and ``times`` by hash."""

    def __init__(self, origins: Mapping[int, Origin], times: Mapping[int, int]) -> None:
        self._times = times
        by_place: dict[tuple[str, int], list[tuple[Origin, int]]] = defaultdict(list)
        by_topic: dict[str, list[tuple[Origin, int]]] = defaultdict(list)
        for key, origin in origins.items():
            by_place[origin.topic, origin.partition].append((origin, key))
            by_topic[origin.topic].append((origin, key))
        self._rows = [row for events in by_place.values() for row in _lives(sorted(events))]
        self._running = [_running(row) for row in self._rows]
        self._of_topic = {
            topic: [key for _, key in sorted(events, key=lambda one: one[0].appended)]
            for topic, events in by_topic.items()
        }
        self._origins = origins
        # By where windows begin: what was made for one state does for those near to it.
        self._made: dict[tuple[tuple[int, ...], int], tuple[_Half, _Half] | None] = {}

    def windows(
        self, difference: int, count: int, newest: int, skew: int, pending_at: int | None
    ) -> list[int] | None:
        """``count`` hashes whose sum mod 2^64 is ``difference``; None where none are found, or there are too many windows.

        They are a window of each partition, which begins with it or at most ``skew`` events from the time ``newest``, and, where ``pending_at`` is
        the hash of an event, some of those before it on its topic.
        """
        halves = self._halves(newest, skew)
        if halves is None:
            return None
        one, other = halves
        target = np.uint64((difference + count * int(_EACH)) & _MASK)
        pending = self._pending(pending_at)
        sums = np.array([_sum(keys) for keys in pending], np.uint64)
        for begin in range(0, len(sums), step := max(1, MOST // len(other.sums))):
            wanted = target - np.add.outer(sums[begin : begin + step], other.sums)
            at = np.minimum(np.searchsorted(one.sums, wanted), len(one.sums) - 1)
            for which, found in np.argwhere(one.sums[at] == wanted):
                keys = pending[begin + which]
                chosen = [*one.keys(int(at[which, found])), *other.keys(int(found)), *keys]
                if len(set(chosen)) == len(chosen):
                    return chosen
        return None

    def _pending(self, seen: int | None) -> list[Sequence[int]]:
        """None, then more and more of the newest before an event, by where they were appended."""
        some: list[Sequence[int]] = [()]
        if seen is not None:
            row = self._of_topic[self._origins[seen].topic]
            at = row.index(seen)
            for end in range(min(len(row), at + LATE), max(0, at - LATE), -1):
                keys = [key for key in row[max(0, end - PENDING) : end] if key != seen]
                some += [keys[begin:] for begin in range(len(keys) - 1, -1, -1)]
        return some

    def _halves(self, newest: int, skew: int) -> tuple[_Half, _Half] | None:
        """None where there are too many sums. The first is in order, and the larger one."""
        middles = tuple(sum(self._times[key] <= newest for key in row) for row in self._rows)
        if (middles, skew) not in self._made:
            choices = [
                _choices(len(row), middle, skew) for row, middle in zip(self._rows, middles, strict=True)
            ]
            sizes = [[1], [1]]
            halves: list[list[tuple[int, list[tuple[int, int]]]]] = [[], []]
            for number in sorted(range(len(choices)), key=lambda one: -len(choices[one])):
                half = 0 if sizes[0][-1] * len(choices[number]) <= MOST else 1
                halves[half].append((number, choices[number]))
                sizes[half].append(sizes[half][-1] * len(choices[number]))
            fits = sizes[1][-1] <= MOST
            self._made[middles, skew] = (
                (
                    _Half(self._rows, self._running, halves[0], in_order=True),
                    _Half(self._rows, self._running, halves[1]),
                )
                if fits
                else None
            )
        return self._made[middles, skew]


def _choices(length: int, middle: int, skew: int) -> list[tuple[int, int]]:
    """The windows of a partition that are tried: (begin, end), one of them empty."""
    begins = {0, *range(max(0, middle - skew), min(length, middle + skew // 3) + 1)}
    return [(0, 0), *((begin, end) for begin in begins for end in range(begin + 1, length + 1))]


class _Half:
    """All sums of one window of each of some partitions."""

    def __init__(
        self,
        rows: Sequence[Sequence[int]],
        running: Sequence[Sums],
        choices: Sequence[tuple[int, Sequence[tuple[int, int]]]],
        in_order: bool = False,
    ) -> None:
        self._rows, self._choices = rows, choices
        self.sums = np.zeros(1, np.uint64)
        for number, windows in choices:
            begins, ends = np.array(windows).T
            own = running[number][ends] - running[number][begins]
            self.sums = np.add.outer(self.sums, own).ravel()
        self._order = np.argsort(self.sums) if in_order else None
        if self._order is not None:
            self.sums = self.sums[self._order]

    def keys(self, at: int) -> Iterable[int]:
        """Which hashes a sum is of."""
        index = at if self._order is None else int(self._order[at])
        for number, windows in reversed(self._choices):
            index, which = divmod(index, len(windows))
            begin, end = windows[which]
            yield from self._rows[number][begin:end]


def _lives(events: Sequence[tuple[Origin, int]]) -> Iterator[list[int]]:
    """The hashes of a partition in its order, those of a topic made anew for themselves."""
    row: list[int] = []
    last = -1
    for origin, key in events:
        if origin.offset < last:
            yield row
            row = []
        row.append(key)
        last = origin.offset
    if row:
        yield row


def _running(row: Sequence[int]) -> Sums:
    sums = np.zeros(len(row) + 1, np.uint64)
    np.cumsum(np.array(row, np.uint64) + _EACH, out=sums[1:])
    return sums


def _sum(keys: Sequence[int]) -> np.uint64:
    return np.uint64((sum(keys) + len(keys) * int(_EACH)) & _MASK)
