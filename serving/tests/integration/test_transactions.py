"""What the worker's transactions do about a batch whose markers the broker lost, against a real broker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaError

from fraud_contracts.names import Identity
from fraud_serving.worker.batch import Outgoing
from fraud_serving.worker.transactions import Transactions
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
    client = Transactions(lambda: {"bootstrap.servers": broker.bootstrap}, OF, 0, 2, lambda: None)
    client.start()
    group = broker.consumer(OF.group("worker")).consumer_group_metadata()
    visible = Outgoing("decisions", 0, b"k", b"visible")
    client.publish([visible], [], group)
    # As if the markers of a second one had been lost: readers never get it.
    client._last = [
        visible,
        Outgoing("decisions", 1, b"k", b"lost"),
        Outgoing("dead-letters", None, b"k", b"letter"),
    ]
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
    client = Transactions(lambda: {"bootstrap.servers": broker.bootstrap}, OF, 1, 2, lambda: None)
    client.start()
    group = broker.consumer(OF.group("worker")).consumer_group_metadata()
    placed, again = Outgoing("decisions", 0, b"k", b"placed"), Outgoing("decisions", 1, b"k", b"again")
    client.publish([placed], [], group)
    again.offset = 0
    client._last = [placed, again]
    client._lose(KafkaError(KafkaError._TRANSPORT))
    client.idle(group)
    lies = {m.value(): m.offset() for m in broker.read(OF.topic("decisions"), committed=True)}
    assert (placed.offset, again.offset) == (lies[b"placed"], lies[b"again"])
    assert len(client.topic_id(OF.topic("decisions"))) == 22
