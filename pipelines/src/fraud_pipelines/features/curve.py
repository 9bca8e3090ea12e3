"""The thinned cumulative curve: what a key remembers of its events.

Rows are sorted by time. Each holds an event's time, the running sums up to and including it, and for extremes its own
value. A window is then the difference of two rows, whatever its length. The newest ``k`` rows are single events, with
a tag that tells a repeated id; an older row is the last event of its time cell (see ``grid``), with a running count
instead of a tag. To make a cell out of events is to delete all its rows but the last, so sums stay exact integers.

The rows are a function of the *set* of events, not of their order of arrival, as long as none came too late to be taken.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Final

from fraud_pipelines.features.grid import Grid

INT64_MAX: Final = 2**63 - 1
INT64_MIN: Final = -(2**63)
# What a null adds to an extreme. No event can hold it: declared integers stay below 2^53.
NO_MAXIMUM: Final = INT64_MIN
NO_MINIMUM: Final = INT64_MAX


class Curve:
    """``maxima`` says of each extreme column whether it keeps the greatest (else the least) value of a cell."""

    __slots__ = ("base", "base_sums", "counts", "grid", "maxima", "peaks", "sums", "tags", "ts")

    def __init__(
        self,
        grid: Grid,
        maxima: tuple[bool, ...],
        base: int,
        base_sums: list[int],
        ts: array[int],
        sums: list[array[int]],
        peaks: list[array[int]],
        counts: array[int],
        tags: array[int],
    ) -> None:
        self.grid = grid
        self.maxima = maxima
        self.base = base  # events before the first row, forgotten by now
        self.base_sums = base_sums
        self.ts = ts
        self.sums = sums
        self.peaks = peaks
        self.counts = counts  # running counts of the cells, the first len(counts) rows
        self.tags = tags  # of the single events, the last len(tags) rows

    @classmethod
    def empty(cls, grid: Grid, sums: int = 0, maxima: tuple[bool, ...] = ()) -> Curve:
        """Of a key that had no event yet."""
        columns = [array("q") for _ in range(sums)]
        peaks = [array("q") for _ in maxima]
        return cls(grid, maxima, 0, [0] * sums, array("q"), columns, peaks, array("q"), array("I"))

    def count_to(self, i: int) -> int:
        """Events in the rows before ``i``, and before the first row."""
        cells = len(self.counts)
        if i > cells:
            return (self.counts[-1] if cells else self.base) + i - cells
        return self.counts[i - 1] if i else self.base

    def find(self, t: int, tag: int) -> int:
        """Row of the single event with this time and tag, else -1."""
        ts, tags, cells = self.ts, self.tags, len(self.counts)
        i = bisect_right(ts, t) - 1
        while i >= cells and ts[i] == t:
            if tags[i - cells] == tag:
                return i
            i -= 1
        return -1

    def add(self, t: int, tag: int, values: Sequence[int], extremes: Sequence[int] = ()) -> int:
        """Takes an event; -> number of rows up to and including its own. Repeated and too late ones are the caller's to find."""
        ts, sums = self.ts, self.sums
        last = ts[-1] if ts else None
        if last is not None and t <= last:
            return self._insert(t, tag, values, extremes)
        try:
            if last is None:
                for column, base, value in zip(sums, self.base_sums, values, strict=True):
                    column.append(base + value)
            elif len(sums) == 1:  # nearly all, and a loop over one costs as much as the rest
                column = sums[0]
                column.append(column[-1] + values[0])
            else:
                for column, value in zip(sums, values, strict=True):
                    column.append(column[-1] + value)
        except OverflowError:
            for column in self.sums:
                del column[len(ts) :]
            self._rebase()
            return self.add(t, tag, [_cap(self, i, value) for i, value in enumerate(values)], extremes)
        if extremes:
            for column, value in zip(self.peaks, extremes, strict=True):
                column.append(value)
        ts.append(t)
        self.tags.append(tag)
        grid = self.grid
        if last is not None:
            if ts[0] <= t - grid.retain:
                self.expire(t - grid.retain)
            if self.counts:
                self._coarsen(last, t)
            if len(self.tags) > grid.k:
                self._fold_oldest(t)
        return len(ts)

    def expire(self, limit: int) -> None:
        """Forgets the rows at or before ``limit``; their sums go on in the base."""
        ts, counts = self.ts, self.counts
        gone = bisect_right(ts, limit)
        if not gone:
            return
        cells = len(counts)
        self.base = self.count_to(gone)
        del ts[:gone]
        for i, column in enumerate(self.sums):
            self.base_sums[i] = column[gone - 1]
            del column[:gone]
        for column in self.peaks:
            del column[:gone]
        if cells:
            del counts[:gone]
        if gone > cells:
            del self.tags[: gone - cells]

    def remove(self, row: int) -> None:
        """Takes a single event back, as if it had never come (in curves without sums: labels)."""
        del self.tags[row - len(self.counts)]
        for column in (self.ts, *self.peaks):
            del column[row]

    def _coarsen(self, before: int, newest: int) -> None:
        """The newest event moved on: cells that crossed into a coarser zone become larger."""
        ts = self.ts
        for age, width in self.grid.levels[1:]:
            low, high = (before - age) // width * width, (newest - age) // width * width
            if low == high:
                continue
            cells = len(self.counts)
            first, end = bisect_left(ts, low, 0, cells), bisect_left(ts, high, 0, cells)
            for i in range(end - 2, first - 1, -1):
                if ts[i] // width == ts[i + 1] // width:
                    self._drop_into_next(i)
                    del self.counts[i]

    def _fold_oldest(self, newest: int) -> None:
        """The oldest single event becomes the last one of its cell."""
        ts, cells = self.ts, len(self.counts)
        count = (self.counts[-1] if cells else self.base) + 1
        del self.tags[0]
        width = self.grid.width(newest, ts[cells])
        if cells and ts[cells - 1] // width == ts[cells] // width:
            self._drop_into_next(cells - 1)
            self.counts[-1] = count
        else:
            self.counts.append(count)

    def _drop_into_next(self, i: int) -> None:
        """Deletes row ``i`` but for its count; the next row takes over its extremes."""
        for column, maximum in zip(self.peaks, self.maxima, strict=True):
            if (column[i] > column[i + 1]) == maximum:
                column[i + 1] = column[i]
            del column[i]
        for column in self.sums:
            del column[i]
        del self.ts[i]

    def _insert(self, t: int, tag: int, values: Sequence[int], extremes: Sequence[int]) -> int:
        """An event that isn't newer than all others."""
        ts, tags, newest, k = self.ts, self.tags, self.ts[-1], self.grid.k
        if any(abs(column[-1]) > INT64_MAX // 2 for column in self.sums):
            self._rebase()
            values = [_cap(self, i, value) for i, value in enumerate(values)]
        cells, rows = len(self.counts), len(ts)
        at = bisect_right(ts, t)
        while at > cells and ts[at - 1] == t and tags[at - 1 - cells] > tag:
            at -= 1  # events of one millisecond lie in the order of their tags, so that arrival doesn't show
        for column, base, value in zip(self.sums, self.base_sums, values, strict=True):
            for i in range(at, rows):
                column[i] += value
            column.insert(at, (column[at - 1] if at else base) + value)
        for column, value in zip(self.peaks, extremes, strict=True):
            column.insert(at, value)
        ts.insert(at, t)
        if at > cells or (at == cells and len(tags) < k):
            tags.insert(at - cells, tag)
            if len(tags) > k:
                self._fold_oldest(newest)
            return bisect_right(ts, t)
        for i in range(at, cells):
            self.counts[i] += 1
        if at < cells:
            width = self.grid.width(newest, ts[at + 1])
            if t // width == ts[at + 1] // width:
                self._drop_into_next(at)
                return at + 1
        self.counts.insert(at, (self.counts[at - 1] if at else self.base) + 1)
        width = self.grid.width(newest, t)
        if at and ts[at - 1] // width == t // width:
            self._drop_into_next(at - 1)
            del self.counts[at - 1]
        return bisect_right(ts, t)

    def _rebase(self) -> None:
        """Running sums grow from the key's birth; before they pass 64 bits they start anew at the first row."""
        for i, (column, base) in enumerate(zip(self.sums, self.base_sums, strict=True)):
            for row, value in enumerate(column):
                column[row] = max(INT64_MIN, min(INT64_MAX, value - base))
            self.base_sums[i] = 0


def _cap(curve: Curve, i: int, value: int) -> int:
    """As much of ``value`` as the column can take: a sum that 64 bits can't hold stands still at their end."""
    column = curve.sums[i]
    low = min(column, default=0)
    high = max(column, default=0)
    return max(INT64_MIN - min(low, 0), min(INT64_MAX - max(high, 0), value))
