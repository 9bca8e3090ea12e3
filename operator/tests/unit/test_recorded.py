"""Statuses as the real Strimzi and Flink operators wrote them, and as Kubernetes writes what it can't start."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from typing import Any

import pytest

from fraud_contracts import names
from fraud_contracts.names import MODEL_VERSION_ANNOTATION
from fraud_operator import child_status
from fraud_operator.child_status import Level
from fraud_operator.settings import KafkaSettings
from fraud_testing.healthy import NOW, conditions_of, healthy_facts, make_detector
from fraud_testing.recorded import sequence, strimzi

UP, READY, DEGRADED = Level.PROGRESSING, Level.READY, Level.DEGRADED
CREATED = "2025-11-24T20:01:00Z"


def levels(name: str, kind: str) -> list[Level]:
    """The verdict over each recorded change of an object made just now, each run of the same one once."""
    read = child_status.flink if kind == "FlinkDeployment" else child_status.kafka
    changes = sequence(name, kind)
    for change in changes:
        change["metadata"]["creationTimestamp"] = CREATED
    return [level for level, _ in itertools.groupby(read(change, NOW).level for change in changes)]


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        # A TaskManager is killed, then the JobManager, then the Features' memory is changed; deleted at the end.
        ("payments", "FlinkDeployment", [UP, READY, DEGRADED, READY, DEGRADED, READY, UP, READY, UP]),
        # Two times the job restarts, since Kafka isn't there yet; deleted at the end.
        ("pay2", "FlinkDeployment", [UP, READY, DEGRADED, READY, DEGRADED, READY, UP]),
        ("payments", "Kafka", [UP, READY]),
        ("pay2", "Kafka", [UP, DEGRADED]),
    ],
)
def test_recorded_sequences(name: str, kind: str, expected: list[Level]) -> None:
    """A lost JobManager or TaskManager is degraded, all before the first STABLE is progress, nothing is a failure."""
    assert levels(name, kind) == expected


def conditions(kafka: Any, *, ephemeral: bool = False, topic: Any = None) -> dict[str, dict[str, Any]]:
    """The detector's conditions where all is well but for what Strimzi says."""
    detector = make_detector()
    platform = detector.platform.model_copy(update={"kafka": KafkaSettings(ephemeral=ephemeral)})
    detector = replace(detector, platform=platform)
    facts = healthy_facts(detector)
    children = {**facts.children, ("Kafka", "d"): kafka}
    if topic is not None:
        children["KafkaTopic", names.kafka_topic("d", "decisions")] = topic
    return conditions_of(detector, replace(facts, children=children))


def test_several_warnings_are_all_told() -> None:
    """Strimzi puts two conditions of type Warning before Ready; Degraded shows both."""
    kafka, _ = strimzi()
    degraded = conditions(kafka)["Degraded"]
    assert degraded["status"] == "True"
    assert "single broker node" in degraded["message"] and "single controller node" in degraded["message"]


def test_ephemeral_brokers_are_no_warning_where_the_platform_wants_them() -> None:
    """On a platform without volumes KafkaStorage degrades nothing; another warning beside it does."""
    kafka, _ = strimzi()
    assert conditions(kafka, ephemeral=True)["Degraded"]["status"] == "False"
    other = copy.deepcopy(kafka)
    other["status"]["conditions"].insert(
        0, {"type": "Warning", "status": "True", "reason": "DeprecatedFields", "message": "x is old"}
    )
    degraded = conditions(other, ephemeral=True)["Degraded"]
    assert "x is old" in degraded["message"] and "KafkaStorage" not in degraded["message"]


def test_a_topic_tells_its_failure_and_its_warnings() -> None:
    """A topic that is not ready is named with its message; what a ready one warns of is shown too."""
    kafka, topic = strimzi()
    failed = copy.deepcopy(topic)
    failed["status"]["conditions"] = [
        {"type": "Ready", "status": "False", "reason": "KafkaError", "message": "Replication factor: 3 larger than 1"}
    ]  # fmt: skip
    ready = conditions(kafka, ephemeral=True, topic=failed)["KafkaReady"]
    assert (
        ready["reason"] == "Failed" and "n.d.decisions.v1 KafkaError: Replication factor" in ready["message"]
    )
    warned = copy.deepcopy(topic)
    warned["status"]["conditions"].insert(
        0, {"type": "Warning", "status": "True", "reason": "InvalidValue", "message": "retention is odd"}
    )
    degraded = conditions(kafka, ephemeral=True, topic=warned)["Degraded"]
    assert "retention is odd" in degraded["message"]


FORBIDDEN = 'pods "d-decision-1" is forbidden: violates PodSecurity "restricted:latest"'


def no_pods(name: str) -> dict[str, Any]:
    """A workload whose Pods the API server refuses, as Kubernetes' controllers leave it."""
    conditions = [
        {"type": "Progressing", "status": "True", "reason": "NewReplicaSetCreated"},
        {"type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable"},
        {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": FORBIDDEN},
    ]
    status: dict[str, Any] = {"observedGeneration": 1, "unavailableReplicas": 1, "conditions": conditions}
    meta = {"name": name, "namespace": "n", "generation": 1, "creationTimestamp": "2025-11-24T19:00:00Z"}
    return {"kind": "Deployment", "metadata": meta, "spec": {"replicas": 1}, "status": status}


@pytest.mark.parametrize(
    ("name", "condition"),
    [("d-decision", "ServingReady"), ("d-lake-sink", "Ready"), ("d-worker", "ServingReady")],
)
def test_pods_that_may_not_be_made_are_told(name: str, condition: str) -> None:
    """ReplicaFailure is a failure: Degraded, with the message."""
    detector = make_detector()
    facts = healthy_facts(detector)
    states = conditions_of(
        detector, replace(facts, children={**facts.children, ("Deployment", name): no_pods(name)})
    )
    assert states[condition]["status"] == "False" and FORBIDDEN in states[condition]["message"]
    assert states["Degraded"]["status"] == "True" and FORBIDDEN in states["Degraded"]["message"]


def test_pods_that_may_not_be_made_stay_blocked_past_the_deadline() -> None:
    """A quota that lasts longer than progressDeadlineSeconds is told as what it is, and speaks against no version."""
    child = no_pods("d-decision")
    late = {
        "type": "Progressing",
        "status": "False",
        "reason": "ProgressDeadlineExceeded",
        "message": "timed out",
    }
    child["status"]["conditions"][0] = late
    verdict = child_status.workload(child)
    assert verdict.level is Level.BLOCKED and FORBIDDEN in verdict.message
    child["spec"]["template"] = {"metadata": {"annotations": {MODEL_VERSION_ANNOTATION: "1"}}}
    service = {"metadata": {}, "status": {"conditions": [{**late, "type": "PredictorReady"}]}}
    verdict = child_status.predictor(service, child, "1", NOW)
    assert verdict.level is Level.BLOCKED and FORBIDDEN in verdict.message
