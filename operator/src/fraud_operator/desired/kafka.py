"""Strimzi's objects of a managed Kafka. They outlive the detector unless its deletionPolicy is Delete."""

from __future__ import annotations

from typing import Final

from fraud_contracts import names
from fraud_operator.desired.common import Child, child, metadata
from fraud_operator.detector import Detector, Json

API: Final = "kafka.strimzi.io/v1"
CLUSTER_LABEL: Final = "strimzi.io/cluster"

_DAY_MS: Final = 86_400_000
_DELETE: Final = {"cleanup.policy": "delete"}
# A compacted topic's newest value a key is the store that Redis is rebuilt from.
_COMPACT: Final = {
    "cleanup.policy": "compact",
    "min.cleanable.dirty.ratio": "0.2",
    "segment.ms": str(_DAY_MS),
    "max.compaction.lag.ms": str(_DAY_MS),
}
# Event time is checked against the append time, so a client must not be able to write that.
_APPEND_TIME: Final = {"message.timestamp.type": "LogAppendTime"}

TOPIC_CONFIG: Final[dict[str, dict[str, str]]] = {
    "transactions": {**_DELETE, **_APPEND_TIME, "retention.ms": str(2 * _DAY_MS)},
    "accepted": {**_DELETE, **_APPEND_TIME, "retention.ms": str(7 * _DAY_MS)},
    "label-reports": {**_DELETE, **_APPEND_TIME, "retention.ms": str(30 * _DAY_MS)},
    "labels": {**_DELETE, "retention.ms": "-1"},
    "seeds": _COMPACT,
    "features": {**_DELETE, "retention.ms": str(3 * _DAY_MS)},
    "profiles": _COMPACT,
    "dead-letters": {**_DELETE, "retention.ms": str(30 * _DAY_MS)},
    "decisions": {**_DELETE, "retention.ms": str(30 * _DAY_MS)},
    "alerts": {**_DELETE, "retention.ms": str(30 * _DAY_MS)},
}


def wanted_copies(detector: Detector) -> int:
    """Of each record, in topics that are made now. Strimzi can't change it later: what is there keeps the number it has."""
    managed = detector.spec.kafka.managed
    return min(3, managed.replicas) if managed is not None else 1


def build_kafka(detector: Detector, copies: int) -> Child:
    in_sync = max(1, copies - 1)
    return child(
        API,
        "Kafka",
        metadata(detector, names.kafka(detector.name), "kafka", owned=not detector.retained),
        spec={
            "kafka": {
                "listeners": [{"name": "plain", "port": 9092, "type": "internal", "tls": False}],
                "config": {
                    "default.replication.factor": copies,
                    "min.insync.replicas": in_sync,
                    "offsets.topic.replication.factor": copies,
                    "transaction.state.log.replication.factor": copies,
                    "transaction.state.log.min.isr": in_sync,
                    # A topic that the operator hasn't made is a fault to see, not one to paper over.
                    "auto.create.topics.enable": False,
                },
                "metricsConfig": {"type": "strimziMetricsReporter"},
            },
            "entityOperator": {
                "topicOperator": {},
                # The operator in the namespace dies with it, and its finalizers would then hold the namespace for ever.
                # Without them it deletes a topic when it is told of its KafkaTopic's end.
                "template": {
                    "topicOperatorContainer": {"env": [{"name": "STRIMZI_USE_FINALIZERS", "value": "false"}]}
                },
            },
        },
    )


def build_kafka_node_pool(detector: Detector) -> Child:
    managed = detector.spec.kafka.managed
    platform = detector.platform.kafka
    volume: Json = {"id": 0, "kraftMetadata": "shared"}
    if platform.ephemeral:
        volume["type"] = "ephemeral"
    else:
        volume |= {
            "type": "persistent-claim",
            "size": managed.storage if managed else "20Gi",
            "deleteClaim": not detector.retained,
        }
        if platform.storage_class:
            volume["class"] = platform.storage_class
    return child(
        API,
        "KafkaNodePool",
        metadata(
            detector,
            names.kafka_node_pool(detector.name),
            "kafka",
            owned=not detector.retained,
            more_labels={CLUSTER_LABEL: names.kafka(detector.name)},
        ),
        spec={
            "replicas": managed.replicas if managed else 1,
            "roles": ["controller", "broker"],
            "storage": {"type": "jbod", "volumes": [volume]},
            "resources": {
                "requests": {"cpu": "100m", "memory": "768Mi"},
                "limits": {"cpu": "2", "memory": "2Gi"},
            },
            "jvmOptions": {"-Xms": "256m", "-Xmx": "768m"},
        },
    )


def build_kafka_topics(detector: Detector, copies: int) -> list[Child]:
    """One for each noun, all with the same number of partitions: an entity's records then share a partition number."""
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
                "replicas": copies,
                "config": dict(TOPIC_CONFIG[noun]),
            },
        )
        for noun in names.TOPICS
    ]
