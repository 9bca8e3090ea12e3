"""While a stream takes in its history its lags are read; once they are gone Kafka is left alone until they may be back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from fraud_contracts import names
from fraud_contracts.errors import StoreError
from fraud_operator.detector import Detector
from fraud_operator.facts import Facts, Lags, Models
from fraud_operator.kafka_target import KafkaTarget
from fraud_operator.lags import Warming
from fraud_testing.healthy import healthy_facts, make_detector


@dataclass
class Kafka:
    """``behind`` records are still to be read, by whoever asks; None gives no answer. ``caught_up`` groups have read all."""

    behind: int | None = 0
    caught_up: frozenset[str] = frozenset()
    reads: int = 0
    readers: set[Any] = field(default_factory=set)

    def read(self, reader: Any, target: object, group: str, *_: object) -> tuple[int, int]:
        self.reads += 1
        self.readers.add(reader)
        if self.behind is None:
            raise StoreError("kafka", "no answer")
        return 0 if group in self.caught_up else self.behind, 40

    def done(self, reader: Any) -> None:
        self.readers.discard(reader)


@pytest.fixture
def kafka() -> Kafka:
    return Kafka()


@pytest.fixture
def warming(kafka: Kafka) -> Warming:
    return Warming(kafka)  # type: ignore[arg-type]  # it reads as the real one does


DETECTOR = make_detector()
TARGET = KafkaTarget(DETECTOR.bootstrap)


def facts(detector: Detector = DETECTOR, **changed: Any) -> Facts:
    return replace(healthy_facts(detector), lags=Lags(), **changed)


def test_lags_are_read_until_they_are_gone(kafka: Kafka, warming: Warming) -> None:
    """Each pass reads them while there are any; the last answer holds from then on, and nobody reads any more."""
    kafka.behind = 12
    assert warming.lags(DETECTOR, facts(), TARGET) == Lags(12, 12, 40)
    assert kafka.readers == {("n", "d")}
    kafka.behind = 0
    assert warming.lags(DETECTOR, facts(), TARGET) == Lags(0, 0, 40)
    assert kafka.readers == set()
    reads, kafka.behind = kafka.reads, 7
    assert warming.lags(DETECTOR, facts(), TARGET) == Lags(0, 0, 40)
    assert kafka.reads == reads


def test_what_a_job_read_while_it_was_silent_is_taken_in(kafka: Kafka, warming: Warming) -> None:
    """Its new group has no offsets before its next checkpoint; nobody has to wait for the seeds again."""
    kafka.behind = 12
    kafka.caught_up = frozenset({DETECTOR.identity.features_group(DETECTOR.stream, silent=True)})
    assert warming.lags(DETECTOR, facts(), TARGET) == Lags(0, 12, 40)


def test_a_kafka_without_an_answer_is_asked_again(kafka: Kafka, warming: Warming) -> None:
    """Lags are unknown then, and nothing is remembered."""
    kafka.behind = None
    assert warming.lags(DETECTOR, facts(), TARGET) == Lags()
    kafka.behind = 0
    assert warming.lags(DETECTOR, facts(), TARGET) == Lags(0, 0, 40)


def test_nothing_is_read_before_there_are_seeds(kafka: Kafka, warming: Warming) -> None:
    """Before the first training has ended there is nothing to be behind with."""
    fresh = facts()
    fresh = replace(fresh, models=Models(), state=fresh.state.model_copy(update={"stable": None}))
    assert warming.lags(DETECTOR, fresh, TARGET) == Lags()
    assert kafka.reads == 0


def test_a_training_writes_seeds_that_are_waited_for(kafka: Kafka, warming: Warming) -> None:
    """While a later training runs nothing changes; once it has succeeded the lags are read anew."""
    warming.lags(DETECTOR, facts(), TARGET)
    reads, kafka.behind = kafka.reads, 9
    running = facts(revision="f" * 16, models=Models())
    assert warming.lags(DETECTOR, running, TARGET) == Lags(0, 0, 40) and kafka.reads == reads
    assert warming.lags(DETECTOR, replace(running, models=Models(trained="8")), TARGET) == Lags(9, 9, 40)


def test_a_stream_that_stopped_is_looked_at_again(kafka: Kafka, warming: Warming) -> None:
    """While the job doesn't run lags are unknown and Kafka is left alone; afterwards they are read anew."""
    warming.lags(DETECTOR, facts(), TARGET)
    reads = kafka.reads
    job = ("FlinkDeployment", names.flink_deployment("d", DETECTOR.hash6))
    stopped = {key: child for key, child in facts().children.items() if key != job}
    assert warming.lags(DETECTOR, facts(children=stopped), TARGET) == Lags()
    assert (kafka.reads, kafka.readers) == (reads, set())
    warming.lags(DETECTOR, facts(), TARGET)
    assert kafka.reads > reads


def test_a_kafka_that_is_not_ready_is_left_alone(kafka: Kafka, warming: Warming) -> None:
    """A managed Kafka without a status is not asked for anything."""
    children = {**facts().children, ("Kafka", "d"): {"metadata": {"generation": 1}}}
    assert warming.lags(DETECTOR, facts(children=children), TARGET) == Lags()
    assert kafka.reads == 0


def test_a_detector_that_is_gone_keeps_no_client(kafka: Kafka, warming: Warming) -> None:
    """One that is deleted while it warms up reads no more; a namesake begins anew."""
    kafka.behind = 12
    warming.lags(DETECTOR, facts(), TARGET)
    warming.forget(("n", "d"))
    assert kafka.readers == set()
    kafka.behind = 0
    warming.lags(DETECTOR, facts(), TARGET)
    reads = kafka.reads
    warming.lags(replace(DETECTOR, uid="another"), facts(), TARGET)
    assert kafka.reads > reads
