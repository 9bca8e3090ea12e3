"""Lags as a real broker tells them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition

from fraud_contracts.errors import StoreError
from fraud_operator.kafka_target import KafkaTarget
from fraud_operator.lags import LagReader
from fraud_testing import kafka
from fraud_testing.kafka import Broker
from fraud_testing.required import require

pytestmark = pytest.mark.integration
TOPIC, PARTITIONS, RECORDS, TAKEN = "n.d.seeds.v1", 2, 5, 2


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    require(kafka.missing())
    with kafka.broker() as running:
        running.create([TOPIC], PARTITIONS)
        for partition in range(PARTITIONS):
            records = [(str(number), "seed") for number in range(RECORDS)]
            running.produce(TOPIC, records, partition)
        consumer = running.consumer("reader")
        try:
            consumer.commit(offsets=[TopicPartition(TOPIC, 1, TAKEN)], asynchronous=False)
        finally:
            consumer.close()
        yield running


def test_a_group_is_behind_by_what_it_has_not_committed(broker: Broker) -> None:
    """A partition where it has committed nothing counts whole; so does a topic for a group that never was."""
    reader = LagReader()
    written = PARTITIONS * RECORDS
    lag = reader.read(("n", "d"), KafkaTarget(broker.bootstrap), "reader", TOPIC, PARTITIONS)
    assert lag == (written - TAKEN, written)
    assert reader.read(("n", "d"), KafkaTarget(broker.bootstrap), "nobody", TOPIC, PARTITIONS) == (
        written,
        written,
    )
    reader.done(("n", "d"))


def test_eighty_detectors_share_one_client(broker: Broker) -> None:
    """The threads of a client are there once, and gone with the last reader."""
    reader, before = LagReader(), threads()
    detectors = [("n", f"d{number}") for number in range(80)]
    for detector in detectors:
        reader.read(detector, KafkaTarget(broker.bootstrap), f"{detector[1]}.sink", TOPIC, PARTITIONS)
    assert reader.connected == {broker.bootstrap}
    assert threads() - before < 12
    for detector in detectors[1:]:
        reader.done(detector)
    assert reader.connected == {broker.bootstrap}
    reader.done(detectors[0])
    assert reader.connected == frozenset()
    kafka.wait_for(lambda: threads() <= before, 20, "the client's threads end")


def test_a_topic_that_is_not_there_is_an_error(broker: Broker) -> None:
    """The message names the topic, the group and the address."""
    reader = LagReader()
    with pytest.raises(StoreError, match=r"n\.d\.none.*reader"):
        reader.read(("n", "d"), KafkaTarget(broker.bootstrap), "reader", "n.d.none", PARTITIONS)


def test_a_broker_that_is_not_there_is_an_error() -> None:
    """Within seconds, and not for ever."""
    reader, nowhere = LagReader(), f"127.0.0.1:{kafka.free_port()}"
    with pytest.raises(StoreError, match=nowhere):
        reader.read(("n", "d"), KafkaTarget(nowhere), "reader", TOPIC, PARTITIONS)


def threads() -> int:
    """Of the process, the client library's own included."""
    return len(list(Path("/proc/self/task").iterdir()))
