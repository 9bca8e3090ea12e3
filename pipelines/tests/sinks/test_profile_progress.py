"""What Redis is told of the stream's sources: what all subtasks have, and never less than before within a lineage."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_contracts.stream_progress import Applied, StreamProgress, read_progress
from fraud_sinks.profile_progress import PartitionProgress


def record(stage: int, subtask: int, offset: int, *, parallelism: int = 1, epoch: int = 1) -> StreamProgress:
    return StreamProgress(
        epoch=epoch,
        stage=stage,
        stages=2,
        subtask=subtask,
        parallelism=parallelism,
        applied={"accepted": {0: offset}},
    )


def offset_of(packed: bytes | None) -> int | None:
    return None if packed is None else Applied.model_validate_json(packed).applied["accepted"][0]


def test_nothing_is_told_before_all_subtasks_of_all_stages_were_read() -> None:
    progress = PartitionProgress(None)
    for stage, subtask in ((0, 0), (0, 1), (1, 1)):
        assert progress.read(record(stage, subtask, 9, parallelism=2)) is None
    assert offset_of(progress.read(record(1, 0, 7, parallelism=2))) == 7


def test_how_far_back_the_values_look_is_passed_on() -> None:
    progress = PartitionProgress(None)
    progress.read(record(0, 0, 5).model_copy(update={"reach": 9}))
    packed = progress.read(record(1, 0, 5).model_copy(update={"reach": 9}))
    assert packed is not None
    assert Applied.model_validate_json(packed).reach == 9


def test_the_slowest_subtask_counts() -> None:
    progress = PartitionProgress(None)
    progress.read(record(0, 0, 50))
    assert offset_of(progress.read(record(1, 0, 40))) == 40
    assert offset_of(progress.read(record(0, 0, 60))) == 40
    assert offset_of(progress.read(record(1, 0, 55))) == 55


def test_a_job_that_went_back_to_a_checkpoint_takes_nothing_back() -> None:
    progress = PartitionProgress(None)
    progress.read(record(0, 0, 50))
    progress.read(record(1, 0, 50))
    progress.read(record(0, 0, 20))
    assert offset_of(progress.read(record(1, 0, 20))) == 50


def test_a_new_lineage_begins_anew_and_an_older_one_says_nothing() -> None:
    progress = PartitionProgress(None)
    progress.read(record(0, 0, 50))
    progress.read(record(1, 0, 50))
    progress.read(record(0, 0, 5, epoch=2))
    packed = progress.read(record(1, 0, 5, epoch=2))
    assert packed is not None
    assert (Applied.model_validate_json(packed).epoch, offset_of(packed)) == (2, 5)
    assert progress.read(record(0, 0, 90)) is None


def test_what_redis_holds_is_gone_on_from() -> None:
    held = Applied(epoch=1, beat=8, applied={"accepted": {0: 50, 1: 7}})
    progress = PartitionProgress(held)
    progress.read(record(0, 0, 60))
    packed = progress.read(record(1, 0, 60))
    assert packed is not None
    told = Applied.model_validate_json(packed)
    assert (told.beat, told.applied) == (9, {"accepted": {0: 60, 1: 7}})


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(0, 99)), max_size=80))
def test_no_more_is_told_than_every_subtask_told_of(told: list[tuple[int, int, int]]) -> None:
    progress, most, last = PartitionProgress(None), dict[tuple[int, int], int](), 0
    for stage, subtask, offset in told:
        packed = progress.read(record(stage, subtask, offset, parallelism=3))
        most[stage, subtask] = max(offset, most.get((stage, subtask), 0))
        if packed is not None:
            said = Applied.model_validate_json(packed).applied["accepted"][0]
            assert len(most) == 6
            assert last <= said == min(most.values())
            last = said


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"abcdef:customer:t", b'{"epoch":1}'),
        (b"abcdef@applied:0:0/1:0", b"{"),
        (
            b"abcdef@applied:0:0/1:0",
            b'{"epoch":-1,"stage":0,"stages":1,"subtask":0,"parallelism":1,"applied":{}}',
        ),
    ],
)
def test_what_is_no_progress_is_refused(key: bytes, value: Any) -> None:
    with pytest.raises(ValueError, match="progress"):
        read_progress(key, value)
