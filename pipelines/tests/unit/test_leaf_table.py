"""The leaf table's paths held against a walk in plain Python."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud_contracts.model_package import PackageError
from fraud_pipelines.leaf_table import LeafTable, top_reasons


def table(seed: int = 0, trees: int = 4, features: int = 5) -> LeafTable:
    """Random full trees of depth 3; nodes 0-6 of each are splits, 7-14 leaves."""
    rng = np.random.default_rng(seed)
    feature, threshold, children, null_left, leaf, roots = [], [], [], [], [], []
    for tree in range(trees):
        first = tree * 15
        roots.append(first)
        for i in range(15):
            inside = i < 7
            feature.append(int(rng.integers(features)) if inside else 0)
            threshold.append(float(rng.normal()) if inside else 0.0)
            children += [first + 2 * i + 1, first + 2 * i + 2] if inside else [first + i] * 2
            null_left.append(bool(rng.random() < 0.5))
            leaf.append(-1 if inside else tree * 8 + i - 7)
    return LeafTable(
        np.array(feature, np.int32),
        np.array(threshold, np.float32),
        np.array(children, np.int32),
        np.array(null_left),
        np.array(roots, np.int32),
        np.array(leaf, np.int32),
        rng.normal(size=(trees * 8, features)).astype(np.float32),
        base=-2.5,
        depth=3,
    )


TABLE = table()


@settings(max_examples=60)
@given(
    st.lists(
        st.lists(st.floats(-3, 3, width=32) | st.just(math.nan), min_size=5, max_size=5),
        min_size=1,
        max_size=4,
    )
)
def test_leaves_are_where_a_walk_ends(rows: list[list[float]]) -> None:
    """Each tree's leaf is the one that following its splits by hand reaches, nulls included, for one row or many."""
    x = np.array(rows, np.float32)
    got = TABLE.leaves(x)
    for r, row in enumerate(x):
        for t, node in enumerate(TABLE.roots):
            while TABLE.leaf[node] < 0:
                value = row[TABLE.feature[node]]
                left = bool(TABLE.null_left[node]) if np.isnan(value) else value <= TABLE.threshold[node]
                node = TABLE.children[2 * node + (not left)]
            assert got[r, t] == TABLE.leaf[node]
    assert TABLE.explain(x) == pytest.approx(TABLE.contributions[got].sum(axis=1), abs=1e-5)


def test_a_short_row_is_refused() -> None:
    """A row of another width than the model's is an error, never a read past its end."""
    with pytest.raises(ValueError, match="has 5 features"):
        TABLE.leaves(np.zeros((1, 4), np.float32))


def test_reasons_raise_the_score() -> None:
    """Only features that raise the score are reasons, the strongest first; the rest is padding."""
    index, value = top_reasons(np.array([[0.5, -1.0, 2.0, 0.0, 0.1], [-1, -1, -1, -1, -1]]), 4)
    assert index.tolist() == [[2, 0, 4, -1], [-1, -1, -1, -1]]
    assert value.tolist()[0] == pytest.approx([2.0, 0.5, 0.1, 0.0])


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    """Saving twice gives the same bytes, and loading gives the same paths."""
    TABLE.save(tmp_path / "a.npz")
    TABLE.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    x = np.random.default_rng(5).normal(size=(50, 5)).astype(np.float32)
    loaded = LeafTable.load(tmp_path / "a.npz")
    assert (loaded.explain(x) == TABLE.explain(x)).all()
    assert (loaded.base, loaded.depth) == (TABLE.base, TABLE.depth)


def test_a_table_that_points_outside_is_refused(tmp_path: Path) -> None:
    """A damaged or hostile table can't lead a lookup outside of its arrays."""
    bad = table()
    bad.children[3] = 10_000
    bad.save(tmp_path / "bad.npz")
    with pytest.raises(PackageError, match="outside"):
        LeafTable.load(tmp_path / "bad.npz")
    (tmp_path / "junk.npz").write_bytes(b"junk")
    with pytest.raises(PackageError):
        LeafTable.load(tmp_path / "junk.npz")
