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
    spec: FeatureSetSpec, event: dict[str, Any], seen: dict[str, Sequence[dict[str, Any]]]
) -> list[float]:
    """``seen`` holds each entity's events, oldest first, this one included."""
    made: dict[str, float] = {"amount": float(event["amount"])}
    for feature in spec.features:
        if feature.transform is not None:
            made[feature.name] = float(_transform(feature, event, made))
        else:
            made[feature.name] = float(_aggregate(feature, event, seen[feature.entity or ""]))
    return [made[feature.name] for feature in spec.features]


def _aggregate(feature: FeatureSpec, event: dict[str, Any], seen: Sequence[dict[str, Any]]) -> float:
    now = event["time"]
    if feature.aggregate == "SecondsSinceLast":
        return (now - seen[-2]["time"]) / 1000 if len(seen) > 1 else math.nan
    after, where = now - (feature.window_ms or 0), feature.where
    inside = [
        e for e in seen if e["time"] > after and (where is None or e["fields"].get(where[0]) == where[1])
    ]
    if feature.aggregate == "Count":
        return len(inside)
    if feature.aggregate == "Sum":
        return sum(e["amount"] for e in inside)
    if feature.aggregate == "Mean":
        return sum(e["amount"] for e in inside) / len(inside) if inside else math.nan
    return 0.0  # of labels


def _transform(feature: FeatureSpec, event: dict[str, Any], made: dict[str, float]) -> float:
    hours = event["time"] // 3_600_000
    if feature.transform == "Amount":
        return made["amount"]
    if feature.transform == "Hour":
        return hours % 24
    if feature.transform == "Night":
        return hours % 24 < 6
    if feature.transform == "Weekend":
        return (hours // 24 + 3) % 7 >= 5
    a, b = (made[name] for name in feature.args)
    return a / b if b else math.nan
