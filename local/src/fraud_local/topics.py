"""KafkaTopic objects to real topics, as Strimzi's topic operator does it, by Kafka's own admin interface."""

from __future__ import annotations

import time
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from fraud_local.api_client import Json
from fraud_local.strimzi_status import condition

FINALIZER = "strimzi.io/topic-operator"
MANAGED_ANNOTATION = "strimzi.io/managed"
TIMEOUT = 15.0


class TopicError(Exception):
    """Why a topic is not as wanted; ``reason`` is what Strimzi writes into the condition."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def topic_name(topic: Json) -> str:
    return str(topic["spec"].get("topicName") or topic["metadata"]["name"])


def wanted_config(topic: Json) -> dict[str, str]:
    def text(value: Any) -> str:
        return str(value).lower() if isinstance(value, bool) else str(value)

    return {key: text(value) for key, value in (topic["spec"].get("config") or {}).items()}


def managed(topic: Json) -> bool:
    return bool(topic["metadata"].get("annotations", {}).get(MANAGED_ANNOTATION, "true") != "false")


def config_changes(wanted: dict[str, str], present: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """What to set and what to take back: only settings made on the topic itself count as present."""
    return {key: value for key, value in wanted.items() if present.get(key) != value}, [
        key for key in present if key not in wanted
    ]


def status(topic: Json, conditions: list[Json], topic_id: str | None) -> Json:
    built: Json = {"conditions": conditions, "observedGeneration": topic["metadata"]["generation"]}
    if managed(topic):
        built["topicName"] = topic_name(topic)
        if topic_id:
            built["topicId"] = topic_id
    return built


class Topics:
    """One cluster's topics. ``settings`` are librdkafka's."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._admin = AdminClient({**settings, "socket.timeout.ms": 10_000, "logger": None})

    def existing(self) -> dict[str, tuple[int, int]]:
        """Partitions and replicas of each topic; fails if the cluster does not answer."""
        topics = self._admin.list_topics(timeout=TIMEOUT).topics
        return {
            name: (len(one.partitions), len(one.partitions[0].replicas) if one.partitions else 0)
            for name, one in topics.items()
        }

    def reconcile(self, topic: Json, existing: dict[str, tuple[int, int]]) -> Json:
        """Make it so, and give the status."""
        try:
            topic_id = self._ensure(topic, existing)
        except TopicError as error:
            return status(topic, [condition("Ready", "False", error.reason, str(error))], None)
        except KafkaException as error:
            return status(topic, [condition("Ready", "False", "KafkaError", str(error))], None)
        return status(topic, [condition("Ready", "True")], topic_id)

    def _ensure(self, topic: Json, existing: dict[str, tuple[int, int]]) -> str | None:
        name, spec, config = topic_name(topic), topic["spec"], wanted_config(topic)
        if name not in existing:
            new = NewTopic(
                name,
                num_partitions=spec.get("partitions", -1),
                replication_factor=spec.get("replicas", -1),
                config=config,
            )
            self._admin.create_topics([new], operation_timeout=TIMEOUT)[name].result()
            return self._topic_id(name)
        partitions, replicas = existing[name]
        wanted = spec.get("partitions", partitions)
        if wanted < partitions:
            raise TopicError("NotSupported", f"Decreasing partitions not supported: {partitions} to {wanted}")
        if spec.get("replicas", replicas) != replicas:
            raise TopicError(
                "NotSupported",
                "Replication factor change not supported, but required for partitions of the topic",
            )
        if wanted > partitions:
            self._admin.create_partitions([NewPartitions(name, wanted)])[name].result()
        self._configure(name, config)
        return self._topic_id(name)

    def _configure(self, name: str, wanted: dict[str, str]) -> None:
        resource = ConfigResource(ResourceType.TOPIC, name)
        described = self._admin.describe_configs([resource])[resource].result()
        own = ConfigSource.DYNAMIC_TOPIC_CONFIG.value
        present = {key: entry.value for key, entry in described.items() if entry.source == own}
        to_set, to_delete = config_changes(wanted, present)
        if not to_set and not to_delete:
            return
        entries = [
            ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
            for key, value in to_set.items()
        ]
        entries += [
            ConfigEntry(key, None, incremental_operation=AlterConfigOpType.DELETE) for key in to_delete
        ]
        change = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
        self._admin.incremental_alter_configs([change])[change].result()

    def _topic_id(self, name: str) -> str | None:
        """The topic's id; a broker may need a moment before it knows a topic that was just created."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                described = self._admin.describe_topics(TopicCollection([name]))[name].result()
                return str(described.topic_id) if described.topic_id is not None else None
            except KafkaException as error:
                unknown = error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART
                if not unknown or time.monotonic() > deadline:
                    raise
            time.sleep(0.2)

    def delete(self, name: str) -> None:
        """Gone, whether or not it was there."""
        if name in self.existing():
            self._admin.delete_topics([name], operation_timeout=TIMEOUT)[name].result()
