"""How each aggregate is computed over a window ``(t - window, t]`` of a key's events, the event itself included.

One function an aggregate. It asks ``CurveCode`` for what it reads off the key's curve, which thereby keeps it, and gives the
expression of its value. What each one means, takes and needs is said once, in ``fraud_contracts.feature_kinds``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from fraud_contracts.feature_kinds import Aggregate
from fraud_pipelines.features.curve_code import CurveCode
from fraud_pipelines.features.plan import AMOUNT
from fraud_pipelines.features.spec import FeatureSpec

# What an event whose value is x adds to a running sum; x is None where the field is null.
VALUE: Final = "({x} or 0)"
PRESENT: Final = "int({x} is not None)"


def count(code: CurveCode, of: str, window: int) -> str:
    return code.count(window)


def window_sum(code: CurveCode, of: str, window: int) -> str:
    return code.sum(of, VALUE, window)


def mean(code: CurveCode, of: str, window: int) -> str:
    n = code.count(window) if of == AMOUNT else code.sum(of, PRESENT, window)  # each event has an amount
    return f"float({code.sum(of, VALUE, window)}) / float({n}) if {n} else NAN"


def least(code: CurveCode, of: str, window: int) -> str:
    return code.extreme(of, False, window)


def greatest(code: CurveCode, of: str, window: int) -> str:
    return code.extreme(of, True, window)


def distinct(code: CurveCode, of: str, window: int) -> str:
    return code.distinct(of, window)


def seconds_since_last(code: CurveCode, of: str, window: int) -> str:
    gap = code.gap()
    return f"NAN if {gap} is None or {gap} >= {window} else {gap} / 1000"


OVER_EVENTS: Final[Mapping[Aggregate, Callable[[CurveCode, str, int], str]]] = {
    Aggregate.COUNT: count,
    Aggregate.SUM: window_sum,
    Aggregate.MEAN: mean,
    Aggregate.MIN: least,
    Aggregate.MAX: greatest,
    Aggregate.DISTINCT: distinct,
    Aggregate.SECONDS_SINCE_LAST: seconds_since_last,
}
# What ``FraudPlan.read`` gives of each window, in its order.
OVER_LABELS: Final = (Aggregate.FRAUD_COUNT, Aggregate.FRAUD_RATE)


def expression(code: CurveCode, feature: FeatureSpec) -> str:
    """The expression of an aggregate over events."""
    if feature.aggregate is None:
        raise TypeError(f"{feature.name} is no aggregate")
    return OVER_EVENTS[feature.aggregate](code, feature.of or "", feature.window_ms or code.longest)
