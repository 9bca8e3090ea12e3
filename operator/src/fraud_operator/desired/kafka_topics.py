"""The topics of a managed Kafka as Strimzi's objects: how long each keeps its records, partitions, copies."""

from __future__ import annotations

from typing import Final

from fraud_contracts import names
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
_APPEND_TIME: Final = {"message.timestamp.type": "LogAppendTime"}


def _kept(days: int, *, append_time: bool = False) -> dict[str, str]:
    kept_ms = days if days == _FOR_EVER else days * _DAY_MS
    times = _APPEND_TIME if append_time else {}
    return {"cleanup.policy": "delete", **times, "retention.ms": str(kept_ms)}


TOPIC_RETENTION: Final[dict[str, dict[str, str]]] = {
    "transactions": _kept(2, append_time=True),
    "accepted": _kept(7, append_time=True),
    "label-reports": _kept(30, append_time=True),
    "labels": _kept(_FOR_EVER),
    "seeds": _COMPACTED,
    "features": _kept(3),
    "profiles": _COMPACTED,
    "dead-letters": _kept(30),
    "decisions": _kept(30),
    "alerts": _kept(30),
}


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
