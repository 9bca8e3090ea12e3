"""Writes the two functions of a curve as straight-line Python: what an event adds to it, and what is read off it.

A loop over windows and aggregates that interprets a plan takes more than twice the time of the same reads written out.
The source holds small integers and names of our own only, never text from a resource: that comes in by name.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, TypeVar, cast

from fraud_pipelines.features.curve import NO_MAXIMUM, NO_MINIMUM
from fraud_pipelines.features.plan import AMOUNT, NAN, Adder, CurvePlan, Reader, Value, Where, integer

T = TypeVar("T")


def extreme(column: array[int], first: int, rows: int, maximum: bool) -> Value:
    """Greatest or least of the rows, NaN where none holds a value."""
    values = column[first:rows]
    if not values:
        return NAN
    best = max(values) if maximum else min(values)
    return NAN if best == (NO_MAXIMUM if maximum else NO_MINIMUM) else best


class CurveCode:
    """The code of one curve. Each method asks for something of a window and gives the expression that stands for it.

    What is asked for is also what the curve keeps, in the order in which it is first asked for: profiles are laid out so.
    ``longest`` is the window of an aggregate that names none, in milliseconds like all windows.
    """

    def __init__(self, longest: int) -> None:
        self.longest = longest
        self._sums: list[tuple[str, str]] = []
        self._extremes: list[tuple[str, bool]] = []
        self._last_seen: list[str] = []
        self._counted: set[int] = set()
        self._summed: set[tuple[int, int]] = set()
        self._edges: set[int] = set()
        self._asks_gap = False

    def count(self, window: int) -> str:
        """Events in the window."""
        self._edges.add(window)
        self._counted.add(window)
        return f"n_{window}"

    def sum(self, of: str, adds: str, window: int) -> str:
        """Sum over the window's events of ``adds``, an expression of ``{x}``, an event's value of ``of`` or None."""
        self._edges.add(window)
        column = _place(self._sums, (of, adds))
        self._summed.add((column, window))
        return f"s{column}_{window}"

    def extreme(self, of: str, maximum: bool, window: int) -> str:
        """Greatest (else least) value in the window; NaN without any."""
        self._edges.add(window)
        column = _place(self._extremes, (of, maximum))
        return f"extreme(curve.peaks[{column}], e_{window}, rows, {maximum})"

    def distinct(self, of: str, window: int) -> str:
        """Different values in the window."""
        return f"last_seen[{_place(self._last_seen, of)}].count(t - {window}, t)"

    def gap(self) -> str:
        """Milliseconds since the event before, None without one."""
        self._asks_gap = True
        return "gap"

    def plan(self, where: Where | None, values: Sequence[str]) -> CurvePlan:
        """The curve's plan, which reads the expressions ``values``, in order."""
        columns = tuple(self._sums)
        return CurvePlan(
            where=where,
            columns=columns,
            extremes=tuple(self._extremes),
            last_seen=tuple(self._last_seen),
            measure=_adder(columns),
            read=self._reader(values),
        )

    def source(self, values: Sequence[str]) -> str:
        """Source of ``read(curve, last_seen, t, rows, own)``.

        ``rows`` is how many of the curve's rows count as at or before ``t``; ``own`` says that the last of them is the event.
        """
        lines = ["ts = curve.ts"]
        low = "0"
        for window in sorted(self._edges, reverse=True):
            lines.append(f"e_{window} = bisect_right(ts, t - {window}, {low}, rows)")
            low = f"e_{window}"

        counted = sorted(self._counted)
        if counted:
            lines += ["counts = curve.counts", "if counts:"]
            lines += ["    cells, base, top = len(counts), curve.base, curve.count_to(rows)"]
            lines += ["    above = counts[-1] - cells"]
            for window in counted:
                e = f"e_{window}"
                before = f"above + {e} if {e} > cells else counts[{e} - 1] if {e} else base"
                lines.append(f"    n_{window} = top - ({before})")
            lines += ["else:"]
            lines += [f"    n_{window} = rows - e_{window}" for window in counted]

        for column in sorted({column for column, _ in self._summed}):
            lines.append(f"column, base = curve.sums[{column}], curve.base_sums[{column}]")
            lines.append("total = column[rows - 1] if rows else base")
            for window in sorted(window for of, window in self._summed if of == column):
                e = f"e_{window}"
                lines.append(f"s{column}_{window} = total - (column[{e} - 1] if {e} else base)")
        if self._asks_gap:
            lines.append("gap = t - ts[rows - 1 - own] if rows > own else None")
        lines.append(f"return [{', '.join(values)}]")
        return "def read(curve, last_seen, t, rows, own):\n" + "".join(f"    {line}\n" for line in lines)

    def _reader(self, values: Sequence[str]) -> Reader:
        scope: dict[str, Any] = {"bisect_right": bisect_right, "extreme": extreme, "NAN": NAN}
        exec(compile(self.source(values), "<read>", "exec"), scope)  # noqa: S102  # our own text, see the module's docstring
        return cast(Reader, scope["read"])


def _adder(columns: Sequence[tuple[str, str]]) -> Adder:
    """The function that gives what an event adds to each running sum."""
    values = [
        adds.format(x="event['amount']" if of == AMOUNT else f"integer(event, of{i})")
        for i, (of, adds) in enumerate(columns)
    ]
    scope: dict[str, Any] = {"integer": integer} | {f"of{i}": of for i, (of, _) in enumerate(columns)}
    source = f"def add(event):\n    return ({''.join(f'{value}, ' for value in values)})\n"
    exec(compile(source, "<add>", "exec"), scope)  # noqa: S102  # our own text, see the module's docstring
    return cast(Adder, scope["add"])


def _place(items: list[T], item: T) -> int:
    """Place of an item in a list of different ones, which it joins if it is new."""
    if item not in items:
        items.append(item)
    return items.index(item)
