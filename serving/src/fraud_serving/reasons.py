"""The texts of a decision's reasons, each with its stable code: ``list:``, ``rule:``, ``limit:``, ``fallback:`` or a feature's name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from fraud_contracts.detector_policy import Action
from fraud_contracts.records import DecisionReason

MAX_FEATURE_REASONS: Final = 3


def list_reason(name: str, field: str) -> DecisionReason:
    return {"code": f"list:{name}", "text": f"{field} is on the list {name}"}


def rule_reason(name: str) -> DecisionReason:
    return {"code": f"rule:{name}", "text": f"the rule {name} applies"}


def declines_limit_reason(per_minute: int) -> DecisionReason:
    text = f"more than {per_minute} declines a minute: held for review"
    return {"code": "limit:declinesPerMinute", "text": text}


def reviews_limit_reason(per_day: int) -> DecisionReason:
    return {"code": "limit:reviewsPerDay", "text": f"more than {per_day} reviews a day: let pass"}


def fallback_reason(lost: str, action: Action) -> DecisionReason:
    """``lost`` is what the fallback stands in for: a mark of ``degraded``, or ``profiles``."""
    return {"code": f"fallback:{lost}", "text": f"the policy's fallback: {action.value}"}


def feature_reasons(
    contributions: Sequence[tuple[int, float]], names: Sequence[str], vector: Sequence[float | None]
) -> list[DecisionReason]:
    """The features that raised a score most. ``contributions`` are (column, what it added to the log-odds), greatest first."""
    reasons: list[DecisionReason] = []
    for column, contribution in contributions[:MAX_FEATURE_REASONS]:
        if 0 <= column < len(names):
            value = vector[column]
            shown = "unknown" if value is None or math.isnan(value) else f"{value:.6g}"
            text = f"{names[column]} is {shown}, which raised the score"
            reasons.append({"code": names[column], "text": text, "contribution": round(contribution, 6)})
    return reasons
