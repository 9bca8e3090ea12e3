"""From parameters to a package folder: fit, calibrate, export, map, measure, write.

The same arguments give the same digest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fraud_contracts import model_package
from fraud_contracts.model_package import ServingDocument
from fraud_pipelines import score_map
from fraud_ray import card, export, fit
from fraud_ray.dataset import Dataset, TimeSplit, rows_of


@dataclass(frozen=True)
class PackageSummary:
    digest: str
    card: dict[str, Any]


def make(
    folder: Path,
    data: Dataset,
    split: TimeSplit,
    feature_set: str,
    params: fit.Params,
    rounds: int,
    seed: int,
    about: dict[str, Any],
) -> PackageSummary:
    """Writes the package. The model is fit on the train part, calibrated and mapped on the valid part and
    measured on the test part; it is not fit again on all rows, so what was measured is what is served.
    """
    folder.mkdir(parents=True, exist_ok=True)
    booster = fit.final_fit(
        params, rounds, seed, data.names, rows_of(data.x, split.train), data.y[split.train]
    )
    margin = fit.margins(booster, rows_of(data.x, split.valid))
    calibration = fit.calibrate(margin, data.y[split.valid])
    nodes = export.flatten(booster)
    table = export.leaf_table(nodes, calibration, len(data.names))
    (folder / model_package.NATIVE).write_text(booster.model_to_string())
    (folder / model_package.ONNX).write_bytes(export.onnx_model(nodes, calibration, len(data.names)))
    table.save(folder / model_package.LEAF_TABLE)

    served = export.Served(folder / model_package.ONNX)
    held_out = data.x[np.concatenate([split.valid, split.test])]
    native = calibration.probability(fit.margins(booster, held_out))
    parity = export.check_parity(served, table, native, held_out)
    probabilities = {
        name: served.probability(rows_of(data.x, rows)).astype(np.float64)
        for name, rows in (("valid", split.valid), ("test", split.test))
    }
    knots = score_map.fit(probabilities["valid"])
    gain = np.asarray(booster.feature_importance("gain"), np.float64)
    importance = dict(zip(data.names, (gain / max(float(gain.sum()), 1e-12)).tolist(), strict=True))
    full_card = {
        "model": {"algorithm": "LightGBM", "params": params, "rounds": rounds, "seed": seed},
        **about,
        **card.make(data, split, probabilities, knots, seed),
        "importance": card.plain(importance),
        "parity": card.plain(parity),
    }
    serving = ServingDocument(
        feature_set=feature_set,
        feature_names=list(data.names),
        score_map=list(knots),
        base=table.base,
        calibration={"slope": calibration.slope, "offset": calibration.offset},
    )
    (folder / model_package.SERVING).write_bytes(serving.to_json())
    (folder / model_package.CARD).write_bytes(model_package.canonical_json(full_card))
    digest = model_package.write_manifest(
        folder,
        {"feature_set": feature_set, "params": params, "rounds": rounds, "seed": seed, "data": data.digest},
    )
    return PackageSummary(digest, full_card)
