"""Stands in for the Strimzi operator, which is in no package registry: real brokers and real topics, Strimzi's statuses.

    python -m fraud_local.strimzi_standin        on the local node, started by fraud_local.operators

A Kafka is reconciled as Strimzi reconciles it: when it has changed, and every two minutes. Only then is anything made, so what somebody
else deletes is missed until the next reconciliation, and a Pod that lacks its account waits as long.
"""

from __future__ import annotations

import base64
import logging
import time
import uuid
from dataclasses import dataclass

import requests

from fraud_contracts import log
from fraud_local import strimzi_brokers as brokers
from fraud_local import strimzi_entity as entity
from fraud_local import strimzi_objects as objects
from fraud_local import strimzi_status as statuses
from fraud_local.api_client import ApiClient, ApiServerError, Json
from fraud_local.strimzi_secrets import SecretMaker
from fraud_local.topic_operator import TopicOperator
from fraud_local.user_operator import UserOperator

logger = logging.getLogger("strimzi-standin")
INTERVAL = 2.0
# Strimzi's own: seconds from one look at an unchanged Kafka to the next, and until one that isn't ready is given up.
RECONCILIATION_INTERVAL = 120.0
OPERATION_TIMEOUT = 300.0
PAUSE = "strimzi.io/pause-reconciliation"


@dataclass
class Run:
    """One reconciliation: of which generations, since when, and how far it is."""

    generations: list[int]
    began: float
    cluster_id: str
    waits_for: list[tuple[str, str]]
    brokers_ready: bool = False
    done: bool = False


class StrimziStandin:
    """State between passes is lost with the process, as Strimzi's is: all is reconciled again."""

    def __init__(self, kube: ApiClient) -> None:
        self._kube = kube
        self._runs: dict[str, Run] = {}
        self._topics, self._users = TopicOperator(kube), UserOperator(kube)

    def run(self) -> None:
        while True:
            try:
                self.once(time.monotonic())
            except (ApiServerError, requests.RequestException) as error:
                logger.warning("a pass failed and is repeated", extra={"data": {"error": str(error)}})
            time.sleep(INTERVAL)

    def once(self, now: float) -> None:
        """One look at everything; ``now`` is a clock in seconds."""
        kafkas = self._kube.list(objects.API, "Kafka")
        pools = self._kube.list(objects.API, "KafkaNodePool")
        for kafka in kafkas:
            if kafka["metadata"].get("deletionTimestamp"):
                continue
            own = sorted(
                (pool for pool in pools if belongs(pool, kafka)),
                key=lambda pool: str(pool["metadata"]["name"]),
            )
            try:
                self._kafka(kafka, own, now)
            except ApiServerError as error:
                # A namespace that ends takes nothing new, and then the objects go one by one.
                self._end(kafka, statuses.failed(kafka, "KubernetesClientException", str(error)))
        for gone in self._runs.keys() - {kafka["metadata"]["uid"] for kafka in kafkas}:
            self._runs.pop(gone)
        self._topics.once(now)
        self._users.once(now)

    def _kafka(self, kafka: Json, pools: list[Json], now: float) -> None:
        if (kafka["metadata"].get("annotations") or {}).get(PAUSE) == "true":
            status = {
                "conditions": [statuses.condition("ReconciliationPaused", "True")],
                "observedGeneration": kafka["metadata"]["generation"],
            }
            self._write(kafka, {**(kafka.get("status") or {}), **status})
            return
        run = self._runs.get(kafka["metadata"]["uid"])
        generations = [thing["metadata"]["generation"] for thing in (kafka, *pools)]
        due = run is None or (
            run.done and (run.generations != generations or now - run.began >= RECONCILIATION_INTERVAL)
        )
        if due:
            self._begin(kafka, pools, generations, now)
        run = self._runs[kafka["metadata"]["uid"]]
        if not run.done:
            self._check_progress(kafka, pools, run, now)

    def _begin(self, kafka: Json, pools: list[Json], generations: list[int], now: float) -> None:
        """Makes everything that the nodes need, and the nodes."""
        reported = (pool.get("status") or {} for pool in (kafka, *pools))
        cluster_id = next((str(one["clusterId"]) for one in reported if one.get("clusterId")), None)
        cluster_id = cluster_id or base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        sets = [("StatefulSet", f"{kafka['metadata']['name']}-{pool['metadata']['name']}") for pool in pools]
        self._runs[kafka["metadata"]["uid"]] = Run(generations, now, cluster_id, sets)
        if not kafka.get("status"):
            self._write(kafka, statuses.creating())
        reason = objects.unsupported(kafka)
        if reason:
            self._end(kafka, statuses.failed(kafka, "InvalidResourceException", reason))
            return
        if not pools:
            message = f"No KafkaNodePools found for Kafka cluster {kafka['metadata']['name']}"
            self._end(kafka, statuses.failed(kafka, "InvalidConfigurationException", message))
            return
        ids = objects.node_ids(pools)
        # First: the cluster's id must be reported before a Pod formats its storage with it.
        for pool in pools:
            self._write(pool, statuses.pool_status(kafka, pool, ids[pool["metadata"]["name"]], cluster_id))
        pods = [
            brokers.pod_name(kafka, pool, node) for pool in pools for node in ids[pool["metadata"]["name"]]
        ]
        certificates = SecretMaker(self._kube, kafka).make(brokers.certificate_hosts(kafka, pools, ids))
        for thing in (
            *objects.build(kafka, pods),
            *brokers.build(kafka, pools, ids, cluster_id, certificates),
        ):
            self._kube.apply(thing)

    def _check_progress(self, kafka: Json, pools: list[Json], run: Run, now: float) -> None:
        """Ready once the nodes and then the entity operator are; until then the earlier status stays."""
        namespace = kafka["metadata"]["namespace"]
        run.waits_for = [
            (kind, name)
            for kind, name in run.waits_for
            if not rolled_out(self._kube.get("apps/v1", kind, namespace, name))
        ]
        if not run.waits_for and not run.brokers_ready:
            run.brokers_ready = True
            for thing in entity.build(kafka):
                self._kube.apply(thing)
                if thing["kind"] == "Deployment":
                    run.waits_for.append(("Deployment", thing["metadata"]["name"]))
        if not run.waits_for:
            self._end(kafka, statuses.ready(kafka, pools, run.cluster_id))
        elif now - run.began > OPERATION_TIMEOUT:
            text = (
                f"Exceeded timeout of {int(OPERATION_TIMEOUT * 1000)}ms while waiting for Pods resource "
                f"{run.waits_for[0][1]} in namespace {namespace} to be ready"
            )
            self._end(kafka, statuses.failed(kafka, "TimeoutException", text))

    def _end(self, kafka: Json, status: Json) -> None:
        self._runs[kafka["metadata"]["uid"]].done = True
        self._write(kafka, status)

    def _write(self, thing: Json, status: Json) -> None:
        statuses.write(self._kube, thing, status)


def belongs(thing: Json, kafka: Json) -> bool:
    same = thing["metadata"]["namespace"] == kafka["metadata"]["namespace"]
    labels = thing["metadata"].get("labels") or {}
    return bool(same and labels.get(objects.CLUSTER_LABEL) == kafka["metadata"]["name"])


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


if __name__ == "__main__":
    log.setup()
    StrimziStandin(ApiClient("strimzi-standin")).run()
