"""A small real model package, made by training's own exporter, for tests of what serves it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import lightgbm
import numpy as np

from fraud_contracts import model_package
from fraud_contracts.names import Slot
from fraud_contracts.release import ModelPackage

# The exporter is training's; its other modules, and Ray, aren't needed for it.
sys.path.append(str(Path(__file__).parents[3] / "ray" / "src"))

from fraud_ray import export
from fraud_ray.fit import Calibration

SCORE_MAP = [(0.0, 0.0), (0.05, 400.0), (0.3, 700.0), (0.7, 900.0), (1.0, 1000.0)]


def make(folder: Path, names: list[str], feature_set: str, seed: int = 1, rounds: int = 30) -> str:
    """Fits a few trees to noise with a rule in it and writes the package; -> its digest."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    rows = random.lognormal(2, 2, (4000, len(names))).astype(np.float32)
    rows[random.random(rows.shape) < 0.1] = np.nan
    fraud = (np.nan_to_num(rows[:, 0]) > 30) & (random.random(len(rows)) < 0.6) | (
        random.random(len(rows)) < 0.02
    )
    params = {"objective": "binary", "num_leaves": 15, "verbosity": -1, "num_threads": 1, "seed": seed}
    booster = lightgbm.train(
        params, lightgbm.Dataset(rows, fraud.astype(np.float32), feature_name=names), num_boost_round=rounds
    )
    nodes, plain = export.flatten(booster), Calibration(1.0, 0.0)
    table = export.leaf_table(nodes, plain, len(names))
    (folder / model_package.NATIVE).write_text(booster.model_to_string())
    (folder / model_package.ONNX).write_bytes(export.onnx_model(nodes, plain, len(names)))
    table.save(folder / model_package.LEAF_TABLE)
    serving = model_package.ServingDocument(feature_set, names, SCORE_MAP, table.base)
    (folder / model_package.SERVING).write_bytes(serving.to_json())
    (folder / model_package.CARD).write_bytes(json.dumps({"seed": seed}).encode())
    return model_package.write_manifest(folder, {"feature_set": feature_set})


def release_package(
    digest: str, feature_set: str, url: str, version: str = "1", slot: Slot = "a"
) -> ModelPackage:
    """The package as a release names it."""
    return ModelPackage(
        name="tests.cards",
        version=version,
        digest=digest,
        feature_set=feature_set,
        slot=slot,
        url=url,
        score_map=SCORE_MAP,
    )
