"""Acts as the topic operator that Strimzi's entity operator runs: KafkaTopic objects to topics of a real cluster.

Once it is gone nobody takes its finalizer off a KafkaTopic, as with the original.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaException

from fraud_local import strimzi_entity as entity
from fraud_local import strimzi_objects as objects
from fraud_local import strimzi_status as statuses
from fraud_local import topics
from fraud_local.api_client import ApiClient, Json
from fraud_local.entity_operator import ClusterKey, Connections, by_cluster

logger = logging.getLogger("topic-operator")
# Strimzi's own: a full look at a topic that has not changed; a changed generation is seen in the next pass.
TOPIC_INTERVAL = 120.0


@dataclass
class ReconciledTopic:
    """A topic that is as its KafkaTopic wants it: its name in Kafka, of which object and generation, since when (s)."""

    topic: str
    uid: str
    generation: int
    at: float


class TopicOperator:
    """Its memory ends with the process, as the original's does with its Pod.

    A KafkaTopic without a finalizer that is deleted meanwhile leaves its topic behind.
    """

    def __init__(
        self, kube: ApiClient, connect: Callable[[dict[str, Any]], topics.Topics] = topics.Topics
    ) -> None:
        self._kube = kube
        self._connections = Connections(kube, "topic", connect)
        self._reconciled: dict[ClusterKey, dict[str, ReconciledTopic]] = {}

    def once(self, now: float) -> None:
        clusters = by_cluster(self._kube.list(objects.API, "KafkaTopic"), self._reconciled)
        for key, own in clusters.items():
            environment = self._connections.environment(key)
            if environment is None:
                self._reconciled.pop(key, None)
                self._connections.forget(key)
                continue
            try:
                self._cluster(key, own, environment, now)
            except (KafkaException, KeyError) as error:
                logger.warning(
                    "Kafka does not answer", extra={"data": {"cluster": "/".join(key), "error": str(error)}}
                )
                self._connections.forget(key)

    def _cluster(self, key: ClusterKey, own: list[Json], environment: dict[str, str], now: float) -> None:
        connection = self._connections.get(key, environment)
        reconciled = self._reconciled.setdefault(key, {})
        finalizers = environment.get(entity.FINALIZERS, "true") == "true"
        # The original is told of each deletion, also of an object that another of its name has replaced since.
        there = {topic["metadata"]["uid"] for topic in own}
        for name, one in list(reconciled.items()):
            if one.uid not in there:
                connection.delete(one.topic)  # deleted without a finalizer
                reconciled.pop(name)
        for topic in own:
            if topic["metadata"].get("deletionTimestamp"):
                self._deleted(connection, topic)
                reconciled.pop(topic["metadata"]["name"], None)
            else:
                self._wanted(connection, topic, reconciled, finalizers, now)

    def _deleted(self, connection: topics.Topics, topic: Json) -> None:
        finalizers = topic["metadata"].get("finalizers") or []
        if topics.FINALIZER in finalizers:
            if topics.managed(topic):
                connection.delete(topics.topic_name(topic))
            self._kube.set_finalizers(topic, [one for one in finalizers if one != topics.FINALIZER])

    def _wanted(
        self,
        connection: topics.Topics,
        topic: Json,
        reconciled: dict[str, ReconciledTopic],
        finalizers: bool,
        now: float,
    ) -> None:
        meta = topic["metadata"]
        kept = [one for one in meta.get("finalizers") or [] if one != topics.FINALIZER]
        wanted = [*kept, topics.FINALIZER] if finalizers else kept
        if sorted(wanted) != sorted(meta.get("finalizers") or []):
            self._kube.set_finalizers(topic, wanted)
        if not topics.managed(topic):
            reconciled.pop(meta["name"], None)
            statuses.write(
                self._kube, topic, topics.status(topic, [statuses.condition("Unmanaged", "True")], None)
            )
            return
        before = reconciled.get(meta["name"])
        unchanged = before is not None and before.generation == meta["generation"] and topic.get("status")
        if before is not None and unchanged and now - before.at < TOPIC_INTERVAL:
            return
        status = connection.reconcile(topic, connection.existing())
        statuses.write(self._kube, topic, status)
        if status["conditions"][0]["status"] == "True":
            reconciled[meta["name"]] = ReconciledTopic(
                topics.topic_name(topic), meta["uid"], meta["generation"], now
            )
