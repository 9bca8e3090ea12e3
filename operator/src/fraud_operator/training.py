"""Which training run is wanted, and what its RayJob's status means. Pure.

A run is named by its revision: a hash over what decides its result. A changed training spec or feature set, a new token
in the train annotation or a tick of the schedule gives another revision and so another RayJob; nothing is patched.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from croniter import croniter

from fraud_contracts.detector import DetectorSpec, dump
from fraud_contracts.training_end import EndReason, TrainingFailure
from fraud_operator.objects import to_ms

# A failed run is tried again after this time: what it lacked (history, labels, room on a node) may have come since.
RETRY_AFTER_MS: Final = 30 * 60_000
# Ends of a run that are no fault, as what it needs hasn't come yet, and the condition's reason for each.
_NOT_YET: Final[Mapping[str, str]] = {
    EndReason.NO_HISTORY: "WaitingForHistory",
    EndReason.TOO_FEW_LABELS: "WaitingForLabels",
}


class TrainingPhase(StrEnum):
    NONE = "None"
    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True)
class Outcome:
    """``failure`` is the run's own record of why it made no model, where it left one."""

    phase: TrainingPhase
    message: str = ""
    ended: int | None = None
    failure: TrainingFailure | None = None


def last_tick(schedule: str, created: int, now: int) -> int | None:
    """The newest tick of a cron line (UTC) that came after the object was made; ValueError for a line cron can't read."""
    if not croniter.is_valid(schedule):
        raise ValueError(f"{schedule!r} is no cron line: write minute hour day month weekday")
    moment = datetime.fromtimestamp(now / 1000, UTC)
    tick = int(croniter(schedule, moment).get_prev(float) * 1000)
    return tick if tick > created else None


def wanted_revision(
    spec: DetectorSpec, feature_set: str, token: str | None, created: int, now: int
) -> str | None:
    """16 hex characters that name the wanted run; None where the detector trains no model of its own.

    Another value starts a training: a changed training spec, label spec or feature set, another ``token`` in the train
    annotation, or a tick of the schedule.
    """
    train = spec.model.train
    if train is None:
        return None
    whole: dict[str, Any] = {
        "train": {key: value for key, value in dump(train).items() if key != "schedule"},
        # A source's kind changes nothing that is learned.
        "labels": {"sources": [{"name": s.name, "maturity": s.maturity} for s in spec.labels.sources]},
        "set": feature_set,
        "token": token or "",
        "tick": last_tick(train.schedule, created, now) if train.schedule else None,
    }
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:16]


def outcome(job: Mapping[str, Any] | None, failure: TrainingFailure | None = None) -> Outcome:
    """From a RayJob's status and the run's own record. Complete alone isn't success: a stopped job is, too."""
    if job is None:
        return Outcome(TrainingPhase.NONE)
    status = job.get("status") or {}
    deployment, run = status.get("jobDeploymentStatus", ""), status.get("jobStatus", "")
    ended = to_ms(status["endTime"]) if status.get("endTime") else None
    if deployment == "Complete" and run == "SUCCEEDED":
        return Outcome(TrainingPhase.SUCCEEDED, ended=ended)
    if deployment in ("Failed", "ValidationFailed") or (
        deployment == "Complete" and run in ("STOPPED", "FAILED")
    ):
        if failure is not None:
            return Outcome(TrainingPhase.FAILED, f"{failure.reason}: {failure.message}", ended, failure)
        message = " ".join(part for part in (status.get("reason", ""), status.get("message", "")) if part)
        return Outcome(TrainingPhase.FAILED, message or f"the job ended as {deployment} {run}".strip(), ended)
    if run in ("RUNNING", "PENDING"):
        return Outcome(TrainingPhase.RUNNING, run.capitalize())
    return Outcome(TrainingPhase.PENDING, deployment or "no status yet")


def waits_for(result: Outcome) -> tuple[str, str] | None:
    """(condition's reason, the run's message) for a run that lacked history or labels; None for any other."""
    if result.failure is None or result.failure.reason not in _NOT_YET:
        return None
    return _NOT_YET[result.failure.reason], result.failure.message


def due_again(result: Outcome, now: int) -> bool:
    """Whether a failed run is to be replaced by a new try."""
    return (
        result.phase is TrainingPhase.FAILED
        and result.ended is not None
        and now - result.ended >= RETRY_AFTER_MS
    )
