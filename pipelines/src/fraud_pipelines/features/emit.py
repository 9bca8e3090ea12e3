"""Writes two functions as straight-line Python: the one that reads a curve, and the one that assembles the vector.

A loop over windows and aggregates that interprets a plan takes more than twice the time of the same reads written out.
The source holds small integers from a checked plan only, never text from a resource: that comes in by name.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from fraud_pipelines.features.curve import NO_MAXIMUM, NO_MINIMUM, Curve
from fraud_pipelines.features.grid import DAY, HOUR
from fraud_pipelines.features.recent import Recent

NAN: Final = float("nan")
NIGHT_ENDS: Final = 6
THURSDAY: Final = 3  # 1970-01-01, counted from Monday
Value = int | float
Reader = Callable[[Curve, list[Recent], int, int, bool], list[Value]]


@dataclass(frozen=True)
class Read:
    """One value. ``column`` is a running sum, an extreme or a table of recent values, as ``kind`` says.

    ``per`` is the column that counts a mean's values, None where each event has one.
    """

    kind: Literal["count", "sum", "mean", "extreme", "distinct", "since"]
    window: int
    column: int = 0
    per: int | None = None


def extreme(column: array[int], first: int, rows: int, maximum: bool) -> Value:
    """Greatest or least of the rows, NaN where none holds a value."""
    seen = column[first:rows]
    if not seen:
        return NAN
    best = max(seen) if maximum else min(seen)
    return NAN if best == (NO_MAXIMUM if maximum else NO_MINIMUM) else best


def emit(reads: tuple[Read, ...], maxima: tuple[bool, ...]) -> str:
    """Source of ``read(curve, recents, t, rows, own)``.

    ``rows`` is how many of the curve's rows count as at or before ``t``; ``own`` says that the last of them is the event.
    """
    windows = sorted({r.window for r in reads if r.kind not in ("distinct", "since")}, reverse=True)
    edge = {window: f"e{i}" for i, window in enumerate(windows)}
    lines = ["ts = curve.ts"]
    low = "0"
    for window in windows:
        lines.append(f"{edge[window]} = bisect_right(ts, t - {window}, {low}, rows)")
        low = edge[window]

    counted = sorted({r.window for r in reads if r.kind == "count" or (r.kind == "mean" and r.per is None)})
    if counted:
        lines += ["counts = curve.counts", "if counts:"]
        lines += ["    cells, base, top = len(counts), curve.base, curve.count_to(rows)"]
        lines += ["    above = counts[-1] - cells"]
        for window in counted:
            e = edge[window]
            before = f"above + {e} if {e} > cells else counts[{e} - 1] if {e} else base"
            lines.append(f"    n_{window} = top - ({before})")
        lines += ["else:"]
        lines += [f"    n_{window} = rows - {edge[window]}" for window in counted]

    summed = {(r.column, r.window) for r in reads if r.kind in ("sum", "mean")}
    summed |= {(r.per, r.window) for r in reads if r.kind == "mean" and r.per is not None}
    for column in sorted({column for column, _ in summed}):
        lines.append(f"column, base = curve.sums[{column}], curve.base_sums[{column}]")
        lines.append("total = column[rows - 1] if rows else base")
        for window in sorted(window for of, window in summed if of == column):
            e = edge[window]
            lines.append(f"s{column}_{window} = total - (column[{e} - 1] if {e} else base)")
    if any(r.kind == "since" for r in reads):
        lines.append("gone = t - ts[rows - 1 - own] if rows > own else None")

    values = []
    for r in reads:
        if r.kind == "count":
            values.append(f"n_{r.window}")
        elif r.kind == "sum":
            values.append(f"s{r.column}_{r.window}")
        elif r.kind == "mean":
            n = f"n_{r.window}" if r.per is None else f"s{r.per}_{r.window}"
            values.append(f"float(s{r.column}_{r.window}) / float({n}) if {n} else NAN")
        elif r.kind == "extreme":
            values.append(f"extreme(curve.peaks[{r.column}], {edge[r.window]}, rows, {maxima[r.column]})")
        elif r.kind == "distinct":
            values.append(f"recents[{r.column}].count(t - {r.window}, t)")
        else:
            values.append(f"NAN if gone is None or gone >= {r.window} else gone / 1000")
    lines.append(f"return [{', '.join(values)}]")
    return "def read(curve, recents, t, rows, own):\n" + "".join(f"    {line}\n" for line in lines)


@dataclass(frozen=True)
class Derived:
    """A value made of the event and of others, which are named by their source (``s0[3]``, ``x1``, ``amount``)."""

    kind: Literal["Amount", "Ratio", "Difference", "Hour", "Night", "Weekend", "Equals"]
    args: tuple[str, ...] = ()
    where: tuple[str, Any] | None = None


def emit_vector(places: tuple[str, ...], derived: tuple[Derived, ...], stages: int) -> str:
    """Source of ``vector(event, s0, s1, ...)``: the values of each stage in, all floats out, in the order of ``places``."""
    lines = ["t, amount = event['time'], float(event['amount'])"]
    if any(d.kind in ("Hour", "Night") for d in derived):
        lines.append(f"hour = t // {HOUR} % 24")
    for i, d in enumerate(derived):
        if d.kind == "Amount":
            lines.append(f"x{i} = amount")
        elif d.kind == "Hour":
            lines.append(f"x{i} = hour")
        elif d.kind == "Night":
            lines.append(f"x{i} = hour < {NIGHT_ENDS}")
        elif d.kind == "Weekend":
            lines.append(f"x{i} = (t // {DAY} + {THURSDAY}) % 7 >= 5")
        elif d.kind == "Equals":
            lines.append(f"x{i} = event['fields'].get(field{i})")
            lines.append(f"x{i} = NAN if x{i} is None else x{i} == equal{i}")
        else:  # floats first: Python's own int / int rounds otherwise above 2^53
            lines.append(f"a, b = float({d.args[0]}), float({d.args[1]})")
            lines.append(f"x{i} = a - b" if d.kind == "Difference" else f"x{i} = a / b if b else NAN")
    lines.append(f"return array('d', [{', '.join(places)}]).tolist()")
    head = ", ".join(("event", *(f"s{i}" for i in range(stages))))
    return f"def vector({head}):\n" + "".join(f"    {line}\n" for line in lines)


def assembler(
    places: tuple[str, ...], derived: tuple[Derived, ...], stages: int
) -> Callable[..., list[float]]:
    """The function that ``emit_vector`` writes; TypeError where a value is None."""
    scope: dict[str, Any] = {"array": array, "NAN": NAN}
    for i, d in enumerate(derived):
        if d.where is not None:
            scope[f"field{i}"], scope[f"equal{i}"] = d.where
    source = emit_vector(places, derived, stages)
    exec(compile(source, "<vector>", "exec"), scope)  # noqa: S102  # our own text, see the module's docstring
    made: Callable[..., list[float]] = scope["vector"]
    return made


def reader(reads: tuple[Read, ...], maxima: tuple[bool, ...]) -> Reader:
    """The function that ``emit`` writes."""
    scope: dict[str, Any] = {"bisect_right": bisect_right, "extreme": extreme, "NAN": NAN}
    exec(compile(emit(reads, maxima), "<read>", "exec"), scope)  # noqa: S102  # our own text, see the module's docstring
    made: Reader = scope["read"]
    return made
