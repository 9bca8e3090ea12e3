"""A sink's loop on a real broker while its store is away: it keeps its place in the group, and no record is lost or written twice."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from fraud_contracts.errors import StoreError
from fraud_process.kafka import KafkaAccess
from fraud_sinks import loop as loops
from fraud_sinks.loop import Loop, Reading
from fraud_sinks.meters import Meters
from fraud_sinks.records import Place, Record
from fraud_testing import sinks
from fraud_testing.kafka import Broker, wait_for

pytestmark = pytest.mark.integration
# For so long a consumer may go without a poll before it is taken for dead.
DEAD_SECONDS = 7.0


class Store:
    """Rows in memory, and how far each partition was read; it answers nothing while it is ``away``."""

    def __init__(self) -> None:
        self.away = False
        self.rows: Counter[str] = Counter()
        self.following: dict[Place, int] = {}

    def start(self, places: Sequence[Place]) -> Mapping[Place, int]:
        self._answer()
        return {place: self.following.get(place, 0) for place in places}

    def write(self, records: Sequence[Record]) -> int:
        self._answer()
        for record in records:
            self.rows[(record.value or b"").decode()] += 1
            self.following[record.place] = record.offset + 1
        return len(records)

    def caught_up(self, place: Place, following: int) -> None:
        self._answer()

    def tick(self) -> None: ...

    def _answer(self) -> None:
        if self.away:
            raise StoreError("lake", "away")

    def close(self) -> None: ...


class Group:
    """Sinks of one store that read a topic of two partitions together."""

    def __init__(self, broker: Broker, name: str) -> None:
        self.broker, self.topic, self.store = broker, f"{name}.v1", Store()
        self.lost: list[TopicPartition] = []
        self.sent: list[str] = []
        broker.create([self.topic], 2)

    def send(self, count: int = 40) -> None:
        values = [f"{len(self.sent) + n}" for n in range(count)]
        self.sent += values
        self.broker.produce(self.topic, [(value, value) for value in values])

    def complete(self) -> bool:
        return self.store.rows.keys() >= set(self.sent)

    @contextmanager
    def member(self) -> Iterator[Loop]:
        reading = Reading(KafkaAccess(self.broker.bootstrap), (self.topic,), f"{self.topic}.group", tick=0.5)
        loop = Loop(reading, self.store, Meters("d", "lake"))
        with sinks.running(loop, 60):
            yield loop


@pytest.fixture
def group(broker: Broker, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Group:
    made = Group(broker, request.node.name)
    forget = Loop._on_lost

    def lost(self: Loop, consumer: Any, partitions: list[TopicPartition]) -> None:
        made.lost += partitions
        forget(self, consumer, partitions)

    monkeypatch.setattr(loops, "DEAD_SECONDS", DEAD_SECONDS)
    monkeypatch.setattr(Loop, "_on_lost", lost)
    return made


def outlast() -> None:
    """Longer than a consumer may go without a poll."""
    gone = time.monotonic()
    wait_for(lambda: time.monotonic() - gone > 1.5 * DEAD_SECONDS, 30, "the end of the outage")


def test_a_sink_keeps_its_partitions_while_its_store_is_away(group: Group) -> None:
    """What came meanwhile is written once when the store is back, by the member that had a batch in hand."""
    group.send()
    with group.member() as loop:
        wait_for(loop.ready, 30, "the first records")
        group.store.away = True
        group.send()
        outlast()
        assert loop.alive() and not group.complete()
        group.store.away = False
        wait_for(group.complete, 30, "all records")
    assert group.lost == [] and set(group.store.rows.values()) == {1}


def test_a_sink_that_starts_while_its_store_is_away_waits_for_it(group: Group) -> None:
    """It is a member of its group all the time, and begins where the store says once that answers."""
    group.store.away = True
    group.send()
    with group.member() as loop:
        outlast()
        assert loop.alive() and not loop.ready()
        group.store.away = False
        wait_for(group.complete, 30, "all records")
    assert group.lost == [] and set(group.store.rows.values()) == {1}


def test_a_sink_gives_partitions_up_while_its_store_is_away(group: Group) -> None:
    """Another member joins during the outage: no rebalance waits for the store, and what was in hand is read by the next owner."""
    group.send()
    with group.member() as first:
        wait_for(first.ready, 30, "the first records")
        group.store.away = True
        group.send()
        wait_for(lambda: first._pending, 30, "a batch in hand")
        with group.member() as second:
            wait_for(lambda: second._starting, 30, "its part of the partitions")
            group.store.away = False
            group.send()
            wait_for(group.complete, 30, "all records")
            wait_for(second.ready, 30, "its part of the records")
    assert group.lost == [] and set(group.store.rows.values()) == {1}
