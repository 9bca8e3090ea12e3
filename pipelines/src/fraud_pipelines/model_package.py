"""What a model version consists of, how its digest is made, and why it scored as it did.

A package is a folder of plain files: ``manifest.json`` names each with its SHA-256, and the digest is taken over the
manifest. Nothing in it is a pickle; a server reads JSON, ONNX and arrays. The leaf table turns a row into reasons: each
split on a row's way moves the expected margin, and the move is put down to the split's feature. Over all trees the moves
and the base sum up to the margin exactly.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MANIFEST: Final = "manifest.json"
ONNX: Final = "model.onnx"
NATIVE: Final = "model.lgb.txt"
SERVING: Final = "serving.json"
LEAF_TABLE: Final = "leaf_table.npz"
CARD: Final = "card.json"
FILES: Final = (MANIFEST, ONNX, NATIVE, SERVING, LEAF_TABLE, CARD)
REASONS: Final = 5

_ARRAYS: Final = ("feature", "threshold", "children", "null_left", "roots", "leaf", "contributions", "base")


class PackageError(ValueError):
    """A package that is not what its digest or its manifest says, or that can't be read."""


def canonical_json(value: Any) -> bytes:
    """Sorted keys, no spaces: equal values give equal bytes."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path, about: dict[str, Any]) -> str:
    """Writes ``manifest.json`` over all other files of ``folder`` and gives the digest, ``sha256:<hex>``.

    ``about`` joins the manifest, so it decides the digest too: no times, hosts or versions of registries in it.
    """
    files = {
        str(path.relative_to(folder)): file_digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    data = canonical_json({**about, "files": files})
    (folder / MANIFEST).write_bytes(data)
    return "sha256:" + hashlib.sha256(data).hexdigest()


def verify(folder: Path, digest: str | None = None) -> dict[str, Any]:
    """The manifest, after each file and (where given) the digest were checked; PackageError says what differs."""
    path = folder / MANIFEST
    if not path.is_file():
        raise PackageError(f"the package has no {MANIFEST}")
    data = path.read_bytes()
    found = "sha256:" + hashlib.sha256(data).hexdigest()
    if digest is not None and found != digest:
        raise PackageError(f"the package's digest is {found}, not {digest}")
    manifest: dict[str, Any] = json.loads(data)
    for name, expected in manifest["files"].items():
        file = folder / name
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise PackageError(f"the manifest names a file outside the package: {name}")
        if not file.is_file():
            raise PackageError(f"the package lacks {name}")
        if file_digest(file) != expected:
            raise PackageError(f"{name} was changed after the package was made")
    return manifest


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
            right = value > self.threshold.take(
                node
            )  # a null is not greater, so it goes left unless told otherwise
            if nulls:
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
            with np.load(path, allow_pickle=False) as found:
                arrays = {name: found[name] for name in (*_ARRAYS, "depth")}
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
