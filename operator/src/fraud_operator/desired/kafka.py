"""Strimzi's objects of a managed Kafka. They outlive the detector unless its deletionPolicy is Delete."""

from __future__ import annotations

from typing import Final

from fraud_contracts import names
from fraud_operator.desired.child import CLUSTER_LABEL, Child, Wanted, broker_selector, child, metadata
from fraud_operator.desired.network import kafka_clients
from fraud_operator.desired.placement import shared_settings, spread
from fraud_operator.detector import Detector
from fraud_operator.objects import Json

API: Final = "kafka.strimzi.io/v1"
# So that Strimzi's Pods pass Pod Security's level restricted. On the container: a context of the Pod would replace Strimzi's own,
# without which a broker can't write to its volume.
_CONFINED: Final = {
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
        "capabilities": {"drop": ["ALL"]},
    }
}


def copies(detector: Detector, wanted: Wanted) -> int:
    """How many of each record. Strimzi can't change that later, so an existing Kafka keeps its number."""
    managed = detector.spec.kafka.managed
    return wanted.copies or (min(3, managed.replicas) if managed is not None else 1)


def _pod(settings: Json) -> Json:
    return {"pod": settings} if settings else {}


def _broker_pods(detector: Detector) -> Json:
    managed = detector.spec.kafka.managed
    several = managed is not None and managed.replicas > 1
    return {**shared_settings(detector), **(spread(broker_selector(detector)) if several else {})}


def build_kafka(detector: Detector, wanted: Wanted) -> list[Child]:
    if not detector.managed_kafka:
        return []
    replication = copies(detector, wanted)
    in_sync = max(1, replication - 1)
    kafka = child(
        API,
        "Kafka",
        metadata(detector, names.kafka(detector.name), "kafka", owned=not detector.retained),
        spec={
            "kafka": {
                "listeners": [
                    {
                        "name": "tls",
                        "port": names.KAFKA_PORT,
                        "type": "internal",
                        "tls": True,
                        "authentication": {"type": "scram-sha-512"},
                        "networkPolicyPeers": kafka_clients(detector),
                    }
                ],
                "authorization": {"type": "simple"},
                "config": {
                    "default.replication.factor": replication,
                    "min.insync.replicas": in_sync,
                    "offsets.topic.replication.factor": replication,
                    "transaction.state.log.replication.factor": replication,
                    "transaction.state.log.min.isr": in_sync,
                    # A topic that the operator hasn't made is a fault to see, not one to paper over.
                    "auto.create.topics.enable": False,
                },
                "metricsConfig": {"type": "strimziMetricsReporter"},
                "template": {**_pod(_broker_pods(detector)), "kafkaContainer": dict(_CONFINED)},
            },
            "entityOperator": {
                "topicOperator": {},
                "userOperator": {},
                # The operator in the namespace dies with it, and its finalizers would then hold the namespace for ever.
                # Without them it deletes a topic when it is told of its KafkaTopic's end.
                "template": {
                    **_pod(shared_settings(detector)),
                    "topicOperatorContainer": {
                        "env": [{"name": "STRIMZI_USE_FINALIZERS", "value": "false"}],
                        **_CONFINED,
                    },
                    "userOperatorContainer": dict(_CONFINED),
                },
            },
        },
    )
    return [kafka]


def build_kafka_node_pool(detector: Detector, _: Wanted) -> list[Child]:
    if not detector.managed_kafka:
        return []
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
    pool = child(
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
                "requests": {"cpu": "125m", "memory": "768Mi"},
                "limits": {"cpu": "2", "memory": "2Gi"},
            },
            "jvmOptions": {"-Xms": "256m", "-Xmx": "768m"},
        },
    )
    return [pool]
