"""What a worker keeps of its records when partitions come and go."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, TopicPartition

from fraud_serving.worker import intake
from fraud_serving.worker.client_errors import FatalError

T = "tests.cards.features.v1"


class FakeConsumer:
    """Gives what ``records`` holds, and calls what ``rebalances`` holds first, as librdkafka does."""

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.rebalances: list[Any] = []
        self.generation = 0

    def subscribe(self, *_: Any, **callbacks: Any) -> None:
        self.callbacks = callbacks

    def consume(self, count: int, _: float) -> list[Any]:
        for call, *partitions in self.rebalances:
            self.generation += 1
            self.callbacks[call](self, [TopicPartition(T, one) for one in partitions])
        self.rebalances = []
        some, self.records = self.records[:count], self.records[count:]
        return some

    def incremental_assign(self, _: Any) -> None: ...

    def incremental_unassign(self, _: Any) -> None: ...

    def consumer_group_metadata(self) -> int:
        return self.generation


def record(partition: int, offset: int, error: KafkaError | None = None) -> Any:
    return SimpleNamespace(error=lambda: error, partition=lambda: partition, offset=lambda: offset)


@pytest.fixture
def consumer(monkeypatch: pytest.MonkeyPatch) -> FakeConsumer:
    fake = FakeConsumer()
    monkeypatch.setattr(intake, "Consumer", lambda _: fake)
    return fake


def places(batch: list[Any]) -> list[tuple[int, int]]:
    return [(message.partition(), message.offset()) for message in batch]


def test_what_was_not_committed_comes_again_before_what_follows(consumer: FakeConsumer) -> None:
    """Only once the group has told what is ours, and under the membership that it told."""
    one = intake.Intake({}, T)
    consumer.rebalances = [("on_assign", 0, 1)]
    consumer.records = [record(0, 5), record(1, 7)]
    batch = one.take()
    assert (places(batch), one.token) == ([(0, 5), (1, 7)], 1)
    one.put_back(batch)
    consumer.records = [record(0, 6)]
    assert one.take() == []
    consumer.rebalances = [("on_assign",)]
    assert (places(one.take()), one.token) == ([(0, 5), (1, 7), (0, 6)], 2)


def test_what_is_held_of_a_partition_that_goes_is_dropped(consumer: FakeConsumer) -> None:
    """Its next worker reads it; what stays ours is taken."""
    one = intake.Intake({}, T)
    consumer.rebalances = [("on_assign", 0, 1)]
    consumer.records = [record(0, 5), record(1, 7)]
    one.put_back(one.take())
    consumer.rebalances = [("on_revoke", 1), ("on_assign",)]
    assert places(one.take()) == [(0, 5)]
    assert one.changes() == ({1}, {0})
    assert one.changes() == (set(), set())


def test_a_partition_that_goes_and_comes_back_is_both(consumer: FakeConsumer) -> None:
    """Another one may have published beside it meanwhile."""
    one = intake.Intake({}, T)
    consumer.rebalances = [("on_assign", 0)]
    one.take()
    one.changes()
    consumer.rebalances = [("on_revoke", 0), ("on_assign", 0)]
    one.take()
    assert one.changes() == ({0}, {0})


def test_nothing_is_taken_after_the_group_took_us_for_dead(consumer: FakeConsumer) -> None:
    """Until it has told a new membership."""
    one = intake.Intake({}, T)
    consumer.rebalances = [("on_assign", 0)]
    consumer.records = [record(0, 5)]
    one.put_back(one.take())
    consumer.rebalances = [("on_lost", 0)]
    assert (one.take(), one.assigned, one.token) == ([], set(), None)


def test_a_consumer_past_use_ends_the_process(consumer: FakeConsumer) -> None:
    """Its error comes as a message."""
    one = intake.Intake({}, T)
    consumer.records = [record(0, 0, KafkaError(KafkaError._FATAL))]
    with pytest.raises(FatalError):
        one.take()
