"""When a worker says that the ledger holds all of before a loss, over a real broker. Redis and the ledger are what a test says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition

from fraud_contracts.config import DetectorConfig
from fraud_serving import wholeness
from fraud_serving.clients.ledger_link import Look
from fraud_serving.wholeness import Mark, Reached
from fraud_serving.worker.settling import Settling
from fraud_testing import detectors, kafka
from fraud_testing.required import require

pytestmark = pytest.mark.integration
# Later than any record of the tests.
LOSS = 4_000_000_000_000


class Data:
    """Topics of one partition whose stream and worker have read all; ``reached`` is how far the ledger is in ``decisions``."""

    def __init__(self, broker: kafka.Broker, config: DetectorConfig) -> None:
        self.broker, self.of, self.stream = broker, config.identity, config.stream
        self.mark, self.reached = Mark(LOSS).pack(), 0
        broker.create_detector_topics(str(self.of))
        self.settling = Settling(config, self, self)  # type: ignore[arg-type]  # what of both it calls

    def flow(self) -> None:
        """A payment is accepted, a checkpoint holds that it is read, and the worker has read its features."""
        for noun, group in (
            ("accepted", self.of.features_group(self.stream)),
            ("features", self.of.group("worker")),
        ):
            topic = self.of.topic(noun)
            self.broker.produce(topic, [(b"k", b"v")])
            reader = self.broker.consumer(group)
            end = reader.get_watermark_offsets(TopicPartition(topic, 0), 30)[1]
            reader.commit(offsets=[TopicPartition(topic, 0, end)], asynchronous=False)
            reader.close()

    def decide(self, worker: str) -> Producer:
        """A decision in a transaction that is open."""
        producer = self.broker.producer(transactional_id=f"{self.of}.{worker}")
        producer.init_transactions(30)
        producer.begin_transaction()
        producer.produce(self.of.topic("decisions"), b"v", b"k")
        producer.flush(30)
        return producer

    def settled(self) -> Mark | None:
        """After some more payments, with looks after each."""
        for _ in range(5):
            self.flow()
            for _ in range(15):
                self.settling.step(LOSS + 10_000)
        return wholeness.read(self.mark)

    # The ledger.
    def has_older(self, before: int) -> bool:
        return True

    def lineages(self) -> dict[str, int]:
        return {}

    def look(self, ids: Any) -> Look:
        return Look({}, {(0, 0): self.reached})

    # Redis.
    def mark_and_read(self, mark: Any, keys: list[str]) -> list[bytes | None]:
        return [self.mark]

    def send(self, command: Any) -> list[int]:
        self.mark = command[-1]
        return [1]


@pytest.fixture(scope="module")
def broker() -> Iterator[kafka.Broker]:
    require(kafka.missing())
    with kafka.broker() as running:
        yield running


def test_marks_of_transactions_at_the_end_are_waited_for_by_nobody(broker: kafka.Broker) -> None:
    """The ledger's sink never gets past them."""
    data = Data(broker, detectors.detector(broker.bootstrap, name="marks"))
    data.decide("worker-0").commit_transaction(30)
    data.decide("worker-1").abort_transaction(30)
    assert data.settled() == Mark(LOSS)
    data.reached = 1
    assert data.settled() == Mark(LOSS, (Reached(0, 0, 1),))


def test_what_an_open_transaction_hides_is_waited_for(broker: kafka.Broker) -> None:
    """One worker died in its transaction, and what another one committed since lies behind it: the ledger can't have read it yet."""
    data = Data(broker, detectors.detector(broker.bootstrap, name="hidden"))
    hiding = data.decide("worker-0")
    data.decide("worker-1").commit_transaction(30)
    assert data.settled() == Mark(LOSS)
    hiding.abort_transaction(30)
    assert data.settled() == Mark(LOSS)
    data.reached = 2
    assert data.settled() == Mark(LOSS, (Reached(0, 0, 2),))
