"""Whether a reader may yet get a record, against a real broker with transactions in every state."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from fraud_process.unread_records import may_hold_record
from fraud_testing import kafka

pytestmark = pytest.mark.integration


class Log:
    """One partition; ``end`` is the offset after the last one that it holds, whatever is in between."""

    def __init__(self, broker: kafka.Broker, topic: str) -> None:
        self.broker, self.topic = broker, topic
        broker.create([topic])

    @property
    def end(self) -> int:
        reader = self.broker.consumer("reader", committed=False)
        try:
            return int(reader.get_watermark_offsets(TopicPartition(self.topic, 0), 30)[1])
        finally:
            reader.close()

    def transaction(self, name: str) -> Producer:
        """Begun, with one record in the topic."""
        producer = self.broker.producer(transactional_id=f"{self.topic}-{name}")
        producer.init_transactions(30)
        producer.begin_transaction()
        producer.produce(self.topic, b"v", b"k", partition=0)
        producer.flush(30)
        return producer

    def may_hold(self, begin: int, end: int) -> bool:
        settings = {"bootstrap.servers": self.broker.bootstrap}
        return may_hold_record(settings, "asks", (self.topic, 0), begin, end, 30)


@pytest.fixture
def log(broker: kafka.Broker, request: pytest.FixtureRequest) -> Log:
    return Log(broker, "".join(letter for letter in request.node.name if letter.isalnum()))


def test_a_record_before_the_end_is_one(log: Log) -> None:
    """Those from the end on aren't asked for."""
    log.broker.produce(log.topic, [(b"k", b"v")] * 3, partition=0)
    assert [log.may_hold(begin, 3) for begin in (0, 2, 3)] == [True, True, False]
    assert not log.may_hold(2, 2)


def test_ends_of_transactions_and_what_was_aborted_are_no_records(log: Log) -> None:
    """No reader gets any of it, so nobody commits it."""
    log.transaction("one").commit_transaction(30)
    log.transaction("two").abort_transaction(30)
    assert log.end == 4
    assert [log.may_hold(begin, 4) for begin in (0, 1, 2, 3)] == [True, False, False, False]


@pytest.mark.parametrize("ends", ["commit_transaction", "abort_transaction"])
def test_an_open_transaction_may_hold_one_until_it_ends(log: Log, ends: str) -> None:
    """Its end says whether its records are ones."""
    open_one = log.transaction("open")
    assert (log.end, log.may_hold(0, 1)) == (1, True)
    getattr(open_one, ends)(30)
    assert log.may_hold(0, 1) == (ends == "commit_transaction")


def test_an_open_transaction_hides_what_was_committed_behind_it(log: Log) -> None:
    """Another producer's record is there for good, and no reader sees it yet."""
    hiding = log.transaction("hiding")
    log.transaction("behind").commit_transaction(30)
    assert log.end == 3
    assert log.may_hold(0, 3)
    hiding.abort_transaction(30)
    assert [log.may_hold(begin, 3) for begin in (0, 1, 2)] == [True, True, False]


def test_a_transaction_that_began_at_the_end_hides_nothing_before_it(log: Log) -> None:
    """A busy topic has one open at any time."""
    log.transaction("one").commit_transaction(30)
    later = log.transaction("later")
    assert not log.may_hold(1, 2)
    later.abort_transaction(30)


def test_what_has_left_the_topic_is_no_record(log: Log) -> None:
    """Whoever is still there goes on at the first one that is kept."""
    log.broker.produce(log.topic, [(b"k", b"v")] * 4, partition=0)
    place = TopicPartition(log.topic, 0, 3)
    admin = AdminClient({"bootstrap.servers": log.broker.bootstrap})
    admin.delete_records([place])[place].result(30)
    assert [log.may_hold(1, end) for end in (3, 4)] == [False, True]


def test_a_broker_that_is_away_is_told() -> None:
    """Within the time that it was given."""
    settings = {"bootstrap.servers": f"127.0.0.1:{kafka.free_port()}"}
    with pytest.raises(KafkaException):
        may_hold_record(settings, "asks", ("t", 0), 0, 1, 1)
