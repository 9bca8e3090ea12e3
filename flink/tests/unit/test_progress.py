"""How far the sources are: told once a tick, by the slowest way, to the subtask and the partition that it is meant for."""

from __future__ import annotations

import pytest

from fraud_contracts.stream_progress import is_progress, read_progress
from fraud_flink.elements import ProgressElement, entity_key, unpack
from fraud_flink.progress import (
    ProgressRecords,
    SourceOffsets,
    SubtaskProgress,
    copies,
    partition_of,
)


def told(origin: str, sender: int, subtask: int = 0, **offsets: int) -> ProgressElement:
    return ProgressElement(origin, sender, subtask, "p0", {noun: {0: at} for noun, at in offsets.items()})


def test_intake_tells_what_it_has_read_of_the_inputs() -> None:
    offsets = SourceOffsets({})
    for noun, partition, offset in (
        ("accepted", 1, 7),
        ("accepted", 1, 8),
        ("seeds", 0, 3),
        ("labels", 0, 1),
    ):
        offsets.read(noun, partition, offset)
    assert offsets.positions() == {"accepted": {1: 9}}


def test_what_the_seeds_hold_counts_as_read() -> None:
    assert SourceOffsets({"transactions": {0: 70}, "labels": {0: 2}}).positions() == {"transactions": {0: 70}}


def test_a_stage_says_nothing_before_all_have_told() -> None:
    progress = SubtaskProgress(2)
    assert progress.hear(told("a", 0, accepted=5)) is None
    assert progress.hear(told("a", 0, accepted=6)) == {}
    assert progress.hear(told("b", 1, accepted=4)) is None
    assert progress.hear(told("b", 1, accepted=5)) == {"accepted": {0: 5}}


def test_a_stage_says_once_a_tick_what_the_slowest_told() -> None:
    progress = SubtaskProgress(2)
    said = []
    for tick in range(1, 5):
        said += [
            progress.hear(told(name, sender, accepted=10 * tick + sender))
            for sender, name in ((0, "a"), (1, "b"))
        ]
    assert [one for one in said if one is not None] == [
        {"accepted": {0: 11}},
        {"accepted": {0: 21}},
        {"accepted": {0: 31}},
    ]


def test_each_subtask_of_intake_tells_of_partitions_of_its_own() -> None:
    progress = SubtaskProgress(1)
    for _ in range(2):
        progress.hear(ProgressElement("a", 0, 0, "p0", {"accepted": {0: 5}}))
        said = progress.hear(ProgressElement("b", 0, 0, "p0", {"accepted": {1: 9}}))
    assert said is None
    assert progress.hear(ProgressElement("a", 0, 0, "p0", {"accepted": {0: 6}})) == {"accepted": {0: 6, 1: 9}}


def test_two_subtasks_in_one_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    progress = SubtaskProgress(1)
    for _ in range(3):
        progress.hear(told("a", 0, 0, accepted=5))
        assert progress.hear(told("a", 0, 1, accepted=5)) is None
    assert "no progress is told" in caplog.text


def test_a_copy_goes_by_the_key_of_its_subtask_through_its_packed_form() -> None:
    sent = [unpack(one.packed()) for one in copies("a", 0, ("p7", "p0", "p3"), {"accepted": {0: 1}})]
    assert [entity_key(one, "customer") for one in sent] == ["p7", "p0", "p3"]
    assert [one.subtask for one in sent if isinstance(one, ProgressElement)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("key", "code"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"abc", 479470107),
    ],
)
def test_partitions_are_those_of_kafkas_clients(key: bytes, code: int) -> None:
    """The codes are those of Kafka's own test of murmur2."""
    assert partition_of(key, 1 << 31) == code & 0x7FFFFFFF


@pytest.mark.parametrize("partitions", range(1, 25))
def test_each_partition_gets_one_record(partitions: int) -> None:
    stage, parallelism = partitions % 4, 1 + partitions % 8
    records = ProgressRecords("abcdef", 3, (stage, 4), (0, parallelism), partitions, 7)
    rows = list(records.rows({"accepted": {2: 8}}))
    assert [partition_of(key, partitions) for key, _ in rows] == list(range(partitions))
    hash6, read = read_progress(*rows[0])
    assert is_progress(rows[0][1])
    assert (hash6, read.epoch, read.stage, read.parallelism) == ("abcdef", 3, stage, parallelism)
    assert (read.applied, read.reach) == ({"accepted": {2: 8}}, 7)
