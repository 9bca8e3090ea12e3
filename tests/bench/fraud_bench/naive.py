"""The same features the usual way: keep a key's recent events as a list, and scan it for each window.

What the baselines use. Labels are left out, which only makes them quicker.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fraud_pipelines.features import FeatureSetSpec, FeatureSpec

HISTORY = 128  # events of a key that a list keeps, as many as the platform keeps single


def vector(
    spec: FeatureSetSpec, event: dict[str, Any], events: dict[str, Sequence[dict[str, Any]]]
) -> list[float]:
    """``events`` holds each entity's events, oldest first, this one included."""
    values: dict[str, float] = {"amount": float(event["amount"])}
    for feature in spec.features:
        if feature.transform is not None:
            values[feature.name] = float(_transform(feature, event, values))
        else:
            values[feature.name] = float(_aggregate(feature, event, events[feature.entity or ""]))
    return [values[feature.name] for feature in spec.features]


def _aggregate(feature: FeatureSpec, event: dict[str, Any], events: Sequence[dict[str, Any]]) -> float:
    now: int = event["time"]
    if feature.aggregate == "SecondsSinceLast":
        return (now - int(events[-2]["time"])) / 1000 if len(events) > 1 else math.nan
    after, where = now - (feature.window_ms or 0), feature.where
    amounts: list[int] = [
        e["amount"]
        for e in events
        if e["time"] > after and (where is None or e["fields"].get(where[0]) == where[1])
    ]
    if feature.aggregate == "Count":
        return len(amounts)
    if feature.aggregate == "Sum":
        return sum(amounts)
    if feature.aggregate == "Mean":
        return sum(amounts) / len(amounts) if amounts else math.nan
    return 0.0  # of labels


def _transform(feature: FeatureSpec, event: dict[str, Any], values: dict[str, float]) -> float:
    hours: int = event["time"] // 3_600_000
    if feature.transform == "Amount":
        return values["amount"]
    if feature.transform == "Hour":
        return hours % 24
    if feature.transform == "Night":
        return hours % 24 < 6
    if feature.transform == "Weekend":
        return (hours // 24 + 3) % 7 >= 5
    a, b = (values[name] for name in feature.args)
    return a / b if b else math.nan
