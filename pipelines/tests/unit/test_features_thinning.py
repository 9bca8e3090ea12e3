"""A busy key's curve against its definition over the set of events: which rows stay, and what a window may then be."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_pipelines.features import EntitySpec, FeatureSet, FeatureSetSpec, FeatureSpec
from fraud_pipelines.features.plan import hash64
from fraud_testing import histories

HOUR, DAY = 3_600_000, 86_400_000
START = 1_700_000_000_000

GAPS = st.one_of(
    st.just(0),
    st.integers(0, 5_000),
    st.integers(0, 3 * HOUR),
    st.integers(0, 3 * DAY),
    st.just(HOUR),
    st.just(DAY),
)
ARRIVAL = st.tuples(GAPS, st.booleans(), st.integers(0, 10_000))
BUSY = st.one_of(st.lists(ARRIVAL, min_size=1, max_size=20), st.lists(ARRIVAL, min_size=60, max_size=150))


def definition_of_rows(live: Any, taken: list[tuple[int, int, int]]) -> list[tuple[int, int, int | None]]:
    """(time, running sum, running count of a cell) of a curve, from its set of (time, tag, amount)."""
    grid = live.stage.grid
    newest = max(t for t, _, _ in taken)

    def cell(t: int) -> tuple[int, int]:
        width = grid.levels[0][1]
        for age, wide in grid.levels[1:]:
            if t < (newest - age) // wide * wide:
                width = wide
        return width, t // width

    rows, total = [], 0
    ordered = sorted(taken)
    for n, (t, _, amount) in enumerate(ordered, start=1):
        total += amount
        rows.append((t, total, n))
    rows = [row for row in rows if row[0] > newest - grid.retain]
    cells, single = rows[: -grid.k], rows[-grid.k :]
    last = [
        row for i, row in enumerate(cells) if i + 1 == len(cells) or cell(row[0]) != cell(cells[i + 1][0])
    ]
    return [*last, *((t, total, None) for t, total, _ in single)]


@histories.many()
@given(BUSY, st.sampled_from([1, 2, 4, 16]), st.sampled_from([1, 20, 400]))
def test_a_busy_curve_is_thinned_as_defined_and_its_windows_are_a_little_longer_at_most(
    steps: list[tuple[int, bool, int]], k: int, divide: int
) -> None:
    """Past K events the rows are the last of each cell, and each window is the exact one of a length in [w, w + w/30)."""
    histories.TRIED["past K a window is longer by less than a thirtieth"] += 1
    windows = (HOUR, DAY, 7 * DAY)
    features = tuple(
        FeatureSpec(f"{aggregate}_{window}", "a", aggregate, of=of, window_ms=window)
        for window in windows
        for aggregate, of in (("Count", None), ("Sum", "amount"), ("Min", "amount"), ("Max", "amount"))
    )
    filtered = tuple(
        FeatureSpec(f"odd_{aggregate}_{window}", "a", aggregate, of=of, window_ms=window, where=("odd", True))
        for window in windows
        for aggregate, of in (("Count", None), ("Sum", "amount"))
    )
    fields = (("odd", "boolean"),)
    engine = FeatureSet(FeatureSetSpec("none", (EntitySpec("a"),), (*features, *filtered), fields, k=k))
    (stage,) = engine.stages
    live = stage.open(None)
    taken: list[tuple[int, int, int]] = []
    now = START
    for n, (gap, late, amount) in enumerate(steps):
        time = now - gap // divide if late else now + gap // divide
        event = {
            "id": str(n),
            "time": time,
            "amount": amount,
            "fields": {"odd": amount % 2 == 1},
            "entities": {"a": "x"},
        }
        old = late and time <= now - stage.grid.retain
        now = max(now, time)
        vector = engine.vector(event, {"a": live.observe(event)})
        if old:
            assert vector[0] == 1
            continue
        taken.append((time, hash64(str(n)) & 0xFFFFFFFF, amount))
        rows, curve = definition_of_rows(live, taken), live.curves[0]
        assert list(zip(curve.ts, curve.sums[0], strict=True)) == [row[:2] for row in rows]
        assert list(curve.counts) == [count for _, _, count in rows if count is not None]
        if time < now:
            continue
        for i, window in enumerate(windows):
            got = tuple(vector[4 * i : 4 * i + 4])
            cuts = [t for t, _, _ in taken if now - window - window // 30 < t <= now - window]
            allowed = set()
            for cut in [now - window, *(t - 1 for t in cuts)]:
                inside = [x for t, _, x in taken if cut < t]
                allowed.add((len(inside), sum(inside), min(inside), max(inside)))
            assert got in allowed
            got = tuple(vector[12 + 2 * i : 14 + 2 * i])
            odd = [(t, x) for t, _, x in taken if x % 2]
            inside_of = ([x for t, x in odd if cut < t] for cut in [now - window, *(t - 1 for t in cuts)])
            assert got in {(len(inside), sum(inside)) for inside in inside_of}


def test_as_many_histories_were_tried_as_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """The number is printed; a generator that gave up early would show here."""
    histories.show(capsys, **{"past K a window is longer by less than a thirtieth": 1})
