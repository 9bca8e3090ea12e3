"""The statuses that the Strimzi stand-in writes: conditions and reasons are those of Strimzi 1.2.0. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from fraud_local import paths
from fraud_local import strimzi_objects as objects
from fraud_local.kube import Json


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def condition(kind: str, status: str, reason: str | None = None, message: str | None = None) -> Json:
    """A condition in Strimzi's form; one without a reason has no such field."""
    built: Json = {"type": kind, "status": status, "lastTransitionTime": now()}
    if reason:
        built["reason"] = reason
    if message:
        built["message"] = message
    return built


def settled(old: Json | None, new: Json) -> Json:
    """``new`` with the old times of the conditions that say the same, so that an unchanged status is an equal one."""
    earlier = {_said(one): one for one in (old or {}).get("conditions", [])}
    conditions = [earlier.get(_said(one), one) for one in new.get("conditions", [])]
    return {**new, "conditions": conditions}


def _said(one: Json) -> tuple[Any, ...]:
    return tuple(one.get(key) for key in ("type", "status", "reason", "message"))


def creating(kafka: Json) -> Json:
    """The first status of a new Kafka."""
    return {
        "conditions": [condition("NotReady", "True", "Creating", "Kafka cluster is being deployed")],
        "observedGeneration": kafka["metadata"]["generation"],
    }


def failed(kafka: Json, reason: str, message: str) -> Json:
    """A Kafka that could not be reconciled: the reason is the exception's class."""
    kept = {key: value for key, value in (kafka.get("status") or {}).items() if key != "conditions"}
    return {
        **kept,
        "conditions": [condition("NotReady", "True", reason, message)],
        "observedGeneration": kafka["metadata"]["generation"],
    }


def ready(kafka: Json, pools: Sequence[Json], cluster_id: str) -> Json:
    cluster, namespace = kafka["metadata"]["name"], kafka["metadata"]["namespace"]
    host = f"{cluster}-kafka-bootstrap.{namespace}.svc"
    conditions = [condition("Ready", "True")]
    asked = kafka["spec"]["kafka"].get("version")
    if asked and asked != paths.KAFKA_VERSION:
        text = f"Kafka {asked} was asked for; the local node runs {paths.KAFKA_VERSION}"
        conditions.append(condition("Warning", "True", "KafkaVersion", text))
    return {
        "conditions": conditions,
        "observedGeneration": kafka["metadata"]["generation"],
        "listeners": [
            {
                "name": one["name"],
                "addresses": [{"host": host, "port": one["port"]}],
                "bootstrapServers": f"{host}:{one['port']}",
            }
            for one in objects.listeners(kafka)
        ],
        "kafkaNodePools": [{"name": pool["metadata"]["name"]} for pool in pools],
        "clusterId": cluster_id,
        "operatorLastSuccessfulVersion": paths.STRIMZI_VERSION,
        "kafkaVersion": paths.KAFKA_VERSION,
        "kafkaMetadataVersion": f"{'.'.join(paths.KAFKA_VERSION.split('.')[:2])}-IV0",
    }


def pool_status(kafka: Json, pool: Json, ids: list[int], cluster_id: str) -> Json:
    cluster = kafka["metadata"]["name"]
    labels = objects.component_labels(cluster, pool)
    selector = ",".join(
        f"{key}={labels[key]}"
        for key in (objects.CLUSTER_LABEL, "strimzi.io/name", "strimzi.io/kind", "strimzi.io/pool-name")
    )
    return {
        "observedGeneration": pool["metadata"]["generation"],
        "nodeIds": ids,
        "clusterId": cluster_id,
        "roles": pool["spec"]["roles"],
        "replicas": len(ids),
        "labelSelector": selector,
        "conditions": [],
    }
