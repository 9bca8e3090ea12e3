"""What compiling gives: which curves an entity keeps, and how values are read off them.

A plan is made once per process and holds no state of any key. ``CurvePlan.read`` is the hot path of the stream.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any, Final

from fraud_contracts.preset_payments_v1 import AMOUNT as AMOUNT
from fraud_pipelines.features.curve import NO_MAXIMUM, NO_MINIMUM, Curve
from fraud_pipelines.features.last_seen import MISSING, LastSeen

NAN: Final = float("nan")

Event = Mapping[str, Any]
Value = int | float
Where = tuple[str, str | int | float | bool]  # a field, and the value that it must have
Adder = Callable[[Event], tuple[int, ...]]
Reader = Callable[[Curve, list[LastSeen], int, int, bool], list[Value]]


def hash64(text: str) -> int:
    """Stable across processes and machines, unlike ``hash``."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def integer(event: Event, of: str) -> int | None:
    """Amount or a declared integer field; None where it is null."""
    if of == AMOUNT:
        amount: int = event["amount"]
        return amount
    value = event["fields"].get(of)
    return value if value.__class__ is int else None


@dataclass(frozen=True)
class FraudPlan:
    """Delayed labels: windows ``(t - delay - w, t - delay]``, shortest first."""

    delay: int
    windows: tuple[int, ...]

    @cached_property
    def nothing(self) -> tuple[Value, ...]:
        """The values of a key without an event as old as the delay."""
        return (0, NAN) * len(self.windows)

    def read(self, main: Curve, frauds: Curve, t: int, rows: int, out: list[Value]) -> None:
        """Appends count and rate of each window: frauds known by ``t`` among the transactions of that window."""
        ts, until = main.ts, t - self.delay
        end = bisect_right(ts, until, 0, rows)
        fts = frauds.ts
        if not end and not fts:
            out += self.nothing
            return
        if not fts and not main.counts:  # most keys: no label, and each row is one event
            for window in self.windows:
                n = end - bisect_right(ts, until - window, 0, end)
                out += (0, 0.0 if n else NAN)
            return
        count_to_end, known_at = main.count_to(end), frauds.peaks[0]
        fraud_end = bisect_right(fts, until)
        for window in self.windows:
            n = count_to_end - main.count_to(bisect_right(ts, until - window, 0, end))
            first = bisect_right(fts, until - window, 0, fraud_end)
            x = 0
            if first < fraud_end:
                if max(known_at[first:fraud_end]) <= t:
                    x = frauds.count_to(fraud_end) - frauds.count_to(first)
                else:  # a late transaction may not see what became known after it
                    for i in range(first, fraud_end):
                        if known_at[i] <= t:
                            x += frauds.count_to(i + 1) - frauds.count_to(i)
            out += (x, float(x) / float(n) if n else NAN)


class CurvePlan:
    """One curve: the events of a key that pass ``where`` (all where it is None), and what is read off it, in order.

    ``columns`` are its running sums, (of, what an event adds); ``extremes`` its peaks, (of, whether the greatest);
    ``last_seen`` the fields or entities whose values it remembers. ``measure`` gives what an event adds to each sum.
    """

    __slots__ = ("columns", "extremes", "last_seen", "maxima", "measure", "plain", "read", "where")

    def __init__(
        self,
        where: Where | None,
        columns: tuple[tuple[str, str], ...],
        extremes: tuple[tuple[str, bool], ...],
        last_seen: tuple[str, ...],
        measure: Adder,
        read: Reader,
    ) -> None:
        self.where, self.columns, self.extremes, self.last_seen = where, columns, extremes, last_seen
        self.measure, self.read = measure, read
        self.maxima = tuple(maximum for _, maximum in extremes)
        self.plain = not extremes and not last_seen

    def matches(self, event: Event) -> bool:
        return self.where is None or event["fields"].get(self.where[0]) == self.where[1]

    def add(self, curve: Curve, last_seen: list[LastSeen], t: int, tag: int, event: Event) -> int:
        """Takes an event; -> rows up to and including its own."""
        extremes: list[int] = []
        for of, maximum in self.extremes:
            value = integer(event, of)
            extremes.append((NO_MAXIMUM if maximum else NO_MINIMUM) if value is None else value)
        rows = curve.add(t, tag, self.measure(event), extremes)
        for of, table in zip(self.last_seen, last_seen, strict=True):
            value = event["fields"][of] if of in event["fields"] else event["entities"].get(of)
            table.add(t, MISSING if value is None else hash64(str(value)), curve.ts[-1])
        return rows
