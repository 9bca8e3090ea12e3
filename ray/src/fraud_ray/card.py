"""The evaluation card: what a person must know before this model may decide. Measured on the test part only.

It is part of the package, so it holds nothing that differs between two runs on the same data: no times of the run, no
outcome of the search.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fraud_pipelines import evaluation
from fraud_pipelines.score_map import Knots, ScoreMap
from fraud_ray import fit
from fraud_ray.dataset import Dataset, Split

SCORES: Final = (500, 700, 800, 900)
CARDS_PER_DAY: Final = (10, 50, 100)
_MOST_SEGMENTS: Final = 20
_MOST_LEVELS: Final = 30
_HOUR_MS: Final = 3_600_000


def plain(value: Any) -> Any:
    """JSON has no NaN: null stands for a figure that couldn't be had."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return round(float(value), 9) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value


def _day(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d")


def _period(data: Dataset, rows: NDArray[np.int64]) -> dict[str, Any]:
    return {
        "rows": len(rows),
        "frauds": int(data.y[rows].sum()),
        "from": _day(int(data.time[rows[0]])),
        "to": _day(int(data.time[rows[-1]])),
    }


def raw_columns(data: Dataset, fit_rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """What a transaction tells by itself, without any past: for the baseline."""
    hour = data.time / _HOUR_MS % 24 / 24 * 2 * math.pi
    columns = [np.log1p(data.amount.astype(np.float64)), np.sin(hour), np.cos(hour)]
    for values in data.fields.values():
        if any(isinstance(value, str) for value in values):
            texts = np.array([value if isinstance(value, str) else "" for value in values])
            levels, counts = np.unique(texts[fit_rows], return_counts=True)
            for level in levels[np.argsort(-counts, kind="stable")][:_MOST_LEVELS]:
                columns.append((texts == level).astype(np.float64))
        else:
            columns.append(np.array([0.0 if value is None else float(value) for value in values]))
    return np.column_stack(columns)


def _segments(data: Dataset, rows: NDArray[np.int64], p: NDArray[np.float64]) -> dict[str, Any]:
    y = data.y[rows]
    edges = np.quantile(data.amount[rows], [0.25, 0.5, 0.75])
    quarter = np.searchsorted(edges, data.amount[rows], side="right")
    names = ["lowest quarter", "second quarter", "third quarter", "highest quarter"]
    found = {"amount": evaluation.by_segment(y, p, [names[i] for i in quarter])}
    for name, values in data.fields.items():
        here = [values[i] for i in rows]
        if len({str(value) for value in here}) <= _MOST_SEGMENTS:
            found[name] = evaluation.by_segment(y, p, here)
    return found


def make(
    data: Dataset,
    split: Split,
    probabilities: dict[str, NDArray[np.float64]],
    knots: Knots,
    seed: int,
) -> dict[str, Any]:
    """``probabilities`` of the parts valid and test, as served."""
    test, p = split.test, np.asarray(probabilities["test"], np.float64)
    y = data.y[test]
    entity = [data.entity[i] for i in test]
    raw = raw_columns(data, split.train)
    fit_rows = split.train
    scores = ScoreMap(knots)
    reached = np.array([scores.score(float(value)) for value in p])
    return plain(
        {
            "data": {
                "rows": len(data.y),
                "mature": int(data.mature.sum()),
                "frauds": int(data.y.sum()),
                "early_frauds_left_out": data.early_frauds,
                "digest": data.digest,
                "parts": {name: _period(data, rows) for name, rows in split.parts().items()},
                "gap_ms": split.gap_ms,
                "gap_shortened": split.shortened,
            },
            "test": {
                "fraud_rate": float(y.mean()),
                "average_precision": evaluation.bootstrap(
                    evaluation.average_precision, y, p, entity, seed=seed
                ).to_dict(),
                "roc_auc": evaluation.bootstrap(evaluation.roc_auc, y, p, entity, seed=seed).to_dict(),
                "budgets": [
                    evaluation.at_budget(y, p, rate, data.amount[test]) for rate in evaluation.BUDGETS
                ],
                "card_precision_per_day": {
                    k: evaluation.card_precision_at(y, p, data.time[test], entity, k) for k in CARDS_PER_DAY
                },
                "scores": [
                    {
                        "score": score,
                        "alert_rate": float((reached >= score).mean()),
                        "precision": float(y[reached >= score].mean()) if (reached >= score).any() else None,
                        "recall": float((y[reached >= score]).sum() / y.sum()),
                    }
                    for score in SCORES
                ],
                "calibration": evaluation.calibration(y, p),
                "curve": evaluation.precision_recall(y, p, points=100),
            },
            "valid": {
                "average_precision": evaluation.average_precision(data.y[split.valid], probabilities["valid"])
            },
            "segments": _segments(data, test, p),
            "baselines": {
                "chance": float(y.mean()),
                "highest_amount_first": evaluation.average_precision(y, data.amount[test]),
                "logistic_on_raw_fields": fit.logistic_on_raw(raw, data.y, fit_rows, test),
            },
        }
    )
