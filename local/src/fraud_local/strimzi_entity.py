"""The entity operator that the Strimzi stand-in makes of a Kafka: a Deployment with its account, rights and settings. Pure.

Its Pod does nothing: the stand-in acts for it, by its environment, as long as it is there with account and rights.
"""

from __future__ import annotations

from fraud_local.api_client import Json
from fraud_local.strimzi_objects import (
    CLUSTER_LABEL,
    REPLICATION_PORT,
    budget,
    component,
    container_security,
    pod_settings,
    policy,
    rights,
    selector,
    thing,
)

# The node's smallest image: one program that waits.
IMAGE = "localhost/pause:3.9"
FINALIZERS = "STRIMZI_USE_FINALIZERS"
BOOTSTRAP = "STRIMZI_KAFKA_BOOTSTRAP_SERVERS"
HEALTH_PORT = 8080
_KAFKA = "kafka.strimzi.io"
RULES = (
    {"apiGroups": [_KAFKA], "resources": ["kafkatopics"],
     "verbs": ["get", "list", "watch", "create", "patch", "update", "delete"]},
    {"apiGroups": [_KAFKA], "resources": ["kafkausers"], "verbs": ["get", "list", "watch", "create", "patch", "update"]},
    {"apiGroups": [_KAFKA], "resources": ["kafkatopics/status", "kafkausers/status"], "verbs": ["get", "patch", "update"]},
    {"apiGroups": [_KAFKA], "resources": ["kafkatopics/finalizers", "kafkausers/finalizers"], "verbs": ["update"]},
    {"apiGroups": [""], "resources": ["secrets"],
     "verbs": ["get", "list", "watch", "create", "delete", "patch", "update"]},
)  # fmt: skip


def wanted(kafka: Json) -> bool:
    return "topicOperator" in (kafka["spec"].get("entityOperator") or {})


def name(cluster: str) -> str:
    return f"{cluster}-entity-operator"


def build(kafka: Json) -> list[Json]:
    """What Strimzi makes once the brokers are ready, in its order; nothing where no topic operator is wanted."""
    if not wanted(kafka):
        return []
    cluster = kafka["metadata"]["name"]
    own, topics = name(cluster), f"{cluster}-entity-topic-operator"
    labels = component(kafka, "entity-topic-operator")
    settings = {"log4j2.properties": "name=TOConfig\nrootLogger.level=INFO\n"}
    door = {"ports": [{"port": HEALTH_PORT, "protocol": "TCP"}]}
    return [
        *rights(kafka, "entity-operator", own, f"{topics}-role", labels, RULES),
        policy(kafka, "entity-operator", own, [door]),
        budget(kafka, "entity-operator", own, {"maxUnavailable": 1}),
        thing(kafka, "v1", "ConfigMap", f"{topics}-config", labels, data=settings),
        thing(
            kafka, "apps/v1", "Deployment", own, component(kafka, "entity-operator"), spec=_deployment(kafka)
        ),
    ]


def _deployment(kafka: Json) -> Json:
    cluster, namespace = kafka["metadata"]["name"], kafka["metadata"]["namespace"]
    template = kafka["spec"]["entityOperator"].get("template") or {}
    container = template.get("topicOperatorContainer") or {}
    environment = {
        "STRIMZI_RESOURCE_LABELS": f"{CLUSTER_LABEL}={cluster}",
        BOOTSTRAP: f"{cluster}-kafka-bootstrap:{REPLICATION_PORT}",
        "STRIMZI_NAMESPACE": namespace,
        "STRIMZI_CLUSTER_NAMESPACE": namespace,
        # Strimzi leaves a variable that it sets itself as it is.
        **{one["name"]: one.get("value", "") for one in container.get("env") or []},
    }
    pod = template.get("pod") or {}
    own = {
        "name": "topic-operator",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "ports": [{"name": "healthcheck-to", "containerPort": HEALTH_PORT, "protocol": "TCP"}],
        "resources": kafka["spec"]["entityOperator"]["topicOperator"].get("resources") or {},
        **container_security(container),
        "volumeMounts": [
            {
                "name": "entity-topic-operator-metrics-and-logging",
                "mountPath": "/opt/topic-operator/custom-config/",
            }
        ],
    }
    volume = {
        "name": "entity-topic-operator-metrics-and-logging",
        "configMap": {"name": f"{cluster}-entity-topic-operator-config"},
    }
    return {
        "replicas": 1,
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": selector(kafka, "entity-operator")},
        "template": {
            "metadata": {"labels": component(kafka, "entity-operator")},
            "spec": {
                "automountServiceAccountToken": False,
                "containers": [own],
                "enableServiceLinks": False,
                **pod_settings(pod),
                "serviceAccountName": name(cluster),
                "volumes": [volume],
            },
        },
    }


def environment(deployment: Json) -> dict[str, str]:
    """The topic operator's environment variables, from its Deployment."""
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {one["name"]: one.get("value", "") for one in container.get("env") or []}
