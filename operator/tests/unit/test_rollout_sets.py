"""The rollout while a detector has two feature sets: what a version of the other one waits for, and what goes live without it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fraud_operator import hand_over, lineage
from fraud_operator.rollout import PostEvent, decide
from fraud_operator.rollout_conditions import candidate_state
from fraud_operator.rollout_state import RolloutPhase, RolloutState
from fraud_testing.hand_overs import AT_ONCE, OTHER, PARTITIONS, World
from fraud_testing.healthy import healthy_facts, make_detector
from fraud_testing.rollout_states import NOW, READY, facts, package, shadowing

FIRST, SECOND = "a" * 64, "b" * 64


@pytest.fixture(autouse=True)
def held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many records as a job of these tests may hold back."""
    monkeypatch.setattr(lineage, "HELD_BACK", AT_ONCE)


def taken_back() -> World:
    """Version 2, of the second set, was live and is taken back; version 3 of that set waited for its slot."""
    world = World()
    world.declared = 1
    world.register()
    for _ in range(40):
        world.settle_once()
    assert world.answering == world.sets[1].feature_set
    world.approve = False
    world.register()
    for _ in range(5):
        world.settle_once()
    assert world.state.candidate is None, "both slots are in use"
    world.rollback = "2"
    return world


def test_a_newer_version_of_the_set_that_is_left_waits_until_the_old_one_answers() -> None:
    """No door could read both versions. Then it waits for an approval like any version of another set."""
    world, phases = taken_back(), set()
    for _ in range(40):
        world.settle_once()
        phases.add(world.state.phase)
    assert phases == {RolloutPhase.ROLLED_BACK, RolloutPhase.PREPARING}
    assert world.answering == world.sets[0].feature_set and world.lineages.hand_over is None
    assert world.state.candidate is not None and world.state.candidate.version == "3"


def test_its_approval_hands_the_decisions_over() -> None:
    """Without a ramp, and both jobs run."""
    world = taken_back()
    for _ in range(40):
        world.settle_once()
    world.approve = True
    for _ in range(40):
        world.settle_once()
    assert world.answering == world.sets[1].feature_set and world.lineages.hand_over is None
    assert world.state.stable is not None and world.state.stable.version == "3"
    assert world.jobs[1].running and world.jobs[2].running


def test_a_candidate_that_no_door_can_read_gives_way() -> None:
    """It isn't at fault: it may be prepared again, for an approval."""
    state = shadowing(candidate=package("2", "b").model_copy(update={"feature_set": SECOND}))
    for phase in (RolloutPhase.SHADOW, RolloutPhase.RAMP):
        tried = state.model_copy(update={"phase": phase})
        after, actions = decide(tried, facts(**READY, approve="2", answering="f" * 64), NOW)
        assert after.candidate is None and not after.rejected and after.phase is RolloutPhase.IDLE
        assert isinstance(actions[0], PostEvent) and actions[0].reason == "Superseded"


def test_only_a_version_that_is_prepared_asks_for_a_hand_over() -> None:
    """The approval of one that shadows is for its ramp; the doors would wait for the end of that."""
    one = package("2", "b").model_copy(update={"feature_set": SECOND})
    known = facts(**READY, approve="2", answering=FIRST, declared=SECOND)
    stable = package("1").model_copy(update={"feature_set": FIRST})
    state = RolloutState(phase=RolloutPhase.PREPARING, stable=stable, candidate=one)
    assert hand_over.target(state, known, FIRST, SECOND, SECOND) == SECOND
    for phase in (RolloutPhase.SHADOW, RolloutPhase.RAMP):
        tried = state.model_copy(update={"phase": phase})
        assert hand_over.target(tried, known, FIRST, SECOND, SECOND) is None


def test_a_version_of_the_live_ones_set_is_never_called_new() -> None:
    """Neither while that set is on its way back, nor where the set that answers is another one."""
    detector = make_detector()
    one, another = package("2", "b"), package("1").model_copy(update={"feature_set": detector.feature_set})
    for stable, candidate, new in ((one, one, False), (one, another, False), (another, one, True)):
        state = RolloutState(phase=RolloutPhase.PREPARING, stable=stable, candidate=candidate)
        message = candidate_state(detector, replace(healthy_facts(detector), state=state)).message
        assert ("approve it" in message) is new


def test_without_a_model_wanted_the_new_set_takes_over_by_itself() -> None:
    """No version will ever come that could be approved: the live one gives way at the switch, and rules decide."""
    world = World()
    world.sets[1] = make_detector(features=OTHER, model={"none": {}})
    world.declared = 1
    for _ in range(40):
        world.pay()
        had = world.state.stable
        world.settle_once()
        if had is not None and world.state.stable is None:
            assert world.answering == world.sets[1].feature_set, "in the pass of the switch"
    in_use = world.lineages.in_use
    assert in_use is not None and in_use.feature_set == world.sets[1].feature_set
    assert not in_use.beginning.silent and world.lineages.hand_over is None
    assert world.state.stable is None and not world.state.rejected and not world.jobs[1].there
    world.settle()
    assert all((at, offset) in world.written for at in PARTITIONS for offset in range(world.ends[at]))


def test_a_rollout_that_is_paused_leaves_the_live_version() -> None:
    """Also where the spec wants no model."""
    world = World()
    world.sets[1] = make_detector(features=OTHER, model={"none": {}}, rollout={"paused": True})
    world.declared = 1
    for _ in range(40):
        world.settle_once()
    assert world.answering == world.sets[0].feature_set and world.state.stable is not None


def test_without_another_set_a_live_version_stays() -> None:
    """A spec that wants no model asks for no other version; the way back is what takes one away."""
    known = facts(
        spec=make_detector(model={"none": {}}).spec, propagated=True, champion="1", answering="f" * 64
    )
    live = RolloutState(phase=RolloutPhase.PROMOTED, stable=package("1"), counted=NOW)
    assert decide(live, known, NOW) == (live, [])
