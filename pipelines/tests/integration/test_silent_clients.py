"""Clients that have fallen silent are noticed, against a real broker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka import Producer, TopicPartition

from fraud_process.group_offsets import committed_offsets
from fraud_process.silent_clients import QUIET_SECONDS, ConsumerWatch, is_forsaken
from fraud_testing import kafka
from fraud_testing.required import require

pytestmark = pytest.mark.integration
PLACES = [("t", 0), ("t", 1)]


@pytest.fixture(scope="module")
def broker() -> Iterator[kafka.Broker]:
    require(kafka.missing())
    with kafka.broker() as broker:
        broker.create(["t"], partitions=2)
        committed_offsets(
            {"bootstrap.servers": broker.bootstrap}, "any", PLACES, 30
        )  # its coordinator is there
        yield broker


class Watched:
    """A group whose consumer is silent, and a clock that goes on by one look."""

    def __init__(self, broker: kafka.Broker, group: str, bootstrap: str | None = None) -> None:
        self.broker, self.group, self.now = broker, group, 0.0
        settings = {"bootstrap.servers": bootstrap or broker.bootstrap}
        self.watch = ConsumerWatch(lambda: settings, group, lambda: self.now)

    def look(self) -> str:
        self.now += QUIET_SECONDS
        return self.watch.waiting(PLACES)

    def commit(self) -> None:
        """All that is there."""
        consumer = self.broker.consumer(self.group)
        ends = [
            TopicPartition(*place, consumer.get_watermark_offsets(TopicPartition(*place))[1])
            for place in PLACES
        ]
        consumer.commit(offsets=ends, asynchronous=False)
        consumer.close()


def test_a_record_that_waits_for_two_looks_is_told(broker: kafka.Broker) -> None:
    """The first look may come just before the consumer gets it."""
    watched = Watched(broker, "deaf")
    watched.commit()
    broker.produce("t", [(b"k", b"v")])
    assert watched.watch.waiting(PLACES) == "", "nothing is asked before the time"
    assert watched.look() == ""
    assert watched.look().startswith("t [")


def test_who_goes_on_between_two_looks_is_well(broker: kafka.Broker) -> None:
    """Also where another record waits by then."""
    watched = Watched(broker, "slow")
    watched.commit()
    broker.produce("t", [(b"k", b"v")])
    assert watched.look() == ""
    watched.commit()
    broker.produce("t", [(b"k", b"v")])
    assert watched.look() == ""
    watched.watch.heard()
    assert watched.look() == ""


def test_an_end_without_records_is_nothing_to_wait_for(broker: kafka.Broker) -> None:
    """What ends a transaction has an offset, and no reader gets it."""
    watched = Watched(broker, "ends")
    watched.commit()
    producer = broker.producer(transactional_id="x")
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce("t", b"aborted", partition=0)
    producer.flush(30)
    producer.abort_transaction(30)
    assert [watched.look() for _ in range(3)] == ["", "", ""]


def test_a_kafka_that_is_away_is_nobodys_deafness(broker: kafka.Broker) -> None:
    """A new process would wait as well."""
    watched = Watched(broker, "away", f"127.0.0.1:{kafka.free_port()}")
    assert [watched.look() for _ in range(2)] == ["", ""]


def test_a_producer_is_forsaken_where_others_are_answered(broker: kafka.Broker) -> None:
    """While nobody is, it is Kafka that is away."""
    away = {"bootstrap.servers": f"127.0.0.1:{kafka.free_port()}"}
    here = {"bootstrap.servers": broker.bootstrap}
    assert is_forsaken(Producer(away), here)
    assert not is_forsaken(Producer(away), away)
    assert not is_forsaken(Producer(here), here)
