"""What a training needs is known from numbers: more of anything needs no less, and what is said to fit does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_contracts.training_memory import (
    GIB,
    MIB,
    USABLE,
    TrainingSize,
    bytes_a_row,
    needed,
    peak,
    rows_per_gib,
    rows_that_fit,
)

SIZES = st.builds(
    TrainingSize,
    rows=st.integers(1, 10**9),
    features=st.integers(1, 200),
    entities=st.integers(1, 4),
    fields=st.integers(0, 32),
    read=st.none() | st.integers(0, 10**9),
    decisions=st.integers(0, 10**9),
    keys=st.integers(0, 10**8),
    trials=st.integers(0, 64),
)


@given(
    SIZES,
    st.sampled_from(["rows", "features", "entities", "fields", "decisions", "keys", "trials"]),
    st.integers(1, 10**6),
)
def test_more_never_needs_less(size: TrainingSize, what: str, more: int) -> None:
    """Of whatever it is more."""
    assert peak(replace(size, **{what: getattr(size, what) + more})) >= peak(size)


@given(SIZES, st.integers(0, 2**44))
def test_what_is_said_to_fit_does(size: TrainingSize, memory: int) -> None:
    """With as many keys and read rows to a row; and one per cent more doesn't, unless nothing does."""

    def of(rows: int) -> TrainingSize:
        share = rows / size.rows
        read = None if size.read is None else round(size.read * share)
        keys, decisions = round(size.keys * share), round(size.decisions * share)
        return replace(size, rows=rows, keys=keys, read=read, decisions=decisions)

    fits = rows_that_fit(memory, size)
    if fits:
        assert needed(of(fits)) <= memory + 4 * MIB
    if fits > 10**4:
        assert needed(of(fits + fits // 100 + 1)) > memory


@pytest.mark.parametrize("trials", [0, 2])
def test_a_gib_takes_its_rows(trials: int) -> None:
    """The figure of the docs is what a further GiB adds."""
    keys_a_row = 2 / 20
    size = TrainingSize(10**7, 25, keys=round(10**7 * keys_a_row), trials=trials)
    more = rows_that_fit(65 * GIB, size) - rows_that_fit(64 * GIB, size)
    assert more == pytest.approx(rows_per_gib(25, trials=trials), rel=0.01)
    assert bytes_a_row(25, trials=trials) == pytest.approx(GIB * USABLE / more, rel=0.01)
