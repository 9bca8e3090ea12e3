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
USER_HEALTH_PORT = 8081
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


# Of each operator: the name of its health check's port, and the number.
PARTS = {"topic": ("healthcheck-to", HEALTH_PORT), "user": ("healthcheck-uo", USER_HEALTH_PORT)}


def parts(kafka: Json) -> list[str]:
    """Which operators are wanted: ``topic``, ``user``."""
    asked = kafka["spec"].get("entityOperator") or {}
    return [part for part in PARTS if f"{part}Operator" in asked]


def name(cluster: str) -> str:
    return f"{cluster}-entity-operator"


def build(kafka: Json) -> list[Json]:
    """What Strimzi makes once the brokers are ready, in its order; nothing where no operator is wanted."""
    wanted = parts(kafka)
    if not wanted:
        return []
    cluster = kafka["metadata"]["name"]
    own = name(cluster)
    doors = [{"ports": [{"port": PARTS[part][1], "protocol": "TCP"}]} for part in wanted]
    things: list[Json] = []
    for part in wanted:
        labels = component(kafka, f"entity-{part}-operator")
        account, role, binding = rights(
            kafka, "entity-operator", own, f"{cluster}-entity-{part}-operator-role", labels, RULES
        )
        things += [binding] if things else [account, role, binding]
    things += [
        policy(kafka, "entity-operator", own, doors),
        budget(kafka, "entity-operator", own, {"maxUnavailable": 1}),
    ]
    for part in wanted:
        settings = {"log4j2.properties": f"name={part[0].upper()}OConfig\nrootLogger.level=INFO\n"}
        labels = component(kafka, f"entity-{part}-operator")
        things.append(
            thing(kafka, "v1", "ConfigMap", f"{cluster}-entity-{part}-operator-config", labels, data=settings)
        )
    labels = component(kafka, "entity-operator")
    return [*things, thing(kafka, "apps/v1", "Deployment", own, labels, spec=_deployment(kafka, wanted))]


def _container(kafka: Json, part: str) -> Json:
    cluster, namespace = kafka["metadata"]["name"], kafka["metadata"]["namespace"]
    template = kafka["spec"]["entityOperator"].get("template") or {}
    container = template.get(f"{part}OperatorContainer") or {}
    environment = {
        **({"STRIMZI_RESOURCE_LABELS": f"{CLUSTER_LABEL}={cluster}"} if part == "topic" else {}),
        **({"STRIMZI_LABELS": f"{CLUSTER_LABEL}={cluster}"} if part == "user" else {}),
        BOOTSTRAP: f"{cluster}-kafka-bootstrap:{REPLICATION_PORT}",
        "STRIMZI_NAMESPACE": namespace,
        "STRIMZI_CLUSTER_NAMESPACE": namespace,
        # Strimzi leaves a variable that it sets itself as it is.
        **{one["name"]: one.get("value", "") for one in container.get("env") or []},
    }
    port, number = PARTS[part]
    return {
        "name": f"{part}-operator",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "ports": [{"name": port, "containerPort": number, "protocol": "TCP"}],
        "resources": kafka["spec"]["entityOperator"][f"{part}Operator"].get("resources") or {},
        **container_security(container),
        "volumeMounts": [
            {"name": _settings(part), "mountPath": f"/opt/{part}-operator/custom-config/"},
        ],
    }


def _settings(part: str) -> str:
    return f"entity-{part}-operator-metrics-and-logging"


def _deployment(kafka: Json, wanted: list[str]) -> Json:
    cluster = kafka["metadata"]["name"]
    pod = (kafka["spec"]["entityOperator"].get("template") or {}).get("pod") or {}
    return {
        "replicas": 1,
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": selector(kafka, "entity-operator")},
        "template": {
            "metadata": {"labels": component(kafka, "entity-operator")},
            "spec": {
                "automountServiceAccountToken": False,
                "containers": [_container(kafka, part) for part in wanted],
                "enableServiceLinks": False,
                **pod_settings(pod),
                "serviceAccountName": name(cluster),
                "volumes": [
                    {
                        "name": _settings(part),
                        "configMap": {"name": f"{cluster}-entity-{part}-operator-config"},
                    }
                    for part in wanted
                ],
            },
        },
    }


def environment(deployment: Json, operator: str) -> dict[str, str] | None:
    """The environment variables of one of its operators; None where it isn't in it."""
    containers = deployment["spec"]["template"]["spec"]["containers"]
    for container in containers:
        if container["name"] == operator:
            return {one["name"]: one.get("value", "") for one in container.get("env") or []}
    return None
