"""Windows of partitions, and what was pending, are found by their sum; nothing else is taken for them."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fraud_pipelines.event_rows import EventRows, Origin

_MASK = (1 << 64) - 1
HASHES = st.lists(st.integers(1, _MASK), min_size=1, max_size=24, unique=True)


def rows_of(hashes: list[int], partitions: int) -> tuple[EventRows, list[list[int]]]:
    """Events a second apart, dealt out to the partitions of one topic."""
    origins = {
        key: Origin("accepted", number % partitions, number * 1000, number)
        for number, key in enumerate(hashes)
    }
    rows = EventRows(origins, {key: number * 1000 for number, key in enumerate(hashes)})
    return rows, [hashes[partition::partitions] for partition in range(partitions)]


@given(HASHES, st.integers(1, 4), st.data())
@settings(max_examples=60, deadline=None)
def test_what_a_job_took_from_the_beginning_of_each_partition_is_found(
    hashes: list[int], partitions: int, data: st.DataObject
) -> None:
    rows, dealt = rows_of(hashes, partitions)
    taken = [key for row in dealt for key in row[: data.draw(st.integers(0, len(row)))]]
    found = rows.windows(sum(taken) & _MASK, len(taken), -1, 0, None)
    assert found is not None
    assert set(found) == set(taken)


@given(HASHES, st.data())
@settings(max_examples=60, deadline=None)
def test_what_was_pending_at_the_inline_door_is_found_beside_it(
    hashes: list[int], data: st.DataObject
) -> None:
    """The newest before the event that looked, with what lies between left out."""
    rows, dealt = rows_of(hashes, 2)
    seen = data.draw(st.integers(0, len(hashes) - 1))
    pending = hashes[data.draw(st.integers(0, seen)) : seen]
    before = [key for row in dealt for key in row[: data.draw(st.integers(0, len(row)))]]
    assume(not {*before} & {*pending, hashes[seen]})
    taken = before + pending
    found = rows.windows(sum(taken) & _MASK, len(taken), -1, 0, hashes[seen])
    assert found is not None
    assert set(found) == set(taken)


def test_a_sum_that_no_windows_have_is_not_found() -> None:
    rows, _ = rows_of([11, 22, 33, 44], 2)
    assert rows.windows(11 + 44, 2, -1, 0, None) is None
    assert rows.windows(11 + 22, 3, -1, 0, None) is None


def test_records_of_a_topic_made_anew_are_a_row_of_their_own() -> None:
    """A job that begins with the new topic has none of the old one's."""
    origins = {
        5: Origin("transactions", 0, 1, 0),
        6: Origin("transactions", 0, 2, 1),
        7: Origin("transactions", 0, 9, 0),
        8: Origin("transactions", 0, 10, 1),
    }
    rows = EventRows(origins, {key: key for key in origins})
    assert rows.windows(7 + 8, 2, -1, 0, None) == [7, 8]
    assert sorted(rows.windows(5 + 7, 2, -1, 0, None) or ()) == [5, 7]


def test_a_window_may_begin_after_what_the_other_state_has() -> None:
    """By the time of its newest event, or some before it where the partitions weren't read alike."""
    rows, _ = rows_of([1, 2, 4, 8, 16, 32], 1)
    assert rows.windows(8 + 16, 2, 2_000, 0, None) == [8, 16]
    assert rows.windows(4 + 8 + 16, 3, 3_000, 0, None) is None
    assert rows.windows(4 + 8 + 16, 3, 3_000, 2, None) == [4, 8, 16]
