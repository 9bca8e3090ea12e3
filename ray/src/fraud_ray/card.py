"""The evaluation card: what a person must know before this model may decide. Measured on the test part only.

It is part of the package, so it holds nothing that differs between two runs on the same data: no times of the run, no
outcome of the search.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import pyarrow
from numpy.typing import NDArray

from fraud_contracts.model_package import ScoreKnots
from fraud_pipelines import evaluation
from fraud_pipelines.score_map import ScoreMap
from fraud_ray import baselines
from fraud_ray.columns import values
from fraud_ray.dataset import Dataset, TimeSplit

SCORES: Final = (500, 700, 800, 900)
CARDS_PER_DAY: Final = (10, 50, 100)
ALERTS_PER_DAY: Final = (1, 2, 5, 10, 20, 50, 100, 200)
LOGISTIC: Final = "logistic_on_raw_fields"
ONE_RULE: Final = "one_rule"
ONE_VALUE: Final = "one_value"
BASELINES: Final = (LOGISTIC, ONE_RULE, ONE_VALUE)
HOW: Final = (
    "95 %, 200 draws of whole customers with all their payments; the same draws for model and baselines"
)
_SCORE_EDGES: Final = tuple(range(0, 1001, 50))
_MOST_SEGMENTS: Final = 20


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


def _segments(data: Dataset, rows: NDArray[np.int64], p: NDArray[np.float64]) -> dict[str, Any]:
    y = data.y[rows]
    edges = np.quantile(data.amount[rows], [0.25, 0.5, 0.75])
    quarter = np.searchsorted(edges, data.amount[rows], side="right")
    names = ["lowest quarter", "second quarter", "third quarter", "highest quarter"]
    segments = {"amount": evaluation.by_segment(y, p, [names[i] for i in quarter])}
    for name, column in data.fields.items():
        here = column.take(pyarrow.array(rows))
        if len(here.unique()) > _MOST_SEGMENTS + 1:  # a null and the text None are one segment
            continue
        texts = values(here)
        if len({str(value) for value in texts}) <= _MOST_SEGMENTS:
            segments[name] = evaluation.by_segment(y, p, texts)
    return segments


def _patterns(
    data: Dataset, rows: NDArray[np.int64], p: NDArray[np.float64], reached: NDArray[np.int64]
) -> list[dict[str, Any]]:
    """Of each kind of fraud that the history names: how much of it the scores find. Empty where it names none."""
    y = data.y[rows]
    if data.pattern is None:
        return []
    kind = np.array([text or "" for text in values(data.pattern.take(pyarrow.array(rows)))], np.str_)
    patterns = []
    for name in sorted({str(k) for k in kind[y == 1]} - {""}):
        here = (kind == name) & (y == 1)
        among = here | (y == 0)
        patterns.append(
            {
                "pattern": name,
                "frauds": int(here.sum()),
                "recall": {score: float((reached[here] >= score).mean()) for score in SCORES},
                "average_precision": evaluation.average_precision(here[among], p[among]),
            }
        )
    return patterns


def _baselines(
    data: Dataset, split: TimeSplit, p: NDArray[np.float64], entity: NDArray[np.int32], seed: int
) -> dict[str, Any]:
    """Each baseline's average precision on the test rows, with its interval and what the model is ahead by."""
    test, y = split.test, data.y[split.test]
    raw = baselines.raw_columns(data, split.train)
    columns = raw.and_columns(baselines.matrix_columns(data.names, data.x))
    rule = baselines.one_rule(columns, data.y, split.train)
    alerts = rule.alerts(columns.named(rule.column, test))
    order = baselines.one_order(columns, data.y, split.train)
    others = {
        LOGISTIC: baselines.logistic(raw, data.y, split.train, test),
        ONE_RULE: alerts,
        ONE_VALUE: order.scores(columns.named(order.column, test)),
    }
    figures: dict[str, Any] = {
        "chance": float(y.mean()),
        "highest_amount_first": evaluation.average_precision(y, data.amount[test]),
        "intervals": HOW,
    }
    compared = evaluation.compare(evaluation.average_precision, y, p, others, entity, seed=seed)
    for name, against in compared.items():
        figures[name] = {
            "average_precision": against.value.to_dict(),
            "model_ahead_by": against.ahead.to_dict(),
        }
    figures[ONE_VALUE] |= {"order": order.to_dict()}
    figures[ONE_RULE] |= {
        "rule": rule.to_dict(),
        "alert_rate": float(alerts.mean()),
        "precision": float(y[alerts == 1].mean()) if alerts.any() else None,
        "recall": float(alerts[y == 1].mean()),
    }
    return figures


def beats(card: Mapping[str, Any]) -> dict[str, bool]:
    """Whether the model's interval lies above each baseline's, without touching it."""
    low = card["test"]["average_precision"]["low"]
    return {
        name: bool(
            low is not None
            and card["baselines"][name]["average_precision"]["high"] is not None
            and low > card["baselines"][name]["average_precision"]["high"]
        )
        for name in BASELINES
    }


def make(
    data: Dataset,
    split: TimeSplit,
    probabilities: dict[str, NDArray[np.float64]],
    knots: ScoreKnots,
    seed: int,
) -> dict[str, Any]:
    """``probabilities`` of the parts valid and test, as served."""
    test, p = split.test, np.asarray(probabilities["test"], np.float64)
    y = data.y[test]
    entity = data.entity[test]
    scores = ScoreMap(knots)
    reached = np.array([scores.score(float(value)) for value in p])
    figures: dict[str, Any] = plain(
        {
            "data": {
                "rows": len(data.y),
                "mature": int(data.mature.sum()),
                "frauds": int(data.y.sum()),
                "early_frauds_left_out": data.early_frauds,
                "digest": data.digest,
                "vectors": data.vectors,
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
                "alerts_per_day": evaluation.by_alerts_per_day(y, p, data.time[test], ALERTS_PER_DAY),
                "distribution": evaluation.distribution(y, reached, _SCORE_EDGES),
                "weeks": evaluation.by_week(y, p, data.time[test]),
                "calibration": evaluation.calibration(y, p),
                "curve": evaluation.precision_recall(y, p, points=100),
            },
            "valid": {
                "average_precision": evaluation.average_precision(data.y[split.valid], probabilities["valid"])
            },
            "segments": _segments(data, test, p),
            "patterns": _patterns(data, test, p, reached),
            "baselines": _baselines(data, split, p, entity, seed),
        }
    )
    return figures
