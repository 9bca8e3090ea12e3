"""A model package as served: verified files, one ONNX session, reasons by leaf contributions.

Nothing here unpickles: the package is JSON, ONNX and plain arrays (``fraud_contracts.model_package``), each file checked
against the manifest before it is opened.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from fraud_contracts import model_package
from fraud_contracts.model_package import SOURCE, PackageError, ServingDocument
from fraud_pipelines.leaf_table import REASONS, LeafTable, top_reasons
from fraud_serving.leaf_table_graph import leaf_table_graph

# Margins by leaf table and by ONNX are the same sum in another order of additions.
PARITY: Final = 1e-3
Rows = NDArray[np.float32]


@dataclass(frozen=True)
class ModelOutput:
    """Per row: probability; up to five features that raised it (-1: none) and what each added to the log-odds."""

    probability: Rows
    reasons: NDArray[np.int32] | None
    contributions: Rows | None


class ServedModel:
    """One thread for the session: a replica has one event loop, and load is spread over Pods."""

    def __init__(self, folder: Path) -> None:
        model_package.verify(folder)
        self.digest = model_package.package_digest((folder / model_package.MANIFEST).read_bytes())
        serving = ServingDocument.parse((folder / model_package.SERVING).read_bytes())
        self.names, self.feature_set = serving.feature_names, serving.feature_set
        self.version = _version(folder)
        self._session = _session((folder / model_package.ONNX).read_bytes())
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].shape[-1] != self.width:
            raise PackageError(
                f"model.onnx takes {[i.shape for i in inputs]}, serving.json names {self.width} features"
            )
        self._input, self._output = inputs[0].name, self._session.get_outputs()[-1].name
        self._leaves = LeafTable.load(folder / model_package.LEAF_TABLE)
        if self._leaves.contributions.shape[1] != self.width:
            raise PackageError("the leaf table and serving.json disagree about the number of features")
        self._explainer = _session(leaf_table_graph(self._leaves))
        self._check()

    @property
    def width(self) -> int:
        return len(self.names)

    def _check(self) -> None:
        """Reasons must explain the model that is served: both margins agree on rows of fixed noise. Warms up, too."""
        rows = np.random.default_rng(7).lognormal(2, 2, (32, self.width)).astype(np.float32)
        rows[::5, ::3] = np.nan
        added = self.added(rows)
        margin = self._leaves.base + added.sum(axis=1)
        graph_apart = float(np.abs(added - self._leaves.explain(rows)).max())
        if graph_apart > PARITY:
            raise PackageError(f"the leaf table's graph differs from the leaf table by {graph_apart:.4f}")
        served = self.probability(rows).astype(np.float64)
        apart = float(np.abs(served - 1.0 / (1.0 + np.exp(-margin))).max())
        if apart > PARITY:
            raise PackageError(f"the leaf table explains another model: probabilities differ by {apart:.4f}")
        self.score(rows[:1])

    def probability(self, rows: Rows) -> Rows:
        output = self._session.run([self._output], {self._input: rows})[0]
        return np.ascontiguousarray(output[:, -1] if output.ndim == 2 else output, dtype=np.float32)

    def added(self, rows: Rows) -> NDArray[np.float64]:
        """What each feature added to the log-odds, [rows, features]."""
        return np.asarray(self._explainer.run(None, {"features": rows})[0], dtype=np.float64)

    def score(self, rows: Rows, explain: bool = True) -> ModelOutput:
        probability = self.probability(rows)
        if not explain:
            return ModelOutput(probability, None, None)
        if len(rows) == 1:
            return ModelOutput(probability, *_top_of_one(self.added(rows)[0].tolist()))
        reasons, added = top_reasons(self.added(rows), REASONS)
        if reasons.shape[1] < REASONS:
            missing = ((0, 0), (0, REASONS - reasons.shape[1]))
            reasons = np.pad(reasons, missing, constant_values=-1)
            added = np.pad(added, missing)
        return ModelOutput(probability, reasons, added)


def _top_of_one(added: list[float]) -> tuple[NDArray[np.int32], Rows]:
    """``top_reasons`` of a single row, without a dozen numpy calls on a handful of numbers."""
    order = sorted(range(len(added)), key=added.__getitem__, reverse=True)[:REASONS]
    reasons, most = np.full((1, REASONS), -1, np.int32), np.zeros((1, REASONS), np.float32)
    for place, index in enumerate(order):
        if added[index] > 0:
            reasons[0, place], most[0, place] = index, added[index]
    return reasons, most


def _session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _version(folder: Path) -> str:
    """The registered version, left by the initializer; a folder filled by hand has none."""
    source = folder / SOURCE
    return str(json.loads(source.read_bytes())["version"]) if source.exists() else "unregistered"
