"""Stands in for the Strimzi operator, which is in no package registry: real brokers and real topics, Strimzi's statuses.

    python -m fraud_local.strimzi_standin        on the local node, started by fraud_local.operators

Level-triggered: each pass lists the objects and makes the cluster like them.
"""

from __future__ import annotations

import base64
import logging
import time
import uuid
from datetime import UTC, datetime

import requests
from confluent_kafka import KafkaException

from fraud_contracts import log
from fraud_local import strimzi_objects as objects
from fraud_local import strimzi_status as statuses
from fraud_local import topics
from fraud_local.kube import Json, Kube, KubeError

logger = logging.getLogger("strimzi-standin")
INTERVAL = 2.0
# A full look at a topic that has not changed; a changed generation is seen in the next pass.
TOPIC_INTERVAL = 60.0
OPERATION_TIMEOUT = 300.0
PAUSE = "strimzi.io/pause-reconciliation"


class Standin:
    """State between passes is only what saves work; losing it changes nothing."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._topics: dict[str, topics.Topics] = {}
        self._seen: dict[str, tuple[int, float]] = {}
        self._ready: set[str] = set()

    def run(self) -> None:
        while True:
            try:
                self.once()
            except (KubeError, requests.RequestException) as error:
                logger.warning("a pass failed and is repeated", extra={"data": {"error": str(error)}})
            time.sleep(INTERVAL)

    def once(self) -> None:
        kafkas = self._kube.list(objects.API, "Kafka")
        pools = self._kube.list(objects.API, "KafkaNodePool")
        self._ready = set()
        for kafka in kafkas:
            if kafka["metadata"].get("deletionTimestamp"):
                continue
            own = sorted(
                (pool for pool in pools if belongs(pool, kafka)),
                key=lambda pool: str(pool["metadata"]["name"]),
            )
            self._kafka(kafka, own)
        for gone in self._topics.keys() - {key(kafka) for kafka in kafkas}:
            self._topics.pop(gone)
        for topic in self._kube.list(objects.API, "KafkaTopic"):
            self._topic(topic, kafkas)

    def _kafka(self, kafka: Json, pools: list[Json]) -> None:
        if kafka["metadata"].get("annotations", {}).get(PAUSE) == "true":
            status = {
                "conditions": [statuses.condition("ReconciliationPaused", "True")],
                "observedGeneration": kafka["metadata"]["generation"],
            }
            self._write(kafka, {**(kafka.get("status") or {}), **status})
            return
        if not kafka.get("status"):
            kafka["status"] = {}
            self._write(kafka, statuses.creating(kafka))
        reason = objects.unsupported(kafka)
        if reason:
            self._write(kafka, statuses.failed(kafka, "InvalidResourceException", reason))
            return
        if not pools:
            message = f"No KafkaNodePools found for Kafka cluster {kafka['metadata']['name']}"
            self._write(kafka, statuses.failed(kafka, "InvalidConfigurationException", message))
            return
        status = kafka.get("status") or {}
        cluster_id = status.get("clusterId") or next(
            (id_ for pool in pools if (id_ := (pool.get("status") or {}).get("clusterId"))), None
        )
        cluster_id = cluster_id or base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        ids = objects.node_ids(pools)
        for pool in pools:  # first: the cluster's id must be known before a Pod formats its storage with it
            self._write(pool, statuses.pool_status(kafka, pool, ids[pool["metadata"]["name"]], cluster_id))
        for thing in objects.build(kafka, pools, ids, cluster_id):
            self._kube.apply(thing)
        self._judge(kafka, pools, cluster_id)

    def _judge(self, kafka: Json, pools: list[Json], cluster_id: str) -> None:
        namespace = kafka["metadata"]["namespace"]
        waiting = []
        for pool in pools:
            name = f"{kafka['metadata']['name']}-{pool['metadata']['name']}"
            if not rolled_out(self._kube.get("apps/v1", "StatefulSet", namespace, name)):
                waiting.append(name)
        if not waiting:
            self._ready.add(key(kafka))
            self._write(kafka, statuses.ready(kafka, pools, cluster_id))
            return
        status = kafka.get("status") or {}
        conditions = status.get("conditions") or []
        first = conditions[0] if conditions else {}
        if (
            first.get("type") == "Ready"
            and status.get("observedGeneration") == kafka["metadata"]["generation"]
        ):
            # Strimzi writes at the end of a reconciliation, so a restarting broker leaves Ready as it is.
            self._ready.add(key(kafka))
        elif first.get("reason") == "Creating" and age(first) > OPERATION_TIMEOUT:
            text = f"Exceeded timeout of {int(OPERATION_TIMEOUT * 1000)}ms while waiting for Pods resource {waiting[0]} in namespace {namespace} to be ready"
            self._write(kafka, statuses.failed(kafka, "TimeoutException", text))

    def _topic(self, topic: Json, kafkas: list[Json]) -> None:
        kafka = next((one for one in kafkas if belongs(topic, one)), None)
        deleting = topic["metadata"].get("deletionTimestamp")
        finalizers = topic["metadata"].get("finalizers", [])
        if kafka is None or "topicOperator" not in (kafka["spec"].get("entityOperator") or {}):
            if deleting and topics.FINALIZER in finalizers and kafka is None:
                # With the cluster gone there is nothing to delete, and no topic operator to wait for.
                self._kube.set_finalizers(topic, [one for one in finalizers if one != topics.FINALIZER])
            return
        if key(kafka) not in self._ready:
            return
        if not topics.managed(topic):
            self._write(topic, topics.status(topic, [statuses.condition("Unmanaged", "True")], None))
            return
        connection = self._topics.setdefault(key(kafka), topics.Topics(bootstrap(kafka)))
        try:
            if deleting:
                if topics.FINALIZER in finalizers:
                    connection.delete(topics.topic_name(topic))
                    self._kube.set_finalizers(topic, [one for one in finalizers if one != topics.FINALIZER])
                return
            generation, looked = self._seen.get(key(topic), (0, 0.0))
            unchanged = generation == topic["metadata"]["generation"] and topic.get("status")
            if unchanged and time.monotonic() - looked < TOPIC_INTERVAL:
                return
            if topics.FINALIZER not in finalizers:
                self._kube.set_finalizers(topic, [*finalizers, topics.FINALIZER])
            status = connection.reconcile(topic, connection.existing())
            self._write(topic, status)
            if status["conditions"][0]["status"] == "True":
                self._seen[key(topic)] = (topic["metadata"]["generation"], time.monotonic())
        except KafkaException as error:
            logger.warning(
                "Kafka does not answer",
                extra={"data": {"topic": topics.topic_name(topic), "error": str(error)}},
            )
            self._topics.pop(key(kafka), None)

    def _write(self, thing: Json, status: Json) -> None:
        status = statuses.settled(thing.get("status"), status)
        if status != thing.get("status"):
            self._kube.set_status(thing, status)
            thing["status"] = status
            first = (status.get("conditions") or [{}])[0]
            logger.info(
                f"{thing['kind']} {key(thing)}",
                extra={
                    "data": {
                        "condition": first.get("type"),
                        "status": first.get("status"),
                        "reason": first.get("reason"),
                    }
                },
            )


def key(thing: Json) -> str:
    return f"{thing['metadata']['namespace']}/{thing['metadata']['name']}"


def belongs(thing: Json, kafka: Json) -> bool:
    same = thing["metadata"]["namespace"] == kafka["metadata"]["namespace"]
    return bool(
        same and thing["metadata"].get("labels", {}).get(objects.CLUSTER_LABEL) == kafka["metadata"]["name"]
    )


def bootstrap(kafka: Json) -> str:
    port = objects.listeners(kafka)[0]["port"]
    return f"{kafka['metadata']['name']}-kafka-bootstrap.{kafka['metadata']['namespace']}.svc.cluster.local:{port}"


def rolled_out(workload: Json | None) -> bool:
    """Every Pod is of the newest template and ready."""
    if workload is None:
        return False
    status, replicas = workload.get("status") or {}, workload["spec"]["replicas"]
    return bool(
        status.get("observedGeneration") == workload["metadata"]["generation"]
        and status.get("readyReplicas", 0) == replicas
        and status.get("currentRevision") == status.get("updateRevision")
    )


def age(condition: Json) -> float:
    began = datetime.fromisoformat(condition["lastTransitionTime"].replace("Z", "+00:00"))
    return (datetime.now(UTC) - began).total_seconds()


if __name__ == "__main__":
    log.setup()
    Standin(Kube("strimzi-standin")).run()
