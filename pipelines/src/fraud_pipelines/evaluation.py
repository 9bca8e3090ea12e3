"""How good a fraud score is, in the numbers that a fraud team works by. numpy only; labels are 0 or 1, higher is riskier.

Accuracy says nothing at one fraud in a thousand; what counts is what the alerts that people have time for contain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
_DAY: Final = 86_400_000
BUDGETS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)


def _both(labels: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    y, s = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if y.shape != s.shape or y.ndim != 1:
        raise ValueError("labels and scores must be two rows of the same length")
    return y, s


def _cumulative(y: Floats, s: Floats, weights: Floats | None) -> tuple[Floats, Floats, Floats]:
    """(threshold, weight of frauds at or above it, weight of all at or above it) at each distinct score, descending."""
    order = np.argsort(-s, kind="stable")
    w = np.ones_like(y) if weights is None else weights
    ranked = s[order]
    last = np.r_[ranked[1:] != ranked[:-1], True] if len(ranked) else np.zeros(0, bool)
    return ranked[last], np.cumsum((y * w)[order])[last], np.cumsum(w[order])[last]


def average_precision(labels: ArrayLike, scores: ArrayLike, weights: Floats | None = None) -> float:
    """Mean precision over the frauds' ranks (ties share theirs); NaN without frauds. At random: the fraud rate."""
    _, frauds, total = _cumulative(*_both(labels, scores), weights)
    if len(frauds) == 0 or frauds[-1] == 0:
        return float("nan")
    steps = np.diff(frauds, prepend=0.0)
    precision = np.divide(frauds, total, out=np.zeros_like(total), where=total > 0)
    return float(np.sum(steps * precision) / frauds[-1])


def roc_auc(labels: ArrayLike, scores: ArrayLike, weights: Floats | None = None) -> float:
    """Chance that a fraud outranks an honest payment, ties half; NaN without both kinds. Flattering at low fraud rates."""
    _, frauds, total = _cumulative(*_both(labels, scores), weights)
    if len(frauds) == 0 or frauds[-1] == 0 or total[-1] == frauds[-1]:
        return float("nan")
    honest = total - frauds
    tpr, fpr = np.r_[0.0, frauds / frauds[-1]], np.r_[0.0, honest / honest[-1]]
    return float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2))


def precision_recall(labels: ArrayLike, scores: ArrayLike, points: int = 200) -> list[dict[str, float]]:
    """The curve, thinned to at most ``points``: threshold, precision, recall, alert rate."""
    threshold, frauds, total = _cumulative(*_both(labels, scores), None)
    if len(frauds) == 0 or frauds[-1] == 0:
        return []
    keep = np.unique(np.linspace(0, len(threshold) - 1, points).astype(int))
    # Evenly in recall too, since the interesting end is a small part of the thresholds.
    keep = np.unique(np.r_[keep, np.searchsorted(frauds, np.linspace(0, frauds[-1], points))])
    keep = keep[keep < len(threshold)]
    return [
        {
            "threshold": float(threshold[i]),
            "precision": float(frauds[i] / total[i]),
            "recall": float(frauds[i] / frauds[-1]),
            "alert_rate": float(total[i] / total[-1]),
        }
        for i in keep
    ]


def at_budget(
    labels: ArrayLike, scores: ArrayLike, rate: float, amounts: ArrayLike | None = None
) -> dict[str, float]:
    """What the riskiest ``rate`` of the payments hold: precision, recall, and recall of the money where amounts are given."""
    y, s = _both(labels, scores)
    count = int(rate * len(y))
    top = np.argsort(-s, kind="stable")[:count]
    measures: dict[str, float] = {
        "alert_rate": rate,
        "alerts": count,
        "precision": float(y[top].mean()) if count else float("nan"),
        "recall": float(y[top].sum() / y.sum()) if y.sum() else float("nan"),
    }
    if amounts is not None:
        money = np.asarray(amounts, dtype=np.float64) * y
        measures["money_recall"] = float(money[top].sum() / money.sum()) if money.sum() else float("nan")
    return measures


def card_precision_at(
    labels: ArrayLike, scores: ArrayLike, times_ms: ArrayLike, cards: Sequence[Any] | NDArray[Any], k: int
) -> float:
    """Mean over days of: of the ``k`` riskiest cards of the day, the share with a fraud. Days without fraud count as they are.

    The measure that fits a team which can call ``k`` customers a day; a card's score is its riskiest payment's.
    """
    y, s = _both(labels, scores)
    day = np.asarray(times_ms, dtype=np.int64) // _DAY
    _, card = np.unique(np.asarray(cards), return_inverse=True)
    results = []
    for one in np.unique(day):
        here = day == one
        ids, position = np.unique(card[here], return_inverse=True)
        risk, fraud = np.full(len(ids), -np.inf), np.zeros(len(ids))
        np.maximum.at(risk, position, s[here])
        np.maximum.at(fraud, position, y[here])
        top = np.argsort(-risk, kind="stable")[:k]
        results.append(float(fraud[top].sum() / k))
    return float(np.mean(results)) if results else float("nan")


def calibration(labels: ArrayLike, probabilities: ArrayLike, bins: int = 10) -> dict[str, Any]:
    """Bins of equal count (mean predicted, mean observed, count), their weighted gap, and the Brier score."""
    y, p = _both(labels, probabilities)
    parts = [part for part in np.array_split(np.argsort(p, kind="stable"), bins) if len(part)]
    rows = [{"predicted": float(p[i].mean()), "observed": float(y[i].mean()), "count": len(i)} for i in parts]
    gap = sum(abs(r["predicted"] - r["observed"]) * r["count"] for r in rows) / max(1, len(y))
    return {
        "bins": rows,
        "expected_error": float(gap),
        "brier": float(np.mean((p - y) ** 2)) if len(y) else None,
    }


@dataclass(frozen=True)
class Interval:
    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high}


Measure = Callable[[Floats, Floats, Floats | None], float]


def _draws(units: NDArray[np.int64], rounds: int, seed: int) -> Iterator[Floats]:
    """Of each round, how often each row is drawn; one after the other, since together they are larger than the data."""
    rng = np.random.default_rng(seed)
    size = int(units.max()) + 1 if len(units) else 0
    for _ in range(rounds if size else 0):
        yield np.bincount(rng.integers(0, size, size), minlength=size).astype(np.float64)[units]


def _units(count: int, groups: Sequence[Any] | NDArray[Any] | None) -> NDArray[np.int64]:
    if groups is None:
        return np.arange(count)
    return np.asarray(np.unique(np.asarray(groups), return_inverse=True)[1], np.int64)


def _interval(value: float, drawn: Sequence[float], level: float) -> Interval:
    good = [one for one in drawn if one == one]
    if not good:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(good, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def bootstrap(
    measure: Measure,
    labels: ArrayLike,
    scores: ArrayLike,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    rounds: int = 200,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """A percentile interval. With ``groups`` (customers) whole groups are drawn, as one customer's payments are not independent.

    Draws are counts used as weights, so the data is never copied.
    """
    y, s = _both(labels, scores)
    drawn = [measure(y, s, weights) for weights in _draws(_units(len(y), groups), rounds, seed)]
    return _interval(measure(y, s, None), drawn, level)


@dataclass(frozen=True)
class Comparison:
    """Another score on the same rows and the same draws: its own interval, and that of what the first is ahead by."""

    value: Interval
    ahead: Interval


def compare(
    measure: Measure,
    labels: ArrayLike,
    scores: ArrayLike,
    others: Mapping[str, ArrayLike],
    groups: Sequence[Any] | NDArray[Any] | None = None,
    rounds: int = 200,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Comparison]:
    """``scores`` against each of ``others``, paired: a draw that is hard for one is as hard for the other.

    With the same groups, rounds and seed the draws are those of ``bootstrap``.
    """
    y, s = _both(labels, scores)
    against = {name: _both(labels, other)[1] for name, other in others.items()}
    first: list[float] = []
    drawn: dict[str, list[float]] = {name: [] for name in against}
    for weights in _draws(_units(len(y), groups), rounds, seed):
        first.append(measure(y, s, weights))
        for name, o in against.items():
            drawn[name].append(measure(y, o, weights))
    value = measure(y, s, None)
    comparisons = {}
    for name, o in against.items():
        second, alone = drawn[name], measure(y, o, None)
        ahead = [a - b for a, b in zip(first, second, strict=True)]
        comparisons[name] = Comparison(
            _interval(alone, second, level), _interval(value - alone, ahead, level)
        )
    return comparisons


def by_alerts_per_day(
    labels: ArrayLike, scores: ArrayLike, times_ms: ArrayLike, alerts: Sequence[int]
) -> list[dict[str, float]]:
    """What a team finds that looks at the ``n`` riskiest payments of each day: share of all frauds, and of its alerts."""
    y, s = _both(labels, scores)
    day = np.asarray(times_ms, dtype=np.int64) // _DAY
    order = np.lexsort((-s, day))
    _, first, size = np.unique(day[order], return_index=True, return_counts=True)
    rank = np.arange(len(y)) - np.repeat(first, size)
    fraud = y[order]
    rows = []
    for n in alerts:
        top = rank < n
        rows.append(
            {
                "alerts_per_day": n,
                "recall": float(fraud[top].sum() / y.sum()) if y.sum() else float("nan"),
                "precision": float(fraud[top].mean()) if top.any() else float("nan"),
            }
        )
    return rows


def distribution(labels: ArrayLike, scores: ArrayLike, edges: Sequence[float]) -> list[dict[str, float]]:
    """Honest and fraudulent rows between neighbouring edges (the last includes its end)."""
    y, s = _both(labels, scores)
    fraud, _ = np.histogram(s[y == 1], edges)
    honest, _ = np.histogram(s[y == 0], edges)
    return [
        {"from": float(low), "to": float(high), "honest": int(h), "fraud": int(f)}
        for low, high, h, f in zip(edges[:-1], edges[1:], honest, fraud, strict=True)
    ]


def by_week(labels: ArrayLike, scores: ArrayLike, times_ms: ArrayLike) -> list[dict[str, Any]]:
    """Average precision in each seven days from the first row: how fast it ages."""
    y, s = _both(labels, scores)
    times = np.asarray(times_ms, dtype=np.int64)
    week = (times - times.min()) // (7 * _DAY) if len(times) else times
    return [
        {
            "week": int(one) + 1,
            "rows": int((week == one).sum()),
            "frauds": int(y[week == one].sum()),
            "average_precision": average_precision(y[week == one], s[week == one]),
        }
        for one in np.unique(week)
    ]


def by_segment(
    labels: ArrayLike, scores: ArrayLike, segments: Sequence[Any], least: int = 5
) -> list[dict[str, Any]]:
    """Count, fraud rate, average precision and ROC-AUC per segment; those with fewer than ``least`` frauds are marked."""
    y, s = _both(labels, scores)
    names = np.asarray([str(segment) for segment in segments])
    rows = []
    for name in np.unique(names):
        here = names == name
        frauds = int(y[here].sum())
        enough = frauds >= least
        rows.append(
            {
                "segment": str(name),
                "count": int(here.sum()),
                "frauds": frauds,
                "fraud_rate": float(y[here].mean()),
                "average_precision": average_precision(y[here], s[here]) if enough else None,
                "roc_auc": roc_auc(y[here], s[here]) if enough else None,
                "enough": enough,
            }
        )
    return sorted(rows, key=lambda row: -row["count"])
