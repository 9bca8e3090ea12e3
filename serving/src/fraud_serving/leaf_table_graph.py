"""The leaf table as an ONNX graph: one pass over the trees gives what each feature added to the log-odds.

Walking the table in numpy costs a third of a millisecond a row, twenty times the score itself. onnxruntime does the same
walk with a regressor of as many targets as features, where a leaf's weights are what its path says about each of them.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from fraud_pipelines.leaf_table import LeafTable

# What the package's own graph uses, too; onnxruntime reads it for years to come.
_OPSET, _ML_OPSET, _IR = 17, 3, 8


def leaf_table_graph(table: LeafTable) -> bytes:
    """``features`` float32 [n, width] -> ``added`` float32 [n, width]."""
    count, width = len(table.feature), table.contributions.shape[1]
    starts = np.sort(table.roots)
    tree = np.searchsorted(starts, np.arange(count), side="right") - 1
    number = np.arange(count) - starts[tree]
    inside = table.leaf < 0
    children = table.children.reshape(-1, 2) - starts[tree][:, None]
    at, target = np.nonzero(table.contributions[table.leaf[~inside]])
    leaves = np.flatnonzero(~inside)[at]
    weights = table.contributions[table.leaf[leaves], target]
    trees = helper.make_node(
        "TreeEnsembleRegressor",
        ["features"],
        ["added"],
        domain="ai.onnx.ml",
        n_targets=width,
        aggregate_function="SUM",
        post_transform="NONE",
        nodes_treeids=tree.tolist(),
        nodes_nodeids=number.tolist(),
        nodes_featureids=np.where(inside, table.feature, 0).tolist(),
        nodes_modes=["BRANCH_LEQ" if branch else "LEAF" for branch in inside],
        nodes_values=[float(value) for value in table.threshold],
        nodes_truenodeids=np.where(inside, children[:, 0], 0).tolist(),
        nodes_falsenodeids=np.where(inside, children[:, 1], 0).tolist(),
        nodes_missing_value_tracks_true=(table.null_left & inside).astype(int).tolist(),
        nodes_hitrates=[1.0] * count,
        target_treeids=tree[leaves].tolist(),
        target_nodeids=number[leaves].tolist(),
        target_ids=target.tolist(),
        target_weights=[float(weight) for weight in weights],
    )
    whole = helper.make_graph(
        [trees],
        "reasons",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("added", TensorProto.FLOAT, ["n", width])],
    )
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("ai.onnx.ml", _ML_OPSET)]
    model = helper.make_model(whole, opset_imports=opsets)
    model.ir_version = _IR
    return bytes(model.SerializeToString())
