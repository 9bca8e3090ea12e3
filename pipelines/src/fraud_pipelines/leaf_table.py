"""Why a model scored as it did: a tree ensemble as arrays, and what each leaf says about each feature.

The leaf table turns a row into reasons: each split on a row's way moves the expected margin, and the move is put down to
the split's feature. Over all trees the moves and the base sum up to the margin exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fraud_contracts.model_package import PackageError

REASONS: Final = 5

_ARRAYS: Final = ("feature", "threshold", "children", "null_left", "roots", "leaf", "contributions", "base")


@dataclass(frozen=True)
class LeafTable:
    """All trees as arrays, leaves as nodes that lead to themselves, and what each leaf says about each feature.

    ``feature`` int32 and ``threshold`` float32 per node (a row goes left where its value is <= threshold); ``children``
    int32, left and right side by side; ``null_left`` bool, where a null goes; ``roots`` int32 per tree; ``leaf`` int32 per
    node, the row of ``contributions`` (float32, leaves x features), -1 inside; ``base`` float64, the margin before any split.
    """

    feature: NDArray[np.int32]
    threshold: NDArray[np.float32]
    children: NDArray[np.int32]
    null_left: NDArray[np.bool_]
    roots: NDArray[np.int32]
    leaf: NDArray[np.int32]
    contributions: NDArray[np.float32]
    base: float
    depth: int

    def leaves(self, rows: NDArray[np.float32]) -> NDArray[np.int32]:
        """The row of ``contributions`` that each tree ends in, [rows, trees]; ``rows`` is float32, NaN for null."""
        count, width = rows.shape
        if width != self.contributions.shape[1]:
            raise ValueError(f"the model has {self.contributions.shape[1]} features, the row {width}")
        flat = np.ascontiguousarray(rows, dtype=np.float32).ravel()
        nulls = bool(np.isnan(flat).any())
        node = np.broadcast_to(self.roots, (count, len(self.roots))).ravel()
        start = np.repeat(np.arange(count, dtype=np.int32) * width, len(self.roots)) if count > 1 else 0
        for _ in range(self.depth):
            value = flat.take(self.feature.take(node) + start)
            right = value > self.threshold.take(node)
            if nulls:  # a null compares as not greater and goes left, unless the node sends nulls right
                right |= np.isnan(value) & ~self.null_left.take(node)
            node = self.children.take(2 * node + right)
        return self.leaf.take(node).reshape(count, len(self.roots))

    def explain(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """What each feature adds to the margin, [rows, features]; with ``base`` a row sums up to its margin."""
        return contributions(self.contributions, self.leaves(rows))

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            arrays: dict[str, Any] = {name: np.asarray(getattr(self, name)) for name in _ARRAYS}
            np.savez(file, depth=np.int64(self.depth), **arrays)

    @classmethod
    def load(cls, path: Path) -> LeafTable:
        """PackageError where a field is missing or doesn't fit; indexes are checked, so that no row can lead astray."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in (*_ARRAYS, "depth")}
        except (OSError, KeyError, ValueError) as error:
            raise PackageError(f"{path.name} is no leaf table: {error}") from error
        nodes, (leaves, width) = len(arrays["feature"]), arrays["contributions"].shape
        bounds = {"feature": (0, width), "children": (0, nodes), "roots": (0, nodes), "leaf": (-1, leaves)}
        for name, (low, high) in bounds.items():
            if len(arrays[name]) and (arrays[name].min() < low or arrays[name].max() >= high):
                raise PackageError(f"{path.name}: {name} points outside the table")
        if len(arrays["children"]) != 2 * nodes:
            raise PackageError(f"{path.name}: children must be two per node")
        base, depth = float(arrays.pop("base")), int(arrays.pop("depth"))
        return cls(**arrays, base=base, depth=depth)


def contributions(leaf_table: NDArray[np.float32], leaves: NDArray[np.int32]) -> NDArray[np.float64]:
    """Sums of the leaves' rows, [rows, features]."""
    return np.asarray(leaf_table[leaves].sum(axis=1, dtype=np.float64))


def top_reasons(
    values: NDArray[np.float64], count: int = REASONS
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Per row the ``count`` features that raise the score most, and by how much; -1 and 0 where fewer raise it."""
    count = min(count, values.shape[1])
    order = np.argsort(-values, axis=1, kind="stable")[:, :count].astype(np.int32)
    best = np.take_along_axis(values, order, axis=1)
    order[best <= 0] = -1
    return order, np.where(best > 0, best, 0.0).astype(np.float32)
