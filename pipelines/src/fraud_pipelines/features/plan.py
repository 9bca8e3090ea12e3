"""What compiling gives: which curves an entity keeps, and how values are read off them.

A plan is made once per process and holds no state of any key. ``CurvePlan.read`` is the hot path of the stream.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

from fraud_pipelines.features.curve import NO_MAXIMUM, NO_MINIMUM, Curve
from fraud_pipelines.features.recent import MISSING, Recent

NAN: Final = float("nan")
AMOUNT: Final = "amount"
PRESENT: Final = "present"  # a column that counts the events whose field isn't null
VALUE: Final = "value"

Event = Mapping[str, Any]
Value = int | float
Column = tuple[str, str]


def hash64(text: str) -> int:
    """Stable across processes and machines, unlike ``hash``."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def integer(event: Event, of: str) -> int | None:
    """Amount or a declared integer field; None where it is null."""
    if of == AMOUNT:
        return event["amount"]  # type: ignore[no-any-return]
    value = event["fields"].get(of)
    return value if value.__class__ is int else None


def measure(columns: tuple[Column, ...]) -> Callable[[Event], tuple[int, ...]]:
    """Function that gives what an event adds to each running sum."""
    if not columns:
        return lambda event: ()
    if columns == ((AMOUNT, VALUE),):
        return lambda event: (event["amount"],)

    def values(event: Event) -> tuple[int, ...]:
        found = []
        for of, kind in columns:
            value = integer(event, of)
            found.append((value or 0) if kind == VALUE else int(value is not None))
        return tuple(found)

    return values


@dataclass(frozen=True)
class FraudPlan:
    """Delayed labels: windows ``(t - delay - w, t - delay]``, shortest first."""

    delay: int
    windows: tuple[int, ...]

    def read(self, main: Curve, frauds: Curve, t: int, rows: int, out: list[Value]) -> None:
        """Appends count and rate of each window: frauds known by ``t`` among the transactions of that window."""
        ts, until = main.ts, t - self.delay
        end = bisect_right(ts, until, 0, rows)
        fts = frauds.ts
        if not end and not fts:
            for _ in self.windows:
                out += (0, NAN)
            return
        seen, known = main.count_to(end), frauds.peaks[0]
        fraud_end = bisect_right(fts, until)
        for window in self.windows:
            n = seen - main.count_to(bisect_right(ts, until - window, 0, end))
            first = bisect_right(fts, until - window, 0, fraud_end)
            x = 0
            if first < fraud_end:
                if max(known[first:fraud_end]) <= t:
                    x = frauds.count_to(fraud_end) - frauds.count_to(first)
                else:  # a late transaction may not see what became known after it
                    for i in range(first, fraud_end):
                        if known[i] <= t:
                            x += frauds.count_to(i + 1) - frauds.count_to(i)
            out += (x, float(x) / float(n) if n else NAN)


@dataclass
class CurvePlan:
    """One curve: the events of a key that pass ``where`` (all where it is None), and what is read off it.

    Values come as: per window, longest first, the count and each running sum; then means, extremes, distinct counts,
    seconds since the last event. ``means`` holds pairs of indexes into these values, ``peaks`` (window, column).
    """

    where: tuple[str, Any] | None
    columns: tuple[Column, ...] = ()
    windows: tuple[int, ...] = ()
    means: tuple[tuple[int, int], ...] = ()
    extremes: tuple[tuple[str, bool], ...] = ()
    peaks: tuple[tuple[int, int], ...] = ()
    recents: tuple[str, ...] = ()
    distincts: tuple[tuple[int, int], ...] = ()
    since: tuple[int, ...] = ()
    measure: Callable[[Event], tuple[int, ...]] = field(init=False)

    def __post_init__(self) -> None:
        self.measure = measure(self.columns)
        self.maxima = tuple(maximum for _, maximum in self.extremes)
        self.plain = not self.extremes and not self.recents

    def matches(self, event: Event) -> bool:
        return self.where is None or event["fields"].get(self.where[0]) == self.where[1]

    def add(self, curve: Curve, recents: list[Recent], t: int, tag: int, event: Event) -> int:
        """Takes an event; -> rows up to and including its own."""
        if self.plain:
            return curve.add(t, tag, self.measure(event))
        extremes: list[int] = []
        for of, maximum in self.extremes:
            value = integer(event, of)
            extremes.append((NO_MAXIMUM if maximum else NO_MINIMUM) if value is None else value)
        for of, recent in zip(self.recents, recents, strict=True):
            value = event["fields"][of] if of in event["fields"] else event["entities"].get(of)
            recent.add(t, MISSING if value is None else hash64(str(value)))
        return curve.add(t, tag, self.measure(event), extremes)

    def read(
        self, curve: Curve, recents: list[Recent], t: int, rows: int, own: bool, out: list[Value]
    ) -> None:
        """Appends the values as of ``t``; ``rows`` is how many rows count as at or before it, ``own`` if the event is one."""
        ts, counts, start = curve.ts, curve.counts, len(out)
        cells, i = len(counts), 0
        top = curve.count_to(rows)
        after_cells = counts[-1] - cells if cells else curve.base
        if len(self.columns) == 1:
            column, base = curve.sums[0], curve.base_sums[0]
            total = column[rows - 1] if rows else base
            for window in self.windows:
                i = bisect_right(ts, t - window, i, rows)
                if i:
                    out.append(top - (after_cells + i if i > cells else counts[i - 1]))
                    out.append(total - column[i - 1])
                else:
                    out.append(top - curve.base)
                    out.append(total - base)
        elif not self.columns:
            for window in self.windows:
                i = bisect_right(ts, t - window, i, rows)
                out.append(top - ((after_cells + i if i > cells else counts[i - 1]) if i else curve.base))
        else:
            for window in self.windows:
                i = bisect_right(ts, t - window, i, rows)
                out.append(top - curve.count_to(i))
                for column, base in zip(curve.sums, curve.base_sums, strict=True):
                    total = column[rows - 1] if rows else base
                    out.append(total - (column[i - 1] if i else base))
        for of, count in self.means:
            n = out[start + count]
            out.append(float(out[start + of]) / float(n) if n else NAN)
        for window, which in self.peaks:
            seen = curve.peaks[which][bisect_right(ts, t - window, 0, rows) : rows]
            maximum = self.maxima[which]
            none = NO_MAXIMUM if maximum else NO_MINIMUM
            best = (max(seen) if maximum else min(seen)) if seen else none
            out.append(NAN if best == none else best)
        for which, window in self.distincts:
            out.append(recents[which].count(t - window, t))
        for limit in self.since:
            before = rows - 2 if own else rows - 1
            gone = t - ts[before] if before >= 0 else limit
            out.append(gone / 1000 if gone < limit else NAN)
