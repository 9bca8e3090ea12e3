"""What a child's status means: ready, failed, degraded or progressing. Pure; one rule for each kind.

The rules follow how each project's controllers write status, which differs: Strimzi has no Ready=False on a Kafka,
KServe's observedGeneration isn't its own, a Flink job can be RUNNING with the old spec.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from fraud_contracts.names import MODEL_VERSION_ANNOTATION
from fraud_operator.objects import Json, to_ms

# Without any status after this time, the operator of that kind is missing or stuck.
SILENT_MS: Final = 60_000
# A changed spec that its operator hasn't looked at after this time: longer than a broker takes to roll.
STUCK_MS: Final = 15 * 60_000
JOB_NOT_RUNNING: Final = "JobNotRunning"
# What Flink says of a savepoint or checkpoint that isn't there, was cut off, isn't one, or is of another job.
_UNREADABLE: Final = (
    "Cannot find checkpoint or savepoint",
    "Cannot find meta data file",
    "Cannot map checkpoint/savepoint state",
    "Failed to rollback to checkpoint/savepoint",
    "Unexpected magic number",
    "Unrecognized checkpoint version",
    "java.io.EOFException",
)


class Level(StrEnum):
    """BLOCKED: the child's Pods are refused, for a reason outside it; Kubernetes tries again by itself."""

    READY = "Ready"
    DEGRADED = "Degraded"
    PROGRESSING = "Progressing"
    FAILED = "Failed"
    BLOCKED = "Blocked"
    ABSENT = "Absent"
    SILENT = "Silent"


@dataclass(frozen=True)
class Verdict:
    """``down`` is the reason for which a degraded child doesn't do its work at all; empty where it does."""

    level: Level
    message: str = ""
    down: str = ""

    @property
    def usable(self) -> bool:
        return self.level in (Level.READY, Level.DEGRADED) and not self.down


ABSENT: Final = Verdict(Level.ABSENT, "not there yet")


def _conditions(status: Json) -> dict[str, Json]:
    """By type. A type that may come several times, as Strimzi's Warning, is for _all_true."""
    return {str(condition.get("type")): condition for condition in status.get("conditions") or []}


def _all_true(status: Json, kind: str) -> list[Json]:
    return [
        condition
        for condition in status.get("conditions") or []
        if condition.get("type") == kind and condition.get("status") == "True"
    ]


def _reason_and_message(condition: Json) -> str:
    return ": ".join(
        part for part in (str(condition.get("reason", "")), str(condition.get("message", ""))) if part
    )


def _current(child: Json, status: Json) -> bool:
    return bool(status.get("observedGeneration", 0) >= child["metadata"].get("generation", 0))


def silent(child: Json, now: int, operator: str) -> Verdict:
    """For a child without any status: it is new, or no operator looks after it.

    The message names a time and not an age, so that it stays the same from pass to pass.
    """
    created = child["metadata"].get("creationTimestamp")
    if created is None or now - to_ms(created) < SILENT_MS:
        return Verdict(Level.PROGRESSING, "waits for its operator")
    return Verdict(
        Level.SILENT,
        f"has had no status since it was made at {created}: is {operator} running and watching this namespace?",
    )


def overlooked(child: Json, now: int, operator: str) -> Verdict | None:
    """For a child whose changed spec its operator hasn't observed; None before that takes too long."""
    times = [str(entry["time"]) for entry in child["metadata"].get("managedFields") or [] if entry.get("time")
             and not entry.get("subresource")]  # fmt: skip
    changed = max(times, default=None)
    if changed is None or now - to_ms(changed) < STUCK_MS:
        return None
    return Verdict(
        Level.SILENT,
        f"was changed at {changed} and nobody has acted on it since: is {operator} running? See its log",
    )


def kafka(child: Json | None, now: int, *, ephemeral: bool = False) -> Verdict:
    """A Kafka or a KafkaTopic. ``ephemeral``: the platform wants brokers without volumes and needs no warning of them."""
    if child is None:
        return ABSENT
    status = child.get("status") or {}
    conditions = _conditions(status)
    if not conditions:
        return silent(child, now, "the Strimzi operator")
    ready, not_ready = conditions.get("Ready"), conditions.get("NotReady")
    if not_ready is not None and not_ready.get("status") == "True":
        creating = not_ready.get("reason") == "Creating"
        return Verdict(Level.PROGRESSING if creating else Level.FAILED, _reason_and_message(not_ready))
    if ready is not None and ready.get("status") == "False":
        return Verdict(Level.FAILED, _reason_and_message(ready))
    if ready is None or not _current(child, status):
        stuck = overlooked(child, now, "the Strimzi operator")
        return stuck or Verdict(Level.PROGRESSING, "is being reconciled")
    warnings = [
        w for w in _all_true(status, "Warning") if not (ephemeral and w.get("reason") == "KafkaStorage")
    ]
    if warnings:
        return Verdict(Level.DEGRADED, "; ".join(dict.fromkeys(map(_reason_and_message, warnings))))
    return Verdict(Level.READY)


def flink(child: Json | None, now: int) -> Verdict:
    if child is None:
        return ABSENT
    status = child.get("status") or {}
    lifecycle = status.get("lifecycleState")
    state = (status.get("jobStatus") or {}).get("state")
    error = _flink_error(status.get("error"))
    if not lifecycle and not state and not error:
        return silent(child, now, "the Flink operator")
    if status.get("jobManagerDeploymentStatus") == "ERROR":
        return Verdict(Level.FAILED, error or "the JobManager can't start")
    if lifecycle == "FAILED" or (lifecycle == "CREATED" and error):
        return Verdict(Level.FAILED, error or "the job failed")
    if lifecycle == "ROLLED_BACK":
        return Verdict(
            Level.DEGRADED,
            "runs the spec before the last one, which failed" + (f": {error}" if error else ""),
            "" if state == "RUNNING" else JOB_NOT_RUNNING,
        )
    # STABLE says that this spec ran once: a lost JobManager shows as INITIALIZING, a lost TaskManager as CREATED. Before
    # that the same states only say that the job comes up.
    if lifecycle == "STABLE" and state != "RUNNING":
        ended = state in ("FINISHED", "CANCELED", "FAILED")
        message = f"the job is {state or 'unknown'}" + (f": {error}" if error else "")
        return Verdict(Level.FAILED, message) if ended else Verdict(Level.DEGRADED, message, JOB_NOT_RUNNING)
    if state == "RUNNING" and error:
        return Verdict(Level.DEGRADED, error)
    if lifecycle == "STABLE" and state == "RUNNING" and _current(child, status):
        return Verdict(Level.READY)
    if not _current(child, status) and (stuck := overlooked(child, now, "the Flink operator")) is not None:
        return stuck
    message = f"{lifecycle or 'CREATED'}, job {state or 'not started'}"
    return Verdict(Level.PROGRESSING, message + (f": {error}" if error else ""))


def unreadable_state(child: Json | None) -> str:
    """Why a job that never ran can't read the savepoint or checkpoint that it was made from, in Flink's words; empty of any other.

    An object store that is away isn't among them: the job is tried again, and the state may be as good as ever.
    """
    status = (child or {}).get("status") or {}
    failed = "FAILED" in (status.get("lifecycleState"), (status.get("jobStatus") or {}).get("state"))
    ran = (status.get("reconciliationStatus") or {}).get("lastStableSpec")
    if ran or not (failed or status.get("jobManagerDeploymentStatus") == "ERROR"):
        return ""
    texts = _causes(status.get("error"))
    return next((text for text in reversed(texts) if any(sign in text for sign in _UNREADABLE)), "")


def _causes(text: Any) -> list[str]:
    """Messages of Flink's status.error, the outermost first: its own, then its causes'."""
    inner = _exception(text)
    if inner is None:
        return [str(text or "")]
    causes = [cause for cause in inner.get("throwableList") or [] if isinstance(cause, dict)]
    return [f"{cause.get('type') or ''}: {cause.get('message') or ''}" for cause in (inner, *causes)]


def flink_stopped(child: Json | None) -> bool:
    """Whether a streaming job stands still as its spec asks, with its savepoint or last checkpoint taken."""
    status = (child or {}).get("status") or {}
    return (
        child is not None
        and child["spec"]["job"].get("state") == "suspended"
        and status.get("lifecycleState") == "SUSPENDED"
        and (status.get("jobStatus") or {}).get("state") != "RUNNING"
        and _current(child, status)
    )


def _flink_error(text: Any) -> str:
    """The message in Flink's status.error."""
    return str((_exception(text) or {}).get("message") or text or "")


def _exception(text: Any) -> Json | None:
    """What Flink's status.error holds, JSON in a string; None where it is plain text, or nothing."""
    try:
        inner = json.loads(text or "")
    except ValueError:
        return None
    return inner if isinstance(inner, dict) else None


def workload(child: Json | None) -> Verdict:
    """A Deployment: all its Pods are of the newest template and ready, and none of an older one is left."""
    if child is None:
        return ABSENT
    status, wanted = child.get("status") or {}, child["spec"].get("replicas", 1)
    available = status.get("availableReplicas", 0)
    blocked = _blocked(child)
    progressing = _conditions(status).get("Progressing")
    # Pods that may not be made let the deadline pass too, and the condition stays when they may.
    if not blocked and progressing is not None and progressing.get("reason") == "ProgressDeadlineExceeded":
        return Verdict(Level.FAILED, _reason_and_message(progressing))
    updated = status.get("updatedReplicas", 0)
    alone = updated >= wanted and status.get("replicas", 0) <= updated
    if _current(child, status) and alone and available >= wanted:
        return Verdict(Level.READY)
    if blocked:
        return Verdict(Level.BLOCKED, f"has {available} of {wanted} ready; {blocked}")
    return Verdict(Level.PROGRESSING, f"has {available} of {wanted} ready")


def _blocked(deployment: Json) -> str:
    """Why Pods of it can't be made (a quota, Pod security, an account that is missing); empty where they can."""
    failures = _all_true(deployment.get("status") or {}, "ReplicaFailure")
    return "; ".join(map(_reason_and_message, failures))


def answers(deployment: Json | None) -> bool:
    """Whether any replica of a predictor is there, be it one of many or of an older template."""
    return bool(((deployment or {}).get("status") or {}).get("availableReplicas", 0))


def predictor(child: Json | None, deployment: Json | None, version: str, now: int) -> Verdict:
    """An InferenceService together with its Deployment, which alone tells which version runs."""
    if child is None:
        return ABSENT
    status = child.get("status") or {}
    conditions = _conditions(status)
    model = status.get("modelStatus") or {}
    if model.get("transitionStatus") in ("BlockedByFailedLoad", "InvalidSpec"):
        failure = model.get("lastFailureInfo") or {}
        return Verdict(
            Level.FAILED, str(failure.get("message") or failure.get("reason") or model["transitionStatus"])
        )
    predictor_ready = conditions.get("PredictorReady", {})
    blocked = _blocked(deployment) if deployment is not None else ""
    if predictor_ready.get("reason") == "ProgressDeadlineExceeded" and not blocked:
        return Verdict(Level.FAILED, _reason_and_message(predictor_ready))
    if not conditions:
        return silent(child, now, "KServe")
    if deployment is None:
        return Verdict(Level.PROGRESSING, "KServe has made no Deployment yet")
    template = deployment["spec"]["template"]["metadata"].get("annotations") or {}
    if template.get(MODEL_VERSION_ANNOTATION) != version:
        return Verdict(
            Level.PROGRESSING, f"still runs version {template.get(MODEL_VERSION_ANNOTATION, 'unknown')}"
        )
    rollout = workload(deployment)
    if rollout.level is not Level.READY:
        return rollout
    ready = conditions.get("Ready", {})
    if ready.get("status") != "True":
        return Verdict(Level.PROGRESSING, _reason_and_message(ready) or "not ready yet")
    if (model.get("copies") or {}).get("failedCopies", 0) > 0:
        return Verdict(Level.DEGRADED, "some copies failed to load the model")
    return Verdict(Level.READY)
