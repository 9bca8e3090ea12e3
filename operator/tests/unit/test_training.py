"""Which run is wanted, and what a RayJob's status means."""

from __future__ import annotations

from typing import Any

import pytest

from fraud_contracts.detector import parse_spec
from fraud_contracts.training_end import TrainingFailure
from fraud_operator import training
from fraud_operator.training import Outcome, TrainingPhase

HOUR = 3_600_000
# Monday, 24 November 2025, 00:00 UTC.
MONDAY = 1_763_942_400_000


def spec(**train: Any) -> Any:
    return parse_spec(
        {
            "event": {"id": {"field": "i"}, "time": {"field": "t"}, "amount": {"field": "a"}},
            "entities": [{"name": "customer", "field": "c"}],
            "model": {"train": train},
        }
    )


def test_a_revision_changes_with_what_decides_the_result() -> None:
    """Spec, feature set and token each give another revision; time alone doesn't."""
    base = training.wanted_revision(spec(), "f", None, 0, 0)
    assert base == training.wanted_revision(spec(), "f", None, 0, 10**12)
    others = {
        training.wanted_revision(spec(trials=7), "f", None, 0, 0),
        training.wanted_revision(spec(), "g", None, 0, 0),
        training.wanted_revision(spec(), "f", "again", 0, 0),
    }
    assert len(others | {base}) == 4


def test_no_training_no_revision() -> None:
    """A detector that trains no model has no revision."""
    none = parse_spec(
        {
            "event": {"id": {"field": "i"}, "time": {"field": "t"}, "amount": {"field": "a"}},
            "entities": [{"name": "customer", "field": "c"}],
            "model": {"none": {}},
        }
    )
    assert training.wanted_revision(none, "f", None, 0, 0) is None


def test_a_schedule_gives_a_revision_a_tick() -> None:
    """Between two ticks the revision stays; a tick before the object was made doesn't count."""
    weekly = spec(schedule="0 3 * * 1")
    created = MONDAY + HOUR

    def at(hours: int) -> str | None:
        return training.wanted_revision(weekly, "f", None, created, MONDAY + hours * HOUR)

    assert at(1) == at(2) != at(4)
    assert at(4) == at(24 * 6)
    assert at(4) != at(24 * 7 + 4)


def test_a_bad_schedule_is_refused() -> None:
    """A line that cron can't read raises, with the form that is wanted."""
    with pytest.raises(ValueError, match="minute hour day month weekday"):
        training.last_tick("61 3 * * 1", 0, MONDAY)


def job(deployment: str, run: str = "", **more: Any) -> dict[str, Any]:
    return {"status": {"jobDeploymentStatus": deployment, "jobStatus": run, **more}}


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        (None, TrainingPhase.NONE),
        ({}, TrainingPhase.PENDING),
        (job("Initializing"), TrainingPhase.PENDING),
        (job("Running", "PENDING"), TrainingPhase.RUNNING),
        (job("Running", "RUNNING"), TrainingPhase.RUNNING),
        (job("Complete", "SUCCEEDED"), TrainingPhase.SUCCEEDED),
        (job("Complete", "STOPPED"), TrainingPhase.FAILED),
        (job("Failed", "FAILED"), TrainingPhase.FAILED),
        (job("ValidationFailed"), TrainingPhase.FAILED),
        (job("Retrying"), TrainingPhase.PENDING),
    ],
)
def test_outcomes(status: Any, phase: TrainingPhase) -> None:
    """Complete is success only with SUCCEEDED: it also covers a run that was stopped."""
    assert training.outcome(status).phase is phase


def test_too_little_to_learn_from_is_no_failure() -> None:
    """Missing history and labels that aren't mature yet are told as what is waited for, in the run's own words."""

    def waits_for(status: dict[str, Any], reason: str, message: str) -> tuple[str, str] | None:
        failure = TrainingFailure(reason=reason, message=message, ended=0)
        return training.waits_for(training.outcome(status, failure))

    failed = job("Failed", "FAILED", message="the end of the log")
    assert waits_for(failed, "TooFewLabels", "7 of 500") == ("WaitingForLabels", "7 of 500")
    assert waits_for(failed, "NoHistory", "no history") == ("WaitingForHistory", "no history")
    assert waits_for(failed, "MemoryError", "out of memory") is None
    assert waits_for(job("Complete", "SUCCEEDED"), "NoHistory", "no history") is None


def test_a_run_that_said_nothing_is_told_as_its_job_tells_it() -> None:
    """Without the run's own document the RayJob's words are shown and nothing is read out of them."""
    failed = job("Failed", "FAILED", message="training failed: NoHistory: no history")
    outcome = training.outcome(failed)
    assert outcome.message == "training failed: NoHistory: no history"
    assert training.waits_for(outcome) is None


def test_a_failed_run_is_due_after_half_an_hour() -> None:
    """A failure is tried again later, not at once, and a success never."""
    failed = training.outcome(
        job("Failed", "FAILED", reason="AppFailed", message="no history", endTime="2025-11-24T00:00:00Z")
    )
    assert failed == Outcome(TrainingPhase.FAILED, "AppFailed no history", MONDAY)
    assert not training.due_again(failed, MONDAY + HOUR // 4)
    assert training.due_again(failed, MONDAY + HOUR)
    assert not training.due_again(Outcome(TrainingPhase.SUCCEEDED, ended=MONDAY), MONDAY + HOUR)
