"""When the Strimzi stand-in makes and says what, and what it leaves undone as the original does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fraud_local import strimzi_objects as objects
from fraud_local import strimzi_standin as standins
from fraud_local import topic_operator, topics
from fraud_testing.standin_cluster import Cluster

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "recorded" / "strimzi-1.2.0.json").read_text())
NODES, OPERATOR = ("StatefulSet", "pay2", "pay-nodes-935087"), ("Deployment", "pay2", "pay-entity-operator")
DELETED = {"deletionTimestamp": "2026-11-28T23:20:00Z"}


def _new(name: str) -> dict[str, Any]:
    """A recorded resource as a user has just applied it."""
    thing = {key: value for key, value in RECORDED[name].items() if key != "status"}
    return {**thing, "metadata": {k: v for k, v in thing["metadata"].items() if k != "finalizers"}}


class Broker:
    """Topics by name, and nothing else of Kafka."""

    def __init__(self) -> None:
        self.topics: set[str] = set()
        self.deleted: list[str] = []

    def existing(self) -> dict[str, tuple[int, int]]:
        return dict.fromkeys(self.topics, (2, 1))

    def reconcile(self, topic: dict[str, Any], existing: object) -> dict[str, Any]:
        self.topics.add(topics.topic_name(topic))
        return dict(RECORDED["topic"]["status"])

    def delete(self, name: str) -> None:
        self.deleted.append(name)
        self.topics.discard(name)


class StrimziWorld:
    """A namespace with a Kafka, its pool and one topic; Pods come when the test says so, time passes as it says."""

    def __init__(self, **entity: Any) -> None:
        kafka = _new("kafka")
        kafka["spec"]["entityOperator"] = {"topicOperator": {}, **entity}
        self.cluster = Cluster(kafka, _new("pool"), _new("topic"))
        self.standin = standins.StrimziStandin(self.cluster)  # type: ignore[arg-type]  # a fake of ApiClient
        self.broker = Broker()
        self.standin._topics = topic_operator.TopicOperator(self.cluster, lambda _: self.broker)  # type: ignore[arg-type, return-value]  # fakes of ApiClient and Topics
        self.now = 1000.0

    def turn(self, seconds: float = 2.0) -> None:
        self.now += seconds
        self.standin.once(self.now)

    def start(self, key: tuple[str, str, str]) -> None:
        """A workload's Pods are ready."""
        workload = self.cluster.objects[key]
        workload["metadata"]["generation"] = 1
        workload["status"] = {
            "observedGeneration": 1,
            "readyReplicas": workload["spec"]["replicas"],
            "availableReplicas": workload["spec"]["replicas"],
        }

    def run(self) -> None:
        """Until the Kafka is ready and its topic made."""
        self.turn()
        self.start(NODES)
        self.turn()
        self.start(OPERATOR)
        self.turn()

    @property
    def kafka(self) -> dict[str, Any]:
        return self.cluster.objects["Kafka", "pay2", "pay"]

    @property
    def topic(self) -> dict[str, Any]:
        return self.cluster.objects["KafkaTopic", "pay2", "pay-accepted"]

    def conditions(self) -> list[str]:
        return [one["type"] for one in self.kafka["status"]["conditions"]]


def test_a_kafka_comes_up_in_strimzis_order() -> None:
    """First a status of generation 0, then the nodes, then the entity operator, then Ready behind its warnings."""
    world = StrimziWorld()
    world.turn()
    assert (world.conditions(), world.kafka["status"]["observedGeneration"]) == (["NotReady"], 0)
    assert world.cluster.names("Deployment") == set()
    world.start(NODES)
    world.turn()
    assert world.cluster.names("Deployment") == {"pay-entity-operator"}
    assert world.conditions() == ["NotReady"]
    world.start(OPERATOR)
    world.turn()
    assert (world.conditions(), world.kafka["status"]["observedGeneration"]) == (
        ["Warning", "Warning", "Ready"],
        1,
    )


@pytest.mark.parametrize("kind", ["ServiceAccount", "Role", "RoleBinding", "Service", "ConfigMap"])
def test_what_somebody_deletes_is_missed(kind: str) -> None:
    """It isn't made again before the next reconciliation, two minutes after the one before; until then nothing comes up."""
    world = StrimziWorld()
    world.turn()
    for key in [key for key in world.cluster.objects if key[0] == kind]:
        del world.cluster.objects[key]
    world.turn(100.0)
    assert world.cluster.names(kind) == set()
    world.turn(201.0)  # the nodes' Pods never came: this reconciliation has failed
    assert world.kafka["status"]["conditions"][0]["reason"] == "TimeoutException"
    world.turn()
    assert world.cluster.names(kind) != set()


def test_a_settled_kafka_is_left_alone_for_two_minutes() -> None:
    """Nothing is applied again but for a changed spec, and Ready stays while a broker restarts."""
    world = StrimziWorld()
    world.run()
    world.cluster.applied.clear()
    world.cluster.objects[NODES]["status"]["readyReplicas"] = 0
    world.turn(60.0)
    assert (world.cluster.applied, world.conditions()[-1]) == ([], "Ready")
    world.kafka["metadata"]["generation"] = 2
    world.turn()
    assert NODES in world.cluster.applied
    assert world.conditions()[-1] == "Ready"


def test_a_namespace_that_ends_keeps_no_other_kafka_waiting() -> None:
    """What the API server refuses fails this Kafka's reconciliation and no other."""
    world = StrimziWorld()
    other = json.loads(json.dumps(_new("kafka")).replace("pay2", "else"))
    other["metadata"]["uid"] = "else"
    world.cluster.put(other)
    world.cluster.put(json.loads(json.dumps(_new("pool")).replace("pay2", "else")))
    world.cluster.ending.add("pay2")
    world.turn()
    assert world.kafka["status"]["conditions"][0]["reason"] == "KubernetesClientException"
    assert ("StatefulSet", "else", "pay-nodes-935087") in world.cluster.objects


def test_a_topic_has_a_finalizer_until_its_topic_is_deleted() -> None:
    """In a cluster that stays, deletion takes the topic first and then the finalizer."""
    world = StrimziWorld()
    world.run()
    name = topics.topic_name(world.topic)
    assert (world.topic["metadata"]["finalizers"], world.broker.topics) == ([topics.FINALIZER], {name})
    world.topic["metadata"].update(DELETED)
    world.turn()
    assert world.broker.topics == set()
    assert world.cluster.names("KafkaTopic") == set()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("Deployment", "pay-entity-operator"),
        ("ServiceAccount", "pay-entity-operator"),
        ("Role", "pay-entity-operator"),
        ("RoleBinding", "pay-entity-topic-operator-role"),
    ],
)
def test_the_finalizer_stays_once_the_topic_operator_is_gone(kind: str, name: str) -> None:
    """Without it, its account or its rights nobody takes the finalizer off, with the Kafka or without."""
    world = StrimziWorld()
    world.run()
    del world.cluster.objects[kind, "pay2", name]
    world.topic["metadata"].update(DELETED)
    world.turn()
    del world.cluster.objects["Kafka", "pay2", "pay"]
    world.turn()
    assert world.topic["metadata"]["finalizers"] == [topics.FINALIZER]


def test_topics_without_finalizers_are_deleted_all_the_same() -> None:
    """Where the topic operator is told to use none, a namespace can end, and in one that stays the topic still goes."""
    off = {"name": "STRIMZI_USE_FINALIZERS", "value": "false"}
    world = StrimziWorld(template={"topicOperatorContainer": {"env": [off]}})
    world.topic["metadata"]["finalizers"] = [topics.FINALIZER]  # from before the setting
    world.run()
    assert world.topic["metadata"]["finalizers"] == []
    assert len(world.broker.topics) == 1
    del world.cluster.objects["KafkaTopic", "pay2", "pay-accepted"]
    world.turn()
    assert world.broker.topics == set()


def test_a_topic_that_is_asked_for_again_at_once_is_another_one() -> None:
    """Whoever deletes its KafkaTopic and makes it again gets a new topic, though both came between two looks."""
    off = {"name": "STRIMZI_USE_FINALIZERS", "value": "false"}
    world = StrimziWorld(template={"topicOperatorContainer": {"env": [off]}})
    world.run()
    name = topics.topic_name(world.topic)
    again = _new("topic")
    again["metadata"]["uid"] = "another"
    world.cluster.objects["KafkaTopic", "pay2", "pay-accepted"] = again
    world.turn()
    assert (world.broker.deleted, world.broker.topics) == ([name], {name})


def test_a_paused_kafka_says_so() -> None:
    """Nothing is made of it."""
    world = StrimziWorld()
    world.kafka["metadata"]["annotations"] = {standins.PAUSE: "true"}
    world.turn()
    assert world.conditions() == ["ReconciliationPaused"]
    assert world.cluster.list(objects.API, "StatefulSet") == []
