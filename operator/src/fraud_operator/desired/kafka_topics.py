"""The topics of a managed Kafka as Strimzi's objects: how long each keeps its records, partitions, copies."""

from __future__ import annotations

from typing import Final

from fraud_contracts import names
from fraud_contracts.retention import COMPACTED, KEPT_DAYS
from fraud_operator.desired.child import CLUSTER_LABEL, Child, Wanted, child, metadata
from fraud_operator.desired.kafka import API, copies
from fraud_operator.detector import Detector

_DAY_MS: Final = 86_400_000
_FOR_EVER: Final = -1
# A compacted topic keeps the newest value of each key: it is the store that Redis is rebuilt from.
_COMPACTED: Final = {
    "cleanup.policy": "compact",
    "min.cleanable.dirty.ratio": "0.2",
    "segment.ms": str(_DAY_MS),
    "max.compaction.lag.ms": str(_DAY_MS),
}
# Event time is checked against the append time, so a client must not be able to write that.
_BY_APPEND_TIME: Final = ("transactions", "accepted", "label-reports")


def _settings(noun: str) -> dict[str, str]:
    if noun in COMPACTED:
        return _COMPACTED
    days = KEPT_DAYS[noun]
    times = {"message.timestamp.type": "LogAppendTime"} if noun in _BY_APPEND_TIME else {}
    return {
        "cleanup.policy": "delete",
        **times,
        "retention.ms": str(_FOR_EVER if days is None else days * _DAY_MS),
    }


TOPIC_RETENTION: Final[dict[str, dict[str, str]]] = {noun: _settings(noun) for noun in names.TOPICS}


def build_kafka_topics(detector: Detector, wanted: Wanted) -> list[Child]:
    """For a managed Kafka, one for each noun, all with as many partitions: an entity's records share a number."""
    if not detector.managed_kafka:
        return []
    return [
        child(
            API,
            "KafkaTopic",
            metadata(
                detector,
                names.kafka_topic(detector.name, noun),
                "kafka",
                owned=not detector.retained,
                more_labels={CLUSTER_LABEL: names.kafka(detector.name)},
            ),
            spec={
                "topicName": detector.identity.topic(noun),
                "partitions": detector.spec.kafka.partitions,
                "replicas": copies(detector, wanted),
                "config": dict(TOPIC_RETENTION[noun]),
            },
        )
        for noun in names.TOPICS
    ]
