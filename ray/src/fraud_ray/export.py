"""The fitted model as what is served: an ONNX graph and a leaf table, both made from the trees themselves.

Both take float32 rows. A threshold is rounded *down* to float32: the fit puts it between two float32 values
to separate them, and rounding up could reach the greater one and send it left, too. Where a null goes is
written per node. The calibration is folded into the leaves and the base, so one number per leaf decides score
and reasons alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import lightgbm
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from fraud_contracts.training_end import EndReason
from fraud_pipelines.leaf_table import LeafTable
from fraud_ray.errors import TrainingError
from fraud_ray.fit import Calibration

INPUT: Final = "features"
OUTPUT: Final = "probability"
# The newest pair that onnxruntime of some years reads; trees need no more.
_OPSET: Final = 17
_ML_OPSET: Final = 3
_IR: Final = 8
PARITY: Final = 1e-5


def floor32(value: float) -> np.float32:
    """The greatest float32 that isn't above ``value``."""
    with np.errstate(over="ignore"):  # LightGBM's "every number" is near the end of float64
        near = np.float32(value)
    return np.float32(np.nextafter(near, np.float32(-np.inf))) if float(near) > value else near


@dataclass
class _Nodes:
    """All trees, flattened: a node's children follow it, leaves lead to themselves."""

    feature: list[int] = field(default_factory=list)
    threshold: list[np.float32] = field(default_factory=list)
    children: list[int] = field(default_factory=list)
    null_left: list[bool] = field(default_factory=list)
    leaf: list[int] = field(default_factory=list)
    roots: list[int] = field(default_factory=list)
    tree: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    moves: list[dict[int, float]] = field(default_factory=list)
    base: float = 0.0
    depth: int = 0

    def take(self, node: dict[str, Any], tree: int, depth: int, moves: dict[int, float]) -> int:
        """Adds a subtree; ``moves`` is what the way to it has moved the expected margin, by feature. -> its index."""
        at = len(self.feature)
        self.depth = max(self.depth, depth)
        inside = "split_feature" in node
        self.feature.append(int(node.get("split_feature", 0)))
        self.threshold.append(floor32(float(node["threshold"])) if inside else np.float32(0))
        self.children += [at, at]
        self.null_left.append(_null_left(node) if inside else True)
        self.leaf.append(-1 if inside else len(self.values))
        self.tree.append(tree)
        if not inside:
            self.values.append(float(node["leaf_value"]))
            self.moves.append(moves)
            return at
        here = _value(node)
        for side, name in enumerate(("left_child", "right_child")):
            child, feature = node[name], int(node["split_feature"])
            further = {**moves, feature: moves.get(feature, 0.0) + _value(child) - here}
            self.children[2 * at + side] = self.take(child, tree, depth + 1, further)
        return at


def _value(node: dict[str, Any]) -> float:
    return float(node["internal_value"] if "split_feature" in node else node["leaf_value"])


def _null_left(node: dict[str, Any]) -> bool:
    """Where LightGBM sends a NaN: by the learned side, or as zero where the fit saw no null in the feature."""
    if node["decision_type"] != "<=":
        raise TrainingError(
            EndReason.EXPORT_FAILED, f"a split of kind {node['decision_type']!r} can't be exported"
        )
    if node["missing_type"] == "NaN":
        return bool(node["default_left"])
    if node["missing_type"] == "None":
        return bool(float(node["threshold"]) >= 0.0)
    raise TrainingError(
        EndReason.EXPORT_FAILED, f"missing values of kind {node['missing_type']!r} can't be exported"
    )


def flatten(booster: lightgbm.Booster) -> _Nodes:
    nodes = _Nodes()
    for number, tree in enumerate(booster.dump_model()["tree_info"]):
        root = tree["tree_structure"]
        nodes.base += _value(root)
        nodes.roots.append(nodes.take(root, number, 0, {}))
    return nodes


def leaf_table(nodes: _Nodes, calibration: Calibration, width: int) -> LeafTable:
    moves = np.zeros((len(nodes.moves), width), np.float32)
    for row, leaf_moves in enumerate(nodes.moves):
        for feature, move in leaf_moves.items():
            moves[row, feature] = calibration.slope * move
    return LeafTable(
        feature=np.array(nodes.feature, np.int32),
        threshold=np.array(nodes.threshold, np.float32),
        children=np.array(nodes.children, np.int32),
        null_left=np.array(nodes.null_left, np.bool_),
        roots=np.array(nodes.roots, np.int32),
        leaf=np.array(nodes.leaf, np.int32),
        contributions=moves,
        base=calibration.slope * nodes.base + calibration.offset,
        depth=nodes.depth,
    )


def onnx_model(nodes: _Nodes, calibration: Calibration, width: int) -> bytes:
    """``features`` float32 [n, width] -> ``probability`` float32 [n]."""
    count = len(nodes.feature)
    first = np.array(nodes.roots)[nodes.tree]
    inside = np.array(nodes.leaf) < 0
    children = np.array(nodes.children).reshape(-1, 2) - first[:, None]
    leaves = np.flatnonzero(~inside)
    trees = helper.make_node(
        "TreeEnsembleRegressor",
        [INPUT],
        ["margin"],
        name="trees",
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function="SUM",
        post_transform="NONE",
        base_values=[calibration.offset],
        nodes_treeids=list(nodes.tree),
        nodes_nodeids=(np.arange(count) - first).tolist(),
        nodes_featureids=list(nodes.feature),
        nodes_modes=["BRANCH_LEQ" if branch else "LEAF" for branch in inside],
        nodes_values=[float(value) for value in nodes.threshold],
        nodes_truenodeids=np.where(inside, children[:, 0], 0).tolist(),
        nodes_falsenodeids=np.where(inside, children[:, 1], 0).tolist(),
        nodes_missing_value_tracks_true=[
            int(left and branch) for left, branch in zip(nodes.null_left, inside, strict=True)
        ],
        nodes_hitrates=[1.0] * count,
        target_treeids=[nodes.tree[i] for i in leaves],
        target_nodeids=(leaves - first[leaves]).tolist(),
        target_ids=[0] * len(leaves),
        target_weights=[calibration.slope * nodes.values[nodes.leaf[i]] for i in leaves],
    )
    graph = helper.make_graph(
        [
            trees,
            helper.make_node("Sigmoid", ["margin"], ["column"], name="sigmoid"),
            helper.make_node("Reshape", ["column", "flat"], [OUTPUT], name="flat_column"),
        ],
        "fraud",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n"])],
        [helper.make_tensor("flat", TensorProto.INT64, [1], [-1])],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", _OPSET), helper.make_opsetid("ai.onnx.ml", _ML_OPSET)],
        producer_name="fraud-platform",
    )
    model.ir_version = _IR
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)  # type: ignore[no-any-return]  # onnx has no types


class Served:
    """The exported model as a server runs it."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def probability(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """In pieces, so that a long history needs little memory."""
        parts = [self._session.run([OUTPUT], {INPUT: x[i : i + 8192]})[0] for i in range(0, len(x), 8192)]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def check_parity(
    served: Served, table: LeafTable, native: NDArray[np.float64], x: NDArray[np.float32]
) -> dict[str, float]:
    """Greatest differences of probability from the native model's; TrainingError where they are not the same model."""
    explained = table.base + np.concatenate(
        [table.explain(x[i : i + 4096]).sum(axis=1) for i in range(0, len(x), 4096)]
    )
    differences = {
        "onnx": float(np.abs(served.probability(x) - native).max()),
        "leaf_table": float(np.abs(1.0 / (1.0 + np.exp(-explained)) - native).max()),
    }
    if max(differences.values()) > PARITY:
        raise TrainingError(
            EndReason.EXPORT_FAILED, f"the exported model differs from the native one: {differences}"
        )
    return differences
