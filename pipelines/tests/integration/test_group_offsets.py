"""A group's offsets, asked from outside of it, against a real broker."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaException, TopicPartition

from fraud_process.group_offsets import committed_offsets
from fraud_testing import kafka
from fraud_testing.required import require

pytestmark = pytest.mark.integration


def test_a_broker_that_has_just_come_up_answers_a_moment_later() -> None:
    """Its coordinators are yet to be found: whoever asks waits, and doesn't end, as an admin client would."""
    require(kafka.missing())
    with kafka.broker() as broker:
        broker.create(["t"], partitions=2)
        settings = {"bootstrap.servers": broker.bootstrap}
        places = [("t", 0), ("t", 1)]
        assert committed_offsets(settings, "g", places, 30) == {}
        consumer = broker.consumer("g")
        consumer.commit(offsets=[TopicPartition("t", 1, 7)], asynchronous=False)
        consumer.close()
        assert committed_offsets(settings, "g", places, 30) == {("t", 1): 7}


def test_a_broker_that_is_away_is_told() -> None:
    """Within the time that it was given."""
    settings = {"bootstrap.servers": f"127.0.0.1:{kafka.free_port()}"}
    with pytest.raises(KafkaException):
        committed_offsets(settings, "g", [("t", 0)], 1)
