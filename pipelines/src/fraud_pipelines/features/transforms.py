"""How each transform is computed, and the function that puts a vector together: straight-line Python, as in ``curve_code``.

What each transform means and takes is said once, in ``fraud_contracts.feature_kinds``.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from fraud_contracts.feature_kinds import Transform
from fraud_pipelines.features.grid import DAY, HOUR
from fraud_pipelines.features.plan import NAN, Where

NIGHT_ENDS: Final = 6 * HOUR
THURSDAY: Final = 3  # 1970-01-01, counted from Monday

# Each an expression of the event's time ``t``, of the operands {0} and {1}, and of its own ``where``: field{i}, equal{i}.
# Operands are made floats first: Python's own int / int rounds otherwise above 2^53.
EXPRESSIONS: Final[Mapping[str, str]] = {
    Transform.RATIO: "float({0}) / b if (b := float({1})) else NAN",
    Transform.DIFFERENCE: "float({0}) - float({1})",
    Transform.HOUR: f"t // {HOUR} % 24",
    Transform.NIGHT: f"t % {DAY} < {NIGHT_ENDS}",
    Transform.WEEKEND: f"(t // {DAY} + {THURSDAY}) % 7 >= 5",
    Transform.EQUALS: "NAN if (x := event['fields'].get(field{i})) is None else x == equal{i}",
}


@dataclass(frozen=True)
class Transformed:
    """A transform in a vector. ``args`` are named by their source: ``s0[3]``, ``x1``, ``amount``."""

    transform: str
    args: tuple[str, ...] = ()
    where: Where | None = None


def vector_source(places: Sequence[str], transformed: Sequence[Transformed], stages: int) -> str:
    """Source of ``vector(event, s0, s1, ...)``: the values of each stage in, all floats out, in the order of ``places``."""
    lines = ["t, amount = event['time'], float(event['amount'])"]
    for i, one in enumerate(transformed):
        lines.append(f"x{i} = {EXPRESSIONS[one.transform].format(*one.args, i=i)}")
    lines.append(f"return array('d', [{', '.join(places)}]).tolist()")
    head = ", ".join(("event", *(f"s{i}" for i in range(stages))))
    return f"def vector({head}):\n" + "".join(f"    {line}\n" for line in lines)


def assembler(
    places: Sequence[str], transformed: Sequence[Transformed], stages: int
) -> Callable[..., list[float]]:
    """The function that ``vector_source`` writes; TypeError where a value is None."""
    scope: dict[str, Any] = {"array": array, "NAN": NAN}
    for i, one in enumerate(transformed):
        if one.where is not None:
            scope[f"field{i}"], scope[f"equal{i}"] = one.where
    source = vector_source(places, transformed, stages)
    exec(compile(source, "<vector>", "exec"), scope)  # noqa: S102  # our own text: resources' text comes in by name
    return cast(Callable[..., list[float]], scope["vector"])
