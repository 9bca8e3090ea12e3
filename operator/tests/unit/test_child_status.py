"""One rule for each kind of child, from statuses as their controllers write them."""

from __future__ import annotations

from typing import Any

import pytest

from fraud_contracts.names import MODEL_VERSION_ANNOTATION
from fraud_operator import child_status
from fraud_operator.child_status import Level

CREATED = "2025-11-24T20:00:00Z"
SOON, LATE = 1_764_014_410_000, 1_764_014_500_000


def kafka(*conditions: dict[str, str], observed: int = 2) -> dict[str, Any]:
    return {
        "kind": "Kafka",
        "metadata": {"generation": 2, "creationTimestamp": CREATED},
        "status": {"observedGeneration": observed, "conditions": list(conditions)},
    }


TRUE = {"status": "True"}


@pytest.mark.parametrize(
    ("child", "level"),
    [
        (None, Level.ABSENT),
        (kafka({"type": "Ready", **TRUE}), Level.READY),
        (kafka({"type": "Ready", **TRUE}, observed=1), Level.PROGRESSING),
        (kafka({"type": "NotReady", "reason": "Creating", **TRUE}), Level.PROGRESSING),
        (kafka({"type": "NotReady", "reason": "TimeoutException", **TRUE}), Level.FAILED),
        (kafka({"type": "Ready", "status": "False", "reason": "KafkaError"}), Level.FAILED),
        (kafka({"type": "Ready", **TRUE}, {"type": "Warning", **TRUE}), Level.DEGRADED),
        (kafka({"type": "NotReady", "reason": "Creating", **TRUE}, observed=0), Level.PROGRESSING),
        (kafka({"type": "Warning", **TRUE}, {"type": "NotReady", "reason": "X", **TRUE}), Level.FAILED),
    ],
)
def test_kafka(child: Any, level: Level) -> None:
    """Strimzi says Ready or NotReady, never both, and Warning beside them; topics say Ready=False."""
    assert child_status.kafka(child, SOON).level is level


def test_silence_names_the_operator() -> None:
    """A child without any status is progressing at first; after a minute its operator is named as missing."""
    assert child_status.kafka(kafka(), SOON).level is Level.PROGRESSING
    silent = child_status.kafka(kafka(), LATE)
    assert silent.level is Level.SILENT and "Strimzi" in silent.message


def flink(lifecycle: str, state: str | None, error: str | None = None, observed: int = 3) -> dict[str, Any]:
    status = {
        "lifecycleState": lifecycle,
        "jobStatus": {"state": state},
        "error": error,
        "observedGeneration": observed,
    }
    return {"metadata": {"generation": 3, "creationTimestamp": CREATED}, "status": status}


@pytest.mark.parametrize(
    ("child", "level"),
    [
        (flink("STABLE", "RUNNING"), Level.READY),
        (flink("STABLE", "RUNNING", observed=2), Level.PROGRESSING),
        (flink("STABLE", "RESTARTING"), Level.DEGRADED),
        (flink("STABLE", "INITIALIZING"), Level.DEGRADED),
        (flink("STABLE", "CREATED"), Level.DEGRADED),
        (flink("STABLE", None), Level.DEGRADED),
        (flink("STABLE", "CANCELED"), Level.FAILED),
        (flink("DEPLOYED", "RECONCILING"), Level.PROGRESSING),
        (flink("ROLLED_BACK", "RUNNING"), Level.DEGRADED),
        (flink("STABLE", "RUNNING", '{"message": "savepoint failed"}'), Level.DEGRADED),
        (flink("FAILED", "FAILED"), Level.FAILED),
        (flink("CREATED", None, '{"message": "no such jar"}'), Level.FAILED),
        (flink("DEPLOYED", "INITIALIZING"), Level.PROGRESSING),
    ],
)
def test_flink(child: Any, level: Level) -> None:
    """STABLE alone isn't enough: the job must be RUNNING, of this generation, without an error."""
    assert child_status.flink(child, SOON).level is level


def test_flinks_error_is_unwrapped() -> None:
    """The message inside Flink's JSON error is what a person reads."""
    assert (
        child_status.flink(flink("CREATED", None, '{"message": "no such jar"}'), SOON).message
        == "no such jar"
    )


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            '{"type": "x", "message": "pods \\"f\\" is forbidden: violates PodSecurity"}',
            "violates PodSecurity",
        ),
        ("pods is forbidden: violates PodSecurity", "violates PodSecurity"),
        (None, "the JobManager can't start"),
    ],
)
def test_a_job_manager_that_cannot_start_is_a_failure(error: str | None, message: str) -> None:
    """jobManagerDeploymentStatus ERROR is a failure with its message, as JSON or as plain text."""
    child = flink("DEPLOYED", "RECONCILING", error)
    child["status"]["jobManagerDeploymentStatus"] = "ERROR"
    verdict = child_status.flink(child, SOON)
    assert verdict.level is Level.FAILED and message in verdict.message


def test_an_error_while_the_job_comes_up_is_told() -> None:
    """What the Flink operator stumbles over before the job is stable stands in the message."""
    verdict = child_status.flink(flink("DEPLOYED", "RECONCILING", "Job Not Found"), SOON)
    assert verdict.level is Level.PROGRESSING and "Job Not Found" in verdict.message


def test_times_with_nanoseconds_are_read() -> None:
    """Both operators write times with nanoseconds; silence and what was overlooked are reckoned from them."""
    child = kafka()
    child["metadata"]["creationTimestamp"] = "2025-11-24T20:00:00.637870282Z"
    assert child_status.kafka(child, SOON).level is Level.PROGRESSING
    assert child_status.kafka(child, LATE).level is Level.SILENT


def deployment(version: str = "1", ready: int = 1, generation: int = 1) -> dict[str, Any]:
    return {
        "kind": "Deployment",
        "metadata": {"generation": generation},
        "spec": {
            "replicas": 1,
            "template": {"metadata": {"annotations": {MODEL_VERSION_ANNOTATION: version}}},
        },
        "status": {"observedGeneration": 1, "updatedReplicas": ready, "availableReplicas": ready},
    }


def service(**model: Any) -> dict[str, Any]:
    return {
        "metadata": {"creationTimestamp": CREATED},
        "status": {
            "conditions": [{"type": "Ready", **TRUE}, {"type": "PredictorReady", **TRUE}],
            "modelStatus": model,
        },
    }


@pytest.mark.parametrize(
    ("isvc", "deploy", "level"),
    [
        (service(), deployment(), Level.READY),
        (service(), deployment("2"), Level.PROGRESSING),
        (service(), deployment(ready=0), Level.PROGRESSING),
        (service(), deployment(generation=2), Level.PROGRESSING),
        (service(), None, Level.PROGRESSING),
        (
            service(transitionStatus="BlockedByFailedLoad", lastFailureInfo={"message": "x"}),
            deployment(),
            Level.FAILED,
        ),
        (service(copies={"failedCopies": 1}), deployment(), Level.DEGRADED),
        (None, None, Level.ABSENT),
    ],
)
def test_predictor(isvc: Any, deploy: Any, level: Level) -> None:
    """Ready of an InferenceService stays up through a roll-out, so its Deployment must run this very version."""
    assert child_status.predictor(isvc, deploy, "1", SOON).level is level


@pytest.mark.parametrize(("pods", "level"), [(2, Level.READY), (3, Level.PROGRESSING)])
def test_a_pod_of_an_older_template_is_waited_for(pods: int, level: Level) -> None:
    """A surge has enough new Pods while an old one still works: what it reads is of before."""
    counts = {"replicas": pods, "updatedReplicas": 2, "availableReplicas": pods}
    child = {
        "kind": "Deployment",
        "metadata": {"generation": 1},
        "spec": {"replicas": 2},
        "status": {"observedGeneration": 1, **counts},
    }
    assert child_status.workload(child).level is level
