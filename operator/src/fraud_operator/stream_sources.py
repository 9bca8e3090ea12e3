"""What Kafka and Strimzi say of the topics that a streaming job reads: which they are, what they hold, how far a job has read them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from fraud_contracts import names
from fraud_contracts.errors import StoreError
from fraud_contracts.lineage import HISTORY, INPUTS, SOURCES, Positions
from fraud_operator.detector import Detector
from fraud_operator.facts import Facts
from fraud_operator.kafka_target import KafkaTarget
from fraud_operator.lags import LagReader
from fraud_operator.lineage import Held

LOG: Final = logging.getLogger(__name__)


class StreamSources:
    """None is what nobody says now."""

    def topics(self, detector: Detector, facts: Facts) -> Mapping[str, str] | None:
        """Their ids by noun, once they are all there."""
        if not detector.managed_kafka:
            return facts.kafka.topics if facts.kafka.ready else None
        found: dict[str, str] = {}
        for noun in SOURCES:
            topic = facts.child("KafkaTopic", names.kafka_topic(detector.name, noun))
            topic_id = ((topic or {}).get("status") or {}).get("topicId")
            if not topic_id:
                return None
            found[noun] = str(topic_id)
        return found

    def committed(
        self, detector: Detector, stream: str, target: KafkaTarget, reader: LagReader
    ) -> Positions | None:
        """How far a stream's job has read what is decided, and the labels, for good, and has written it."""
        group = detector.identity.features_group(stream)
        try:
            return reader.committed(target, group, _topics(detector, HISTORY), detector.spec.kafka.partitions)
        except StoreError as error:
            _unknown(detector, error)
            return None

    def held(self, detector: Detector, target: KafkaTarget, reader: LagReader) -> Held | None:
        """First offset and end of what seeds may lack."""
        key = (detector.namespace, detector.name)
        try:
            return reader.held(key, target, _topics(detector, HISTORY), detector.spec.kafka.partitions)
        except StoreError as error:
            _unknown(detector, error)
            return None

    def behind(self, detector: Detector, target: KafkaTarget, reader: LagReader) -> int | None:
        """Records of the inputs that the detector's stream hasn't read for good."""
        return self._lag(detector, detector.features_group, INPUTS, target, reader)

    def undecided(self, detector: Detector, target: KafkaTarget, reader: LagReader) -> int | None:
        """Feature records that the worker hasn't decided."""
        return self._lag(detector, detector.identity.group("worker"), ("features",), target, reader)

    def _lag(
        self, detector: Detector, group: str, nouns: tuple[str, ...], target: KafkaTarget, reader: LagReader
    ) -> int | None:
        key, partitions = (detector.namespace, detector.name), detector.spec.kafka.partitions
        topics = _topics(detector, nouns).values()
        try:
            return sum(reader.read(key, target, group, topic, partitions)[0] for topic in topics)
        except StoreError as error:
            _unknown(detector, error)
            return None


def _topics(detector: Detector, nouns: tuple[str, ...]) -> dict[str, str]:
    return {noun: detector.identity.topic(noun) for noun in nouns}


def _unknown(detector: Detector, error: StoreError) -> None:
    LOG.warning("offsets unknown", extra={"data": {"detector": str(detector.identity), "error": str(error)}})
