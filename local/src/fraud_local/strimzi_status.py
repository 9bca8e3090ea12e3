"""The statuses that the Strimzi stand-in writes: conditions and reasons are those of Strimzi 1.2.0. Pure, but for ``write``."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from fraud_local import paths
from fraud_local import strimzi_brokers as brokers
from fraud_local import strimzi_objects as objects
from fraud_local.api_client import ApiClient, Json, stamp

logger = logging.getLogger("strimzi-standin")


def condition(kind: str, status: str, reason: str | None = None, message: str | None = None) -> Json:
    """A condition in Strimzi's form; one without a reason has no such field."""
    built: Json = {"type": kind, "status": status, "lastTransitionTime": stamp(time.time_ns())}
    if reason:
        built["reason"] = reason
    if message:
        built["message"] = message
    return built


def settled(old: Json | None, new: Json) -> Json:
    """``new`` with the old times of the conditions that say the same, so that an unchanged status is an equal one."""
    earlier = {_content(one): one for one in (old or {}).get("conditions", [])}
    conditions = [earlier.get(_content(one), one) for one in new.get("conditions", [])]
    return {**new, "conditions": conditions}


def _content(one: Json) -> tuple[Any, ...]:
    """All of a condition but its time."""
    return tuple(one.get(key) for key in ("type", "status", "reason", "message"))


def creating() -> Json:
    """The first status of a new Kafka: nobody has looked at any generation yet."""
    return {
        "conditions": [condition("NotReady", "True", "Creating", "Kafka cluster is being deployed")],
        "observedGeneration": 0,
    }


def failed(kafka: Json, reason: str, message: str) -> Json:
    """A Kafka that could not be reconciled: the reason is the exception's class."""
    kept = {key: value for key, value in (kafka.get("status") or {}).items() if key != "conditions"}
    return {
        **kept,
        "conditions": [condition("NotReady", "True", reason, message)],
        "observedGeneration": kafka["metadata"]["generation"],
    }


def warnings(kafka: Json, pools: Sequence[Json]) -> list[Json]:
    """What is wrong with a cluster that works."""
    conditions = []
    for role, loss in (("broker", "topic messages"), ("controller", "data")):
        nodes = [pool for pool in pools if role in pool["spec"]["roles"]]
        if sum(pool["spec"]["replicas"] for pool in nodes) == 1 and ephemeral(nodes[0]):
            text = (
                f"A Kafka cluster with a single {role} node and ephemeral storage will lose {loss} "
                "after any restart or rolling update."
            )
            conditions.append(condition("Warning", "True", "KafkaStorage", text))
    asked = kafka["spec"]["kafka"].get("version")
    if asked and asked != paths.KAFKA_VERSION:
        text = f"Kafka {asked} was asked for; the local node runs {paths.KAFKA_VERSION}"
        conditions.append(condition("Warning", "True", "KafkaVersion", text))
    return conditions


def ephemeral(pool: Json) -> bool:
    storage = pool["spec"]["storage"]
    volumes = storage["volumes"] if storage["type"] == "jbod" else [storage]
    return any(volume["type"] == "ephemeral" for volume in volumes)


def ready(kafka: Json, pools: Sequence[Json], cluster_id: str) -> Json:
    cluster, namespace = kafka["metadata"]["name"], kafka["metadata"]["namespace"]
    host = f"{cluster}-kafka-bootstrap.{namespace}.svc"
    return {
        # Warnings come first, as Strimzi writes them: a reader must not take the first condition for Ready.
        "conditions": [*warnings(kafka, pools), condition("Ready", "True")],
        "clusterSecurity": {
            "authentication": {"type": "strimzi-mtls"},
            "encryption": {"type": "strimzi-tls"},
        },
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
        "kafkaMetadataVersion": brokers.metadata_version(),
    }


def pool_status(kafka: Json, pool: Json, ids: list[int], cluster_id: str) -> Json:
    cluster = kafka["metadata"]["name"]
    labels = {
        objects.CLUSTER_LABEL: cluster,
        "strimzi.io/name": f"{cluster}-kafka",
        "strimzi.io/kind": "Kafka",
        "strimzi.io/pool-name": pool["metadata"]["name"],
    }
    return {
        "observedGeneration": pool["metadata"]["generation"],
        "nodeIds": ids,
        "clusterId": cluster_id,
        "roles": pool["spec"]["roles"],
        "replicas": len(ids),
        "labelSelector": ",".join(f"{key}={value}" for key, value in labels.items()),
        "conditions": [],
    }


def write(kube: ApiClient, thing: Json, status: Json) -> None:
    """Replaces the status where it says something else, and logs that."""
    status = settled(thing.get("status"), status)
    if status == thing.get("status"):
        return
    kube.set_status(thing, status)
    thing["status"] = status
    summary = [
        {key: one.get(key) for key in ("type", "status", "reason")} for one in status.get("conditions") or []
    ]
    meta = thing["metadata"]
    logger.info(
        f"{thing['kind']} {meta['namespace']}/{meta['name']}", extra={"data": {"conditions": summary}}
    )
