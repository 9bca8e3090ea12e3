"""Baselines that a model must beat to be worth its cost, fit on the train part and measured on the same test
rows.

A logistic regression on the transaction's own fields; the best single rule, "alert when this value is above
(or below) that"; and the best single value to sort by. The latter two choose among the raw fields and all
features, on the train part, by average precision, which is also what they are measured by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
import pyarrow
from numpy.typing import NDArray

from fraud_pipelines.evaluation import average_precision
from fraud_ray.columns import codes
from fraud_ray.dataset import Dataset

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
_BLOCK: Final = 65_536  # rows of a design at once
_MOST_LEVELS: Final = 30
_HOUR_MS: Final = 3_600_000
_THRESHOLDS: Final = 200


@dataclass(frozen=True)
class Columns:
    """Values by name, made when they are asked for: of all rows and columns at once they would be the largest thing in memory.

    Each of ``makers`` gives one column's values at some rows.
    """

    names: tuple[str, ...]
    makers: tuple[Callable[[Rows], Floats], ...]

    def named(self, name: str, rows: Rows) -> Floats:
        return self.makers[self.names.index(name)](rows)

    def block(self, rows: Rows) -> Floats:
        """All columns of some rows, one row beside another."""
        return np.column_stack([make(rows) for make in self.makers])

    def and_columns(self, more: Columns) -> Columns:
        return Columns((*self.names, *more.names), (*self.makers, *more.makers))


def matrix_columns(names: Sequence[str], x: NDArray[Any]) -> Columns:
    """The columns of a matrix."""

    def of(i: int) -> Callable[[Rows], Floats]:
        return lambda rows: x[rows, i].astype(np.float64)

    return Columns(tuple(names), tuple(of(i) for i in range(len(names))))


def raw_columns(data: Dataset, fit_rows: Rows) -> Columns:
    """Amount, time of day and declared fields; of a text its most frequent values, each a column of 0 and 1."""

    def angle(rows: Rows) -> Floats:
        return np.asarray(data.time[rows] / _HOUR_MS % 24 / 24 * 2 * math.pi)

    names = ["log amount", "hour (sine)", "hour (cosine)"]
    makers: list[Callable[[Rows], Floats]] = [
        lambda rows: np.log1p(data.amount[rows].astype(np.float64)),
        lambda rows: np.sin(angle(rows)),
        lambda rows: np.cos(angle(rows)),
    ]
    for name, column in data.fields.items():
        if pyarrow.types.is_dictionary(column.type) and column.null_count < len(column):
            numbers = codes(column)
            texts = sorted(column.dictionary.to_pylist())
            if texts[0] == "":  # as a null is written here
                numbers = np.where(numbers == 0, np.int32(-1), numbers)
            levels, counts = np.unique(numbers[fit_rows], return_counts=True)
            for level in levels[np.argsort(-counts, kind="stable")][:_MOST_LEVELS].tolist():
                names.append(f"{name} is {texts[level] if level >= 0 else ''}")
                makers.append(partial(_is_level, numbers, level))
        else:
            names.append(name)
            makers.append(partial(_numbers, column))
    return Columns(tuple(names), tuple(makers))


def _is_level(numbers: NDArray[np.int32], level: int, rows: Rows) -> Floats:
    return np.asarray(numbers[rows] == level, np.float64)


def _numbers(column: pyarrow.Array, rows: Rows) -> Floats:
    """A field's numbers, or 1 and 0; a null is 0."""
    here = column.take(pyarrow.array(rows))
    if pyarrow.types.is_dictionary(here.type):
        return np.zeros(len(here))
    return np.asarray(here.fill_null(0).to_numpy(zero_copy_only=False), np.float64)


def _blocks(rows: Rows) -> Iterator[Rows]:
    return (rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK))


def logistic(raw: Columns, y: NDArray[np.int8], rows: Rows, test: Rows) -> Floats:
    """Log-odds on ``test`` of a ridge logistic regression fit on ``rows``, which are gone through block by block."""
    width = len(raw.names)
    mean, square = np.zeros(width), np.zeros(width)
    for block in _blocks(rows):
        mean += raw.block(block).sum(axis=0)
    mean /= len(rows)
    for block in _blocks(rows):
        square += ((raw.block(block) - mean) ** 2).sum(axis=0)
    spread = np.sqrt(square / len(rows)) + 1e-9

    def design(block: Rows) -> Floats:
        return np.column_stack([(raw.block(block) - mean) / spread, np.ones(len(block))])

    weights = np.zeros(width + 1)
    ridge = np.eye(len(weights))
    ridge[-1, -1] = 1e-9
    for _ in range(25):
        hessian, gradient = ridge.copy(), ridge @ weights
        for block in _blocks(rows):
            d, t = design(block), y[block].astype(np.float64)
            p = 1.0 / (1.0 + np.exp(-np.clip(d @ weights, -30, 30)))
            hessian += (d * (p * (1 - p))[:, None]).T @ d
            gradient += d.T @ (p - t)
        step = np.linalg.solve(hessian, gradient)
        weights = weights - step
        if float(np.abs(step).max()) < 1e-8:
            break
    return np.concatenate([design(block) @ weights for block in _blocks(test)])


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


def one_rule(columns: Columns, y: NDArray[np.int8], rows: Rows) -> ThresholdRule:
    """The best threshold on a single column, by its average precision on ``rows``."""
    best: ThresholdRule | None = None
    for name, make in zip(columns.names, columns.makers, strict=True):
        values = make(rows)
        for above in (True, False):
            value, threshold = _best(values, y[rows], above)
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


def one_order(columns: Columns, y: NDArray[np.int8], rows: Rows) -> Order:
    """The best single column to sort by, by its average precision on ``rows``."""
    orders = []
    for name, make in zip(columns.names, columns.makers, strict=True):
        values = make(rows)
        for descending in (True, False):
            order = Order(name, descending, 0.0)
            value = average_precision(y[rows], order.scores(values))
            orders.append(replace(order, train_average_precision=value))
    return max(orders, key=lambda order: order.train_average_precision)
