"""When training may read the lake, against a real broker: all that the stream had read must be in it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from fraud_contracts.config import DetectorConfig
from fraud_ray.errors import TrainingError
from fraud_ray.stream_ends import PATIENCE, StreamEnds
from fraud_testing import detectors, kafka
from fraud_testing.required import require

pytestmark = pytest.mark.integration
NOW = 1_795_000_000_000


class Clock:
    """Each pause is a minute; ``at`` a pause something may happen."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits = 0

    def __call__(self) -> float:
        return self.now

    def sleep(self, _: float) -> None:
        self.now += 60.0
        self.waits += 1


@pytest.fixture(scope="module")
def broker() -> Iterator[kafka.Broker]:
    require(kafka.missing())
    with kafka.broker() as running:
        yield running


def detector(broker: kafka.Broker, name: str) -> DetectorConfig:
    config = detectors.detector(broker.bootstrap, name=name)
    broker.create_detector_topics(str(config.identity), config.kafka.partitions)
    return config


def commit(broker: kafka.Broker, group: str, topic: str, offset: int) -> None:
    consumer = broker.consumer(group)
    consumer.commit(offsets=[TopicPartition(topic, 0, offset)], asynchronous=False)
    consumer.close()


def publish(broker: kafka.Broker, topic: str, count: int) -> None:
    """As the worker does, in a transaction, whose end takes an offset too."""
    producer = broker.producer(transactional_id=f"publish-{topic}")
    producer.init_transactions(30)
    producer.begin_transaction()
    for _ in range(count):
        producer.produce(topic, b"v", b"k", partition=0)
    producer.commit_transaction(30)


def test_the_cut_is_what_the_stream_has_read_for_good(broker: kafka.Broker) -> None:
    """By its committed offsets; of a partition that holds nothing it commits none. The topics' ids and the age of what they hold tell others."""
    config = detector(broker, "cut")
    topic = config.identity.topic("accepted")
    broker.produce(topic, [(b"k", b"v")] * 9, partition=0)
    commit(broker, config.identity.features_group(config.stream), topic, 5)
    before = int(time.time() * 1000)
    cut = StreamEnds(config).cut(NOW)
    others = dict.fromkeys(range(config.kafka.partitions), 0)
    assert cut.starts_at == {"transactions": others, "accepted": {**others, 0: 5}, "labels": others}
    assert cut.topics.keys() == {"transactions", "accepted", "labels", "seeds"}
    assert len(set(cut.topics.values())) == 4
    assert before - 60_000 < cut.since["accepted"].pop(0) <= before
    assert {at for by in cut.since.values() for at in by.values()} == {NOW}


def test_what_has_left_a_topic_is_not_waited_for(broker: kafka.Broker) -> None:
    """Nobody can read it any more: the cut lies behind it, whether the stream had read it or not."""
    config = detector(broker, "expired")
    of = config.identity
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    for noun, kept_from in (("accepted", 9), ("transactions", 4)):
        broker.produce(of.topic(noun), [(b"k", b"v")] * 9, partition=0)
        place = TopicPartition(of.topic(noun), 0, kept_from)
        admin.delete_records([place])[place].result(30)
    commit(broker, of.features_group(config.stream), of.topic("transactions"), 2)
    cut = StreamEnds(config).cut(NOW)
    assert (cut.starts_at["accepted"][0], cut.starts_at["transactions"][0]) == (9, 4)


def test_a_stream_that_has_not_begun_is_waited_for(broker: kafka.Broker) -> None:
    """Its first commit says how far it is; one that never comes ends the run, with the partition that nobody read."""
    config, clock = detector(broker, "young"), Clock()
    of = config.identity
    group, topic = of.features_group(config.stream), of.topic("accepted")
    broker.produce(topic, [(b"k", b"v")] * 3, partition=0)
    with pytest.raises(TrainingError, match=re.escape(f"{group} has read nothing of {topic} [0]")) as caught:
        StreamEnds(config, clock, clock.sleep).cut(NOW)
    assert caught.value.reason == "StreamBehind"

    def sleep(_: float) -> None:
        commit(broker, group, topic, 2)

    assert StreamEnds(config, clock, sleep).cut(NOW).starts_at["accepted"][0] == 2


def test_the_cut_of_a_set_that_does_not_answer_is_that_of_the_one_that_does(broker: kafka.Broker) -> None:
    """Its own job may be further, and what only that has read is never in the lake."""
    config = detector(broker, "beside").model_copy(update={"decided": "aaaaaa"})
    topic, of = config.identity.topic("accepted"), config.identity
    broker.produce(topic, [(b"k", b"v")] * 9, partition=0)
    commit(broker, of.features_group(config.stream), topic, 8)
    commit(broker, of.features_group("aaaaaa"), topic, 5)
    assert StreamEnds(config).cut(NOW).starts_at["accepted"][0] == 5


def test_training_waits_for_worker_and_lake(broker: kafka.Broker) -> None:
    """Until both have committed; the end of a transaction is no record that anyone commits."""
    config, clock = detector(broker, "waits"), Clock()
    of = config.identity
    broker.produce(of.topic("features"), [(b"k", b"v")] * 3, partition=0)
    publish(broker, of.topic("decisions"), 3)

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if clock.waits == 3:
            commit(broker, of.group("worker"), of.topic("features"), 3)
        if clock.waits == 5:
            commit(broker, of.group("lake-sink"), of.topic("decisions"), 3)

    ends = StreamEnds(config, clock, sleep)
    ends.wait(ends.cut(NOW))
    assert clock.waits == 5


def test_what_an_open_transaction_hides_is_waited_for(broker: kafka.Broker) -> None:
    """Behind its first record there may be committed ones of another worker, which nobody sees yet."""
    config, clock = detector(broker, "hidden"), Clock()
    topic = config.identity.topic("decisions")
    hiding = broker.producer(transactional_id=f"open-{topic}")
    hiding.init_transactions(30)
    hiding.begin_transaction()
    hiding.produce(topic, b"v", b"k", partition=0)
    hiding.flush(30)
    publish(broker, topic, 1)

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if clock.waits == 3:
            hiding.abort_transaction(30)
        if clock.waits == 5:
            commit(broker, config.identity.group("lake-sink"), topic, 2)

    ends = StreamEnds(config, clock, sleep)
    ends.wait(ends.cut(NOW))
    assert clock.waits == 5


def test_who_is_behind_for_too_long_is_named(broker: kafka.Broker) -> None:
    """The run ends with what it waited for; it is tried again later."""
    config, clock = detector(broker, "behind"), Clock()
    of = config.identity
    broker.produce(of.topic("features"), [(b"k", b"v")] * 3, partition=0)
    ends = StreamEnds(config, clock, clock.sleep)
    with pytest.raises(TrainingError, match=f"{of.group('worker')} is 3 records of") as caught:
        ends.wait(ends.cut(NOW))
    assert caught.value.reason == "StreamBehind" and clock.now > PATIENCE


def test_a_kafka_that_is_away_is_told(broker: kafka.Broker) -> None:
    """No cut is made up where nobody can say how far the stream is."""
    config = detectors.detector(f"127.0.0.1:{kafka.free_port()}", name="away")
    with pytest.raises(TrainingError) as caught:
        StreamEnds(config, timeout=1.0).cut(NOW)
    assert caught.value.reason == "StreamUnknown"
