"""Baselines that a model must beat to be worth its cost, fit on the train part and measured on the same test
rows.

A logistic regression on the transaction's own fields; the best single rule, "alert when this value is above
(or below) that"; and the best single value to sort by. The latter two choose among the raw fields and all
features, on the train part, by average precision, which is also what they are measured by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fraud_pipelines.evaluation import average_precision
from fraud_ray.dataset import Dataset

Floats = NDArray[np.float64]
_MOST_LEVELS: Final = 30
_HOUR_MS: Final = 3_600_000
_THRESHOLDS: Final = 200


def raw_columns(data: Dataset, fit_rows: NDArray[np.int64]) -> tuple[list[str], Floats]:
    """Amount, time of day and declared fields: -> (names, one row per event)."""
    hour = data.time / _HOUR_MS % 24 / 24 * 2 * math.pi
    names = ["log amount", "hour (sine)", "hour (cosine)"]
    columns = [np.log1p(data.amount.astype(np.float64)), np.sin(hour), np.cos(hour)]
    for field, values in data.fields.items():
        if any(isinstance(value, str) for value in values):
            texts = np.array([value if isinstance(value, str) else "" for value in values])
            levels, counts = np.unique(texts[fit_rows], return_counts=True)
            for level in levels[np.argsort(-counts, kind="stable")][:_MOST_LEVELS]:
                names.append(f"{field} is {level}")
                columns.append((texts == level).astype(np.float64))
        else:
            names.append(field)
            columns.append(np.array([0.0 if value is None else float(value) for value in values]))
    return names, np.column_stack(columns)


def logistic(x: Floats, y: NDArray[np.int8], rows: NDArray[np.int64], test: NDArray[np.int64]) -> Floats:
    """Log-odds on ``test`` of a ridge logistic regression fit on ``rows``."""
    mean, spread = x[rows].mean(axis=0), x[rows].std(axis=0) + 1e-9
    design = np.column_stack([(x - mean) / spread, np.ones(len(x))])
    weights = np.zeros(design.shape[1])
    ridge = np.eye(len(weights))
    ridge[-1, -1] = 1e-9
    d, t = design[rows], y[rows].astype(np.float64)
    for _ in range(25):
        p = 1.0 / (1.0 + np.exp(-np.clip(d @ weights, -30, 30)))
        step = np.linalg.solve((d * (p * (1 - p))[:, None]).T @ d + ridge, d.T @ (p - t) + ridge @ weights)
        weights = weights - step
        if float(np.abs(step).max()) < 1e-8:
            break
    return np.asarray(design[test] @ weights, np.float64)


@dataclass(frozen=True)
class ThresholdRule:
    """``above``: alert where the value is at least ``threshold``, else where it is at most that. Nulls never alert."""

    column: str
    above: bool
    threshold: float
    train_average_precision: float

    def alerts(self, values: Floats) -> Floats:
        with np.errstate(invalid="ignore"):
            hit = values >= self.threshold if self.above else values <= self.threshold
        return np.asarray(hit, np.float64)

    def to_dict(self) -> dict[str, Any]:
        return {
            "column": self.column,
            "alert_when": "at least" if self.above else "at most",
            "threshold": self.threshold,
            "train_average_precision": self.train_average_precision,
        }


def _best(values: Floats, y: NDArray[np.int8], above: bool) -> tuple[float, float]:
    """(average precision, threshold) of the best of some thresholds; nulls are last in the order, as what never alerts."""
    signed = -values if above else values
    order = np.argsort(signed, kind="stable")
    ranked, frauds = signed[order], np.cumsum(y[order])
    count = int(np.count_nonzero(~np.isnan(ranked)))
    if count == 0:
        return 0.0, math.nan
    cuts = np.unique(ranked[np.linspace(0, count - 1, _THRESHOLDS).astype(int)])
    taken = np.searchsorted(ranked[:count], cuts, side="right")
    caught, total = frauds[taken - 1], int(y.sum())
    # Of two levels: the alerts at their precision, the rest of the frauds at the fraud rate.
    value = caught / total * caught / taken + (1 - caught / total) * total / len(y)
    at = int(np.argmax(value))
    return float(value[at]), float(-cuts[at] if above else cuts[at])


def one_rule(
    names: list[str], columns: Floats, y: NDArray[np.int8], rows: NDArray[np.int64]
) -> ThresholdRule:
    """The best threshold on a single column, by its average precision on ``rows``."""
    best: ThresholdRule | None = None
    for i, name in enumerate(names):
        for above in (True, False):
            value, threshold = _best(columns[rows, i], y[rows], above)
            if best is None or value > best.train_average_precision:
                best = ThresholdRule(name, above, threshold, value)
    assert best is not None
    return best


@dataclass(frozen=True)
class Order:
    """``descending``: the highest value is the riskiest. Nulls are the least risky."""

    column: str
    descending: bool
    train_average_precision: float

    def scores(self, values: Floats) -> Floats:
        signed = values if self.descending else -values
        return np.where(np.isnan(signed), -np.inf, signed)

    def to_dict(self) -> dict[str, Any]:
        return {
            "column": self.column,
            "riskiest": "highest" if self.descending else "lowest",
            "train_average_precision": self.train_average_precision,
        }


def one_order(names: list[str], columns: Floats, y: NDArray[np.int8], rows: NDArray[np.int64]) -> Order:
    """The best single column to sort by, by its average precision on ``rows``."""
    orders = []
    for i, name in enumerate(names):
        for descending in (True, False):
            order = Order(name, descending, 0.0)
            value = average_precision(y[rows], order.scores(columns[rows, i]))
            orders.append(replace(order, train_average_precision=value))
    return max(orders, key=lambda order: order.train_average_precision)
