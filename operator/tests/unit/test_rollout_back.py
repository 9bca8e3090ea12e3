"""The ways back of a model version: by a person, a pin, a gate or a dead predictor, from every state."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from fraud_contracts.release import ModelPackage
from fraud_operator.rollout import Gate, GateResult, PostEvent, SetChampion, back, decide
from fraud_operator.rollout_state import RolloutPhase, RolloutState
from fraud_testing.rollout_states import (
    MINUTE,
    NOW,
    PASS,
    READY,
    facts,
    package,
    shadowing,
    spec,
    spec_pinned,
)


def test_rollback_returns_to_the_previous_version() -> None:
    """The rollback annotation names the version to leave; a repeat of it changes nothing."""
    live = RolloutState(
        phase=RolloutPhase.PROMOTED,
        stable=package("2", "b"),
        previous=package("1"),
        previous_until=NOW + MINUTE,
    )
    back, _ = decide(live, facts(rollback="2", resolved=package("2", "b")), NOW)
    assert back.stable == package("1") and back.rejected == ("2",) and back.retiring == package("2", "b")
    again, actions = decide(
        back, facts(rollback="2", resolved=package("2"), propagated=True, champion="1"), NOW
    )
    assert again.stable == package("1") and again.candidate is None and actions == []


def test_rollback_without_a_previous_version_leaves_rules() -> None:
    """With nothing to go back to, the release has no model: rules answer."""
    back, _ = decide(RolloutState(phase=RolloutPhase.PROMOTED, stable=package("1")), facts(rollback="1"), NOW)
    assert back.stable is None and back.phase is RolloutPhase.ROLLED_BACK


def test_the_previous_version_holds_its_slot() -> None:
    """While the previous version is kept no third one is prepared; after keepPrevious one is."""
    kept = RolloutState(
        phase=RolloutPhase.PROMOTED,
        stable=package("2", "b"),
        previous=package("1"),
        previous_until=NOW + MINUTE,
    )
    observed = {"propagated": True, "champion": "2", "resolved": package("3")}
    assert decide(kept, facts(**observed), NOW)[0].candidate is None
    after, _ = decide(kept, facts(**observed), NOW + 2 * MINUTE)
    assert after.previous is None and after.candidate is not None and after.candidate.slot == "a"


def test_a_newer_version_replaces_one_that_is_only_prepared() -> None:
    """While nobody refers to a prepared version, a newer one takes its place without a rejection."""
    preparing = RolloutState(phase=RolloutPhase.PREPARING, candidate=package("1"))
    after, _ = decide(preparing, facts(resolved=package("2")), NOW)
    assert after.phase is RolloutPhase.IDLE and after.candidate is None and after.rejected == ()


def test_a_predictor_that_cannot_start_is_rejected() -> None:
    """A version whose predictor fails to load is taken back with the reason."""
    preparing = RolloutState(phase=RolloutPhase.PREPARING, candidate=package("1"))
    after, actions = decide(preparing, facts(resolved=package("1"), failed={"a": "digest differs"}), NOW)
    assert after.phase is RolloutPhase.ROLLED_BACK and "digest differs" in actions[0].message  # type: ignore[union-attr]  # it is a PostEvent


def test_paused_rollout_moves_only_back() -> None:
    """spec.rollout.paused holds every forward step; abort and rollback still work."""
    held = spec(paused=True)
    assert decide(RolloutState(), facts(spec=held, resolved=package("1")), NOW)[0].phase is RolloutPhase.IDLE
    assert decide(shadowing(), facts(**READY, spec=held, abort="2"), NOW)[0].phase is RolloutPhase.ROLLED_BACK


LIVE = RolloutState(
    phase=RolloutPhase.PROMOTED,
    stable=package("2", "b"),
    previous=package("1"),
    previous_until=NOW + 10 * MINUTE,
)


def test_a_pin_to_the_previous_version_rolls_back_at_once() -> None:
    """model.pin to the version that is still kept makes it stable in the same pass; what was left isn't tried again."""
    pinned = spec_pinned("1")
    back, actions = decide(
        LIVE, facts(spec=pinned, resolved=package("2"), propagated=True, champion="2"), NOW
    )
    assert back.stable == package("1") and back.phase is RolloutPhase.ROLLED_BACK and back.candidate is None
    assert back.retiring == package("2", "b") and back.rejected == ("2",)
    assert (
        isinstance(actions[0], PostEvent)
        and actions[0].warning
        and "spec.model.pin names version 1" in actions[0].message
    )


def test_a_pin_to_the_previous_version_needs_no_registry() -> None:
    """The way back works while the registry gives no answer; a version of another feature set is no way back."""
    assert decide(LIVE, facts(spec=spec_pinned("1")), NOW)[0].stable == package("1")
    other = LIVE.model_copy(update={"previous": package("1").model_copy(update={"feature_set": "0" * 64})})
    assert decide(other, facts(spec=spec_pinned("1")), NOW)[0].stable == LIVE.stable


def test_after_the_pin_is_gone_the_bad_version_stays_away() -> None:
    """Rolled back by a pin that is taken away again: the registry's alias still names the bad version, and nothing happens."""
    state, _ = decide(LIVE, facts(spec=spec_pinned("1")), NOW)
    for _ in range(5):
        state, _ = decide(state, facts(resolved=package("2"), propagated=True, champion="1"), NOW + MINUTE)
        assert state.stable == package("1") and state.candidate is None


def test_a_new_pin_asks_for_a_version_that_was_taken_back() -> None:
    """A version under whose pin it was taken back isn't tried again; a pin that comes later asks for it."""
    pinned, observed = spec_pinned("2"), {"propagated": True, "champion": "1", "resolved": package("2")}
    bad = (Gate("AlertRate", GateResult.FAIL, "3 %", "1 %"),)
    state, _ = decide(shadowing(), facts(**{**READY, "spec": pinned}, gates=bad), NOW)
    for _ in range(3):
        state, _ = decide(state, facts(**observed, spec=pinned), NOW + MINUTE)
    assert state.phase is RolloutPhase.ROLLED_BACK and state.candidate is None
    state, _ = decide(state, facts(**observed), NOW + MINUTE)
    assert state.candidate is None, "without a pin it stays away"
    state, _ = decide(state, facts(**observed, spec=pinned), NOW + MINUTE)
    assert state.candidate is not None and state.candidate.version == "2" and state.rejected == ()


def test_a_state_from_before_pins_were_noted_retries_nothing() -> None:
    """Of a stored state that doesn't say under which pin a version was taken back, the pin that is there asks for nothing."""
    old = RolloutState(phase=RolloutPhase.ROLLED_BACK, stable=package("1"), rejected=("2",))
    observed = {"propagated": True, "champion": "1", "resolved": package("2"), "spec": spec_pinned("2")}
    for _ in range(3):
        old, _ = decide(old, facts(**observed), NOW)
    assert old.candidate is None and old.rejected == ("2",)


@pytest.mark.parametrize(
    "state", [shadowing(), shadowing(phase=RolloutPhase.RAMP, step=0)], ids=["shadow", "ramp"]
)
def test_a_pin_to_the_live_version_takes_the_candidate_back(state: RolloutState) -> None:
    """Who pins what is live wants no other version: the candidate goes in the same pass."""
    after, _ = decide(state, facts(**READY, spec=spec_pinned("1")), NOW)
    assert after.stable == package("1") and after.candidate is None and after.rejected == ("2",)


@pytest.mark.parametrize("held", [False, True], ids=["running", "paused"])
@pytest.mark.parametrize("phase", [RolloutPhase.SHADOW, RolloutPhase.RAMP])
def test_a_candidate_whose_predictor_fails_is_taken_back(phase: RolloutPhase, held: bool) -> None:
    """In Shadow and Ramp a failed predictor takes its version back at once, with the reason, also while paused."""
    state = shadowing(phase=phase, step=0 if phase is RolloutPhase.RAMP else -1)
    observed = {
        **READY,
        "ready": frozenset("a"),
        "spec": spec(paused=held),
        "failed": {"b": "CrashLoopBackOff"},
    }
    after, actions = decide(state, facts(**observed), NOW)
    assert (
        after.phase is RolloutPhase.ROLLED_BACK and after.candidate is None and after.stable == package("1")
    )
    assert isinstance(actions[0], PostEvent) and "CrashLoopBackOff" in actions[0].message


@pytest.mark.parametrize("held", [False, True], ids=["running", "paused"])
@pytest.mark.parametrize("phase", [RolloutPhase.SHADOW, RolloutPhase.RAMP])
def test_a_candidate_that_is_gone_is_taken_back_after_a_minute(phase: RolloutPhase, held: bool) -> None:
    """With no replica left a candidate has a minute to come back; one that does is judged anew."""
    state = shadowing(phase=phase, step=0 if phase is RolloutPhase.RAMP else -1)
    gone = facts(**{**READY, "ready": frozenset("a"), "silent": frozenset("b")}, spec=spec(paused=held))
    waiting, actions = decide(state, gone, NOW)
    assert waiting.gone == NOW and waiting.candidate == state.candidate and actions == []
    waiting, _ = decide(waiting, gone, NOW + MINUTE - 1)
    assert waiting.gone == NOW and waiting.candidate == state.candidate
    after, actions = decide(waiting, gone, NOW + MINUTE)
    assert after.phase is RolloutPhase.ROLLED_BACK and after.candidate is None and after.gone is None
    assert isinstance(actions[0], PostEvent) and "no replica" in actions[0].message
    again, _ = decide(waiting, facts(**READY, spec=spec(paused=held)), NOW + MINUTE)
    assert again.gone is None and again.candidate == state.candidate


def test_a_failing_gate_takes_back_while_paused() -> None:
    """spec.rollout.paused holds no rollback: a failed gate still takes the candidate back."""
    bad = (Gate("AlertRate", GateResult.FAIL, "3 %", "1 %"),)
    assert decide(shadowing(), facts(**READY, spec=spec(paused=True), gates=bad), NOW)[0].candidate is None


def states() -> list[RolloutState]:
    """Every kind of state that can be: each phase, with and without what may lie beside it."""
    one, two = package("1"), package("2", "b")
    kept = {"previous": one, "previous_until": NOW + MINUTE}
    on_its_way = [
        RolloutState(phase=phase, since=NOW, counted=counted, step=0 if phase is RolloutPhase.RAMP else -1, stable=stable, candidate=two)
        for phase in (RolloutPhase.PREPARING, RolloutPhase.SHADOW, RolloutPhase.RAMP)
        for counted in (None, NOW)
        for stable in (one, None)
        if stable is not None or phase is RolloutPhase.PREPARING
    ]  # fmt: skip
    resting = [
        RolloutState(phase=phase, since=NOW, **more)
        for phase in (RolloutPhase.IDLE, RolloutPhase.PROMOTED, RolloutPhase.ROLLED_BACK)
        for more in ({}, {"stable": one}, {"stable": two, **kept}, {"stable": one, "retiring": two},
                     {"stable": one, "rejected": ("2",)})
    ]  # fmt: skip
    return on_its_way + resting


WORLD = [
    {"propagated": propagated, "ready": frozenset(ready), "warm": True, "resolved": resolved, "gates": gates, "champion": "1"}
    for propagated, ready, resolved, gates in itertools.product(
        (False, True), ("", "a", "ab"), (None, package("1"), package("2"), package("3")),
        ((), PASS, (Gate("X", GateResult.NO_DATA),)),
    )
]  # fmt: skip


@pytest.mark.parametrize("held", [False, True], ids=["running", "paused"])
@pytest.mark.parametrize("ask", ["rollback", "abort", "pin previous", "pin live", "failed", "gate", "gone"])
def test_a_version_can_be_taken_back_from_every_state(ask: str, held: bool) -> None:
    """Whatever the state and the world: who asks for a rollback has it in the same pass, paused or not."""
    asked = 0
    for state, world in itertools.product(states(), WORLD):
        stable, candidate = state.stable, state.candidate
        running = candidate is not None and state.phase is not RolloutPhase.PREPARING
        observed: dict[str, Any] = {**world, "spec": spec(paused=held)}
        leaves = False
        if ask == "rollback" and stable:
            observed["rollback"], leaves = stable.version, True
        elif ask == "abort" and candidate:
            observed["abort"] = candidate.version
        elif ask == "pin previous" and state.previous:
            observed["spec"], leaves = spec_pinned(state.previous.version, paused=held), True
        elif ask == "pin live" and running and stable:
            observed["spec"] = spec_pinned(stable.version, paused=held)
        elif ask == "failed" and candidate:
            observed["failed"] = {candidate.slot: "x"}
        elif ask == "gate" and running:
            observed["gates"] = (Gate("X", GateResult.FAIL),)
        elif ask == "gone" and running and candidate:
            observed["silent"] = frozenset(candidate.slot)
            observed["ready"] = observed["ready"] - observed["silent"]
            state = state.model_copy(update={"gone": NOW - MINUTE})
        else:
            continue
        asked += 1
        for after, actions in (decide(state, facts(**observed), NOW), back(state, facts(**observed), NOW)):
            assert after.phase is RolloutPhase.ROLLED_BACK and after.candidate is None, state
            assert after.stable == (state.previous if leaves else stable)
            assert after.rejected and [
                action.reason for action in actions if isinstance(action, PostEvent)
            ] == ["RolledBack"]
            # What was taken back keeps its predictor while a replica may still ask it.
            assert after.retiring == (stable if leaves else candidate)
    assert asked >= len(WORLD)


def test_a_paused_rollout_never_moves_forward() -> None:
    """From every state, for three passes in any world, spec.rollout.paused lets no candidate begin, step or go live."""
    for state, world in itertools.product(states(), WORLD):
        for pin, approve in itertools.product((None, "1", "2", "3"), (None, "2")):
            at = state
            for number in range(3):
                observed = {**world, "spec": spec_pinned(pin, paused=True), "approve": approve}
                after, _ = decide(at, facts(**observed), NOW + number * MINUTE)
                assert after.candidate in (at.candidate, None)
                assert after.stable in (at.stable, at.previous, None)
                assert after.step <= at.step
                assert after.phase in (at.phase, RolloutPhase.ROLLED_BACK) or after.candidate is None
                at = after


def test_state_survives_its_json() -> None:
    """The state read back from the pointer ConfigMap is the state that was written."""
    state = shadowing(rejected=("7", "8"))
    assert RolloutState.model_validate_json(state.model_dump_json(exclude_none=True)) == state


@pytest.mark.parametrize("held", [False, True], ids=["running", "paused"])
@pytest.mark.parametrize("phase", [RolloutPhase.PREPARING, RolloutPhase.SHADOW, RolloutPhase.RAMP])
def test_a_pin_to_a_third_version_withdraws_the_candidate(phase: RolloutPhase, held: bool) -> None:
    """Who pins another version wants the candidate no more, paused or not; unpinned it may be tried again."""
    state = shadowing(phase=phase, step=0 if phase is RolloutPhase.RAMP else -1)
    pinned = {**READY, "gates": PASS, "resolved": None, "spec": spec_pinned("3", paused=held)}
    after, actions = decide(state, facts(**pinned), NOW + 10 * MINUTE)
    assert after.candidate is None and after.stable == package("1") and after.rejected == ()
    assert after.retiring == package("2", "b") and after.phase is RolloutPhase.IDLE
    assert [action.reason for action in actions if isinstance(action, PostEvent)] == ["Superseded"]
    later, _ = decide(after, facts(**{**READY, "spec": spec_pinned("3"), "resolved": package("3")}), NOW)
    later, _ = decide(later, facts(**{**READY, "spec": spec_pinned("3"), "resolved": package("3")}), NOW)
    assert later.candidate is not None and later.candidate.version == "3"
    again, _ = decide(after, facts(**READY), NOW)
    assert again.candidate is not None and again.candidate.version == "2"


def test_a_pin_elsewhere_covers_no_failure() -> None:
    """What a gate speaks against is rejected, also where the pin names another version."""
    bad = (Gate("AlertRate", GateResult.FAIL, "3 %", "1 %"),)
    assert decide(shadowing(), facts(**READY, spec=spec_pinned("3"), gates=bad), NOW)[0].rejected == ("2",)


def test_a_pin_to_the_candidate_leaves_it() -> None:
    """The pin that names the candidate speaks for it."""
    assert decide(shadowing(), facts(**READY, spec=spec_pinned("2")), NOW)[0].candidate is not None


def test_a_stale_rollback_strikes_nothing_that_goes_live_later() -> None:
    """rollback: "1", misread as back to 1, does nothing but post one event; it doesn't undo the pin that makes 1 live."""
    state, actions = decide(LIVE, facts(rollback="1", resolved=package("2", "b")), NOW)
    assert state.stable == LIVE.stable and state.phase is LIVE.phase
    assert [action.reason for action in actions if isinstance(action, PostEvent)] == ["RollbackIgnored"]
    assert "'1' isn't live" in actions[0].message  # type: ignore[union-attr]  # it is a PostEvent
    state, actions = decide(state, facts(rollback="1", resolved=package("2", "b")), NOW)
    assert actions == []
    for _ in range(4):
        pinned = facts(
            rollback="1", spec=spec_pinned("1"), resolved=package("1"), propagated=True, champion="1"
        )
        state, actions = decide(state, pinned, NOW)
        assert state.stable == package("1")


def test_a_rollback_and_a_pin_in_one_edit_leave_a_model() -> None:
    """The annotation counts as acted on in the pass in which the pin acts."""
    state = LIVE
    for _ in range(4):
        state, _ = decide(state, facts(rollback="1", spec=spec_pinned("1"), resolved=package("1")), NOW)
    assert state.stable == package("1")


def test_a_rollback_that_is_given_anew_is_obeyed() -> None:
    """Taken away and set again, the same order takes the version back that has gone live since."""
    obeyed = LIVE.model_copy(update={"rollback": "2"})
    assert decide(obeyed, facts(rollback="2"), NOW)[0].stable == LIVE.stable
    gone, actions = decide(obeyed, facts(), NOW)
    assert gone.rollback is None and actions == []
    assert decide(gone, facts(rollback="2"), NOW)[0].stable == package("1")


def of(model: str, version: str, slot: Any = "a") -> ModelPackage:
    return package(version, slot).model_copy(update={"name": model})


def test_versions_are_compared_within_their_model() -> None:
    """After model.registered.name changed, the same number is another version: it becomes a candidate, whatever was rejected."""
    live = RolloutState(
        phase=RolloutPhase.PROMOTED, stable=package("1"), rejected=("2",), rejected_of=("n.d",)
    )
    observed = {"model": "other", "propagated": True}
    for version in ("1", "2"):
        state, actions = decide(live, facts(**observed, resolved=of("other", version)), NOW)
        assert state.candidate is not None and state.candidate.name == "other"
        assert not any(isinstance(action, SetChampion) for action in actions)
    assert decide(live, facts(propagated=True, resolved=package("2")), NOW)[0].candidate is None
    preparing = RolloutState(phase=RolloutPhase.PREPARING, stable=package("7"), candidate=package("1", "b"))
    state, _ = decide(preparing, facts(**observed, resolved=of("other", "1")), NOW)
    assert state.candidate is None and state.rejected == ()


def test_a_pin_names_a_version_of_the_specs_model() -> None:
    """It is no way back to a version of the same number of another model, and no approval of one."""
    observed = {"model": "other", "spec": spec_pinned("1"), "resolved": of("other", "1")}
    assert decide(LIVE, facts(**observed), NOW)[0].stable == LIVE.stable
    shadow = shadowing(candidate=of("other", "1", "b"))
    ready = {"ready": frozenset("ab"), "propagated": True}
    assert decide(shadow, facts(**observed, **ready), NOW)[0].phase is RolloutPhase.RAMP


def test_a_version_is_rejected_with_its_model() -> None:
    """What is taken back keeps its model's name, and a stored rejection without one counts for any."""
    bad = (Gate("AlertRate", GateResult.FAIL, "3 %", "1 %"),)
    old = shadowing(rejected=("9",))
    state, _ = decide(old, facts(**READY, gates=bad), NOW)
    assert state.rejections() == [("", "9"), ("n.d", "2")]
    assert (
        state.rejects(of("other", "9"))
        and state.rejects(package("2"))
        and not state.rejects(of("other", "2"))
    )
