"""A hand-over that doesn't go on says which streaming job it waits for, and what Flink says of that one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fraud_contracts.lineage import Declaration, HandOver, HandOverStep, Lineage, Lineages
from fraud_operator.facts import Facts
from fraud_operator.feature_sets import FeatureSets, feature_sets
from fraud_operator.readiness import OVERDUE_MS
from fraud_operator.rollout_conditions import beside_note
from fraud_testing.hand_overs import OTHER
from fraud_testing.healthy import NOW, conditions_of, healthy_facts, make_detector

OLD, NEW = make_detector(), make_detector(features=OTHER)
REFUSED = "Savepoint failed: Access Denied (s3://lake/flink)"


def flink(*, stopped: bool = False, error: str | None = None) -> dict[str, Any]:
    """A job that is to stand still."""
    state = {"lifecycleState": "SUSPENDED", "jobStatus": {"state": "FINISHED"}} if stopped else {
        "lifecycleState": "STABLE", "jobStatus": {"state": "RUNNING"}
    }  # fmt: skip
    return {
        "metadata": {"generation": 2},
        "spec": {"job": {"state": "suspended"}},
        "status": {**state, "error": error, "observedGeneration": 2 if stopped else 1},
    }


def handing_over(
    step: HandOverStep, answering: dict[str, Any], other: dict[str, Any], since: int = NOW
) -> tuple[FeatureSets, Facts]:
    facts = healthy_facts(OLD)
    known = (
        Lineage(feature_set=NEW.feature_set, generation=2),
        Lineage(feature_set=OLD.feature_set, generation=1, declared=Declaration.of(OLD.spec)),
    )
    hand_over = HandOver(to=NEW.feature_set, generations=(1, 2), step=step, since=since)
    facts = replace(facts, lineages=Lineages(known=known, hand_over=hand_over))
    sets = feature_sets(NEW, facts.lineages, facts.state)
    assert sets.beside is not None
    jobs = {
        ("FlinkDeployment", sets.answering.streaming_job): answering,
        ("FlinkDeployment", sets.beside.streaming_job): other,
    }
    facts = replace(facts, children={**facts.children, **jobs})
    return sets, replace(facts, beside=replace(facts.beside, note=beside_note(sets, facts)))


def test_a_savepoint_of_the_job_beside_that_fails_is_told() -> None:
    """By RolloutHealthy: the job that answers runs, so StreamingReady has nothing to say."""
    running = healthy_facts(OLD).children["FlinkDeployment", OLD.streaming_job]
    sets, facts = handing_over(HandOverStep.ALIGNING, running, flink(error=REFUSED))
    states = conditions_of(sets.answering, facts)
    assert states["StreamingReady"]["status"] == "True"
    assert f"{NEW.streaming_job}-2 doesn't stand still yet: {REFUSED}" in states["RolloutHealthy"]["message"]


def test_a_savepoint_of_the_job_that_answers_that_fails_is_told() -> None:
    """By both, and of that job alone."""
    sets, facts = handing_over(HandOverStep.STOPPING, flink(error=REFUSED), flink(stopped=True))
    states = conditions_of(sets.answering, facts)
    assert states["StreamingReady"]["reason"] == "HandingOver"
    for name in ("StreamingReady", "RolloutHealthy"):
        message = states[name]["message"]
        assert f"{OLD.streaming_job} doesn't stand still yet: {REFUSED}" in message
        assert "-2 doesn't" not in message


def test_where_all_stand_still_nothing_is_said_of_them() -> None:
    """The step says what is waited for."""
    sets, facts = handing_over(HandOverStep.DRAINING, flink(stopped=True), flink(stopped=True))
    states = conditions_of(sets.answering, facts)
    assert states["StreamingReady"]["message"].endswith("takes over: Draining")


@pytest.mark.parametrize("step", [HandOverStep.ALIGNING, HandOverStep.STOPPING, HandOverStep.DRAINING])
def test_a_step_that_takes_ten_minutes_degrades(step: HandOverStep) -> None:
    """It hardly goes on by itself. Before that it is under way."""
    still = step is HandOverStep.DRAINING
    for ago, degraded in ((OVERDUE_MS - 1, "False"), (OVERDUE_MS, "True")):
        sets, facts = handing_over(step, flink(stopped=still), flink(stopped=still), NOW - ago)
        assert facts.now == NOW
        assert conditions_of(sets.answering, facts)["Degraded"]["status"] == degraded
