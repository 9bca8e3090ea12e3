"""One fit of the model, repeatable to the byte: one thread, fixed seeds, the parameters recorded."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import lightgbm
import numpy as np
from numpy.typing import NDArray

Params = dict[str, float | int]
ROUNDS: Final = 400
PATIENCE: Final = 40
REPORT_EVERY: Final = 20
# A sound start for rare labels; a search begins with it.
DEFAULTS: Final[Params] = {
    "num_leaves": 31,
    "max_depth": 7,
    "learning_rate": 0.05,
    "min_data_in_leaf": 40,
    "feature_fraction": 0.8,
    "bagging_fraction": 0.8,
    "lambda_l2": 5.0,
}
_FIXED: Final[dict[str, Any]] = {
    "objective": "binary",
    "metric": "average_precision",
    "bagging_freq": 1,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """Platt scaling: the log-odds are ``slope * margin + offset``."""

    slope: float
    offset: float

    def probability(self, margin: Floats) -> Floats:
        return np.asarray(1.0 / (1.0 + np.exp(-(self.slope * margin + self.offset))))


def _dataset(x: NDArray[np.float32], y: NDArray[np.int8], names: tuple[str, ...]) -> lightgbm.Dataset:
    return lightgbm.Dataset(x, y.astype(np.float32), feature_name=list(names), params={"verbosity": -1})


def search_fit(
    params: Params,
    seed: int,
    names: tuple[str, ...],
    train: tuple[NDArray[np.float32], NDArray[np.int8]],
    valid: tuple[NDArray[np.float32], NDArray[np.int8]],
    report: Callable[[int, int, float], None] | None = None,
) -> tuple[int, float]:
    """Fits until the valid part no longer gains; -> (best rounds, the average precision there).

    ``report`` hears (rounds done, best rounds so far, average precision there) now and then and once at the end.
    """
    train_set = _dataset(*train, names)
    valid_set = lightgbm.Dataset(valid[0], valid[1].astype(np.float32), reference=train_set)
    progress = {"best": -math.inf, "rounds": 1, "done": 0}

    def watch(env: Any) -> None:
        value = float(env.evaluation_result_list[0][2])
        if value > progress["best"]:
            progress["best"], progress["rounds"] = value, env.iteration + 1
        progress["done"] = env.iteration + 1
        if report is not None and progress["done"] % REPORT_EVERY == 0:
            report(int(progress["done"]), int(progress["rounds"]), progress["best"])

    lightgbm.train(
        {**_FIXED, **params, "seed": seed},
        train_set,
        ROUNDS,
        valid_sets=[valid_set],
        callbacks=[watch, lightgbm.early_stopping(PATIENCE, first_metric_only=True, verbose=False)],
    )
    if report is not None:
        report(int(progress["done"]) + 1, int(progress["rounds"]), progress["best"])
    return int(progress["rounds"]), float(progress["best"])


def final_fit(
    params: Params,
    rounds: int,
    seed: int,
    names: tuple[str, ...],
    x: NDArray[np.float32],
    y: NDArray[np.int8],
) -> lightgbm.Booster:
    """The model of given parameters; the same arguments give the same text."""
    return lightgbm.train({**_FIXED, **params, "seed": seed}, _dataset(x, y, names), rounds)


def margins(booster: lightgbm.Booster, x: NDArray[np.float32]) -> Floats:
    return np.asarray(booster.predict(x, raw_score=True, num_threads=1), np.float64)


def calibrate(margin: Floats, y: NDArray[np.int8]) -> Calibration:
    """Slope and offset by Newton's method on the log-likelihood, with Platt's targets against over-confidence.

    Where the data would turn the order around (a model worse than chance), only the offset is fit.
    """
    frauds = float(y.sum())
    targets = np.where(y == 1, (frauds + 1) / (frauds + 2), 1 / (len(y) - frauds + 2))
    base = math.log(targets.mean() / (1 - targets.mean()))
    design = np.column_stack([margin, np.ones_like(margin)])
    weights = np.array([1.0, base - float(margin.mean())])
    for _ in range(100):
        p = 1.0 / (1.0 + np.exp(-np.clip(design @ weights, -40, 40)))
        gradient = design.T @ (p - targets)
        hessian = (design * (p * (1 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        weights = weights - step * min(1.0, 2.0 / float(np.abs(step).max() + 1e-12))
        if float(np.abs(step).max()) < 1e-10:
            break
    slope, offset = float(weights[0]), float(weights[1])
    if not (math.isfinite(slope) and math.isfinite(offset)) or slope <= 0.05:
        return Calibration(1.0, base - float(margin.mean()))
    return Calibration(slope, offset)
