"""What the worker's transactions do about a batch whose markers the broker lost, against a real broker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

from fraud_contracts.names import Identity
from fraud_process.topic_ids import topic_id
from fraud_serving.worker.batch import Outgoing
from fraud_serving.worker.client_errors import StaleMembershipError
from fraud_serving.worker.transactions import Transactions, _Batch
from fraud_testing import kafka
from fraud_testing.required import require

pytestmark = pytest.mark.integration
OF = Identity("tests", "cards")


@pytest.fixture(scope="module")
def broker() -> Iterator[kafka.Broker]:
    require(kafka.missing())
    with kafka.broker() as running:
        running.create_detector_topics(str(OF), 2)
        yield running


def test_after_a_lost_connection_what_readers_lack_is_sent_again_once(broker: kafka.Broker) -> None:
    """Also of a batch that was reported as committed, and while nothing is new; what they have isn't."""
    client = Transactions(lambda: {"bootstrap.servers": broker.bootstrap}, OF, 2, lambda: None)
    client.hold({0, 1}, {0, 1})
    group = broker.consumer(OF.group("worker")).consumer_group_metadata()
    visible = Outgoing("decisions", 0, b"k", b"visible")
    client.publish([visible], [], group)
    # As if the markers of a second one had been lost: readers never get it.
    client._last = _Batch(
        [
            visible,
            Outgoing("decisions", 1, b"k", b"lost"),
            Outgoing("dead-letters", None, b"k", b"letter"),
        ],
        [],
    )
    client.idle(group)
    assert [m.value() for m in broker.read(OF.topic("decisions"), committed=True)] == [b"visible"]
    for _ in range(2):
        client._lose(KafkaError(KafkaError._TRANSPORT))
        client.idle(group)
        values = [m.value() for m in broker.read(OF.topic("decisions"), committed=True)]
        assert sorted(values) == [b"lost", b"visible"]
        assert [m.value() for m in broker.read(OF.topic("dead-letters"), committed=True)] == [b"letter"]


def test_a_record_knows_where_it_lies(broker: kafka.Broker) -> None:
    """As the broker told it; one that is sent again has its new place, and the topic its id."""
    client = Transactions(lambda: {"bootstrap.servers": broker.bootstrap}, OF, 2, lambda: None)
    client.hold({0, 1}, {0, 1})
    group = broker.consumer(OF.group("worker")).consumer_group_metadata()
    placed, again = Outgoing("decisions", 0, b"k", b"placed"), Outgoing("decisions", 1, b"k", b"again")
    client.publish([placed], [], group)
    again.offset = 0
    client._last = _Batch([placed, again], [])
    client._lose(KafkaError(KafkaError._TRANSPORT))
    client.idle(group)
    lies = {m.value(): m.offset() for m in broker.read(OF.topic("decisions"), committed=True)}
    assert (placed.offset, again.offset) == (lies[b"placed"], lies[b"again"])
    assert len(topic_id({"bootstrap.servers": broker.bootstrap}, OF.topic("decisions"), 10)) == 22


def test_a_worker_that_gets_a_partition_ends_what_was_left_open(broker: kafka.Broker) -> None:
    """Under any partition's id: committed readers, and the group's offsets, don't wait for the dead one's timeout."""
    dead = broker.producer(transactional_id=OF.transactional_id(1), transaction_timeout_ms=60_000)
    dead.init_transactions(30)
    dead.begin_transaction()
    dead.produce(OF.topic("decisions"), b"left open", partition=0)
    member = broker.consumer(OF.group("worker"))
    place = TopicPartition(OF.topic("features"), 1, 7)
    dead.send_offsets_to_transaction([place], member.consumer_group_metadata(), 30)
    assert dead.flush(30) == 0
    client = Transactions(lambda: {"bootstrap.servers": broker.bootstrap}, OF, 2, lambda: None)
    client.hold({0, 1}, {0, 1})
    ends = client.publish([Outgoing("decisions", 0, b"k", b"after")], [], member.consumer_group_metadata())
    place = TopicPartition(OF.topic("decisions"), 0)
    reader = broker.consumer("ends", isolation_level="read_committed")
    assert reader.get_watermark_offsets(place, 10) == client.visible.ends(place)
    reader.close()
    values = [message.value() for message in broker.read(OF.topic("decisions"), committed=True)]
    assert b"after" in values and b"left open" not in values
    [last] = [m for m in broker.read(OF.topic("decisions"), committed=True) if m.value() == b"after"]
    assert ends == {0: (last.offset() or 0) + 1}


def test_who_is_no_member_any_more_commits_nothing(broker: kafka.Broker) -> None:
    """Its transaction is refused, its records are seen by no committed reader, and its producer goes on."""
    topic = OF.topic("features")
    settings = {"partition_assignment_strategy": "cooperative-sticky", "session_timeout_ms": 6_000}
    tokens: list[object] = []

    def assign(consumer: Consumer, places: list[TopicPartition]) -> None:
        consumer.incremental_assign(places)
        tokens.append(consumer.consumer_group_metadata())

    members = [broker.consumer(OF.group("worker"), **settings) for _ in range(2)]
    client = Transactions(lambda: {"bootstrap.servers": broker.bootstrap}, OF, 2, lambda: None)
    client.hold({0, 1}, {0, 1})
    try:
        members[0].subscribe([topic], on_assign=assign)
        kafka.wait_for(lambda: members[0].poll(0.1) or tokens, 30, "a membership")
        members[1].subscribe([topic])

        def moved_on() -> bool:
            members[1].poll(0.1)
            members[0].poll(0.1)
            return len(tokens) > 1

        kafka.wait_for(moved_on, 30, "the next one")
        places = [TopicPartition(topic, 0, 5)]
        with pytest.raises(StaleMembershipError):
            client.publish([Outgoing("decisions", 0, b"k", b"stale")], places, tokens[0])
    finally:
        for member in members:
            member.close()
    assert broker.committed(OF.group("worker"), topic)[0] != 5
    assert b"stale" not in [m.value() for m in broker.read(OF.topic("decisions"), committed=True)]
    client.publish([Outgoing("decisions", 0, b"k", b"goes on")], [], tokens[-1])
    assert b"goes on" in [m.value() for m in broker.read(OF.topic("decisions"), committed=True)]
