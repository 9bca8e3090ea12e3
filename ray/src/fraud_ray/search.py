"""The search for parameters on Ray Tune: random draws after a sound start, stopped early by successive halving.

A trial is one core and one thread; data is put into the object store once. The search need not repeat to the byte (trials
are stopped by wall-clock order); a fit of the parameters that it returns does.
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np

from fraud_contracts.training_end import EndReason
from fraud_ray import fit
from fraud_ray.dataset import Dataset, TimeSplit, rows_of
from fraud_ray.errors import TrainingError

LOG = logging.getLogger(__name__)
METRIC: Final = "average_precision"
# Bytes of shared memory at least when we start Ray ourselves: a container's /dev/shm is small.
_OBJECT_STORE: Final = 256 * 2**20


def _space() -> dict[str, Any]:
    from ray import tune

    return {
        "num_leaves": tune.choice([15, 31, 63]),
        "max_depth": tune.choice([4, 5, 6, 7, 8]),
        "learning_rate": tune.loguniform(0.02, 0.2),
        "min_data_in_leaf": tune.choice([10, 20, 40, 80, 160]),
        "feature_fraction": tune.uniform(0.5, 1.0),
        "bagging_fraction": tune.uniform(0.6, 1.0),
        "lambda_l2": tune.loguniform(0.1, 50.0),
    }


def trial(config: dict[str, Any], data: dict[str, Any]) -> None:
    """One trial, in a worker process."""
    from ray import tune

    def report(done: int, rounds: int, best: float) -> None:
        tune.report({METRIC: best, "rounds": rounds, "rounds_done": done})

    fit.search_fit(config, data["seed"], data["names"], data["train"], data["valid"], report)


def search(
    data: Dataset, split: TimeSplit, trials: int, seed: int
) -> tuple[fit.Params, int, list[dict[str, Any]]]:
    """-> (best parameters, best rounds, every trial's outcome). Joins the RayJob's cluster, else starts Ray here."""
    # Loggers for other tools and the dead-weight progress table cost seconds and files that nobody reads.
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray import tune

    # It warns of each trial that it finds no log file, which we turned off.
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.basic_variant import BasicVariantGenerator

    rows = len(split.train) + len(split.valid)
    if "RAY_ADDRESS" in os.environ:
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
    else:
        ray.init(
            num_cpus=os.cpu_count(),
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE + rows * (data.x.itemsize * data.x.shape[1] + 1),
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    try:
        # One copy in the object store, which all trials read where it lies.
        shared = {
            "seed": seed,
            "names": data.names,
            "train": (rows_of(data.x, split.train), data.y[split.train]),
            "valid": (rows_of(data.x, split.valid), data.y[split.valid]),
        }
        trainable = tune.with_parameters(trial, data=shared)
        del shared
        generator = BasicVariantGenerator(
            points_to_evaluate=[dict(fit.DEFAULTS)], random_state=np.random.RandomState(seed)
        )
        scheduler = ASHAScheduler(
            time_attr="rounds_done", max_t=fit.ROUNDS, grace_period=3 * fit.REPORT_EVERY, reduction_factor=3
        )
        with tempfile.TemporaryDirectory(prefix="fraud-search-") as scratch:
            tuner = tune.Tuner(
                tune.with_resources(trainable, {"cpu": 1}),
                param_space=_space(),
                tune_config=tune.TuneConfig(
                    metric=METRIC, mode="max", num_samples=trials, scheduler=scheduler, search_alg=generator
                ),
                run_config=tune.RunConfig(name="search", storage_path=str(Path(scratch)), verbose=0),
            )
            results = tuner.fit()
            return _best([(result.config or {}, result.metrics or {}, result.error) for result in results])
    finally:
        ray.shutdown()


def _best(
    results: list[tuple[dict[str, Any], dict[str, Any], Exception | None]],
) -> tuple[fit.Params, int, list[dict[str, Any]]]:
    outcomes: list[dict[str, Any]] = []
    for config, metrics, error in results:
        value = float(metrics.get(METRIC, math.nan))
        row = {
            "params": config,
            METRIC: None if math.isnan(value) else value,
            "rounds": int(metrics.get("rounds", 0)),
            "rounds_done": int(metrics.get("rounds_done", 0)),
            "error": None if error is None else str(error).strip().splitlines()[-1][:300],
        }
        outcomes.append(row)
        LOG.info("trial", extra={"data": row})
    usable = [row for row in outcomes if row[METRIC] is not None and row["rounds"] > 0]
    if not usable:
        raise TrainingError(
            EndReason.SEARCH_FAILED, f"no trial ended with a result; the first error: {outcomes[0]['error']}"
        )
    best = max(usable, key=lambda row: row[METRIC])
    return best["params"], best["rounds"], outcomes
