"""The rollout's transitions forward, each from a written-down state and facts."""

from __future__ import annotations

from fraud_operator.rollout import Gate, GateResult, PostEvent, SetChampion, decide
from fraud_operator.rollout_state import RolloutPhase, RolloutState, free_slot
from fraud_testing.rollout_states import MINUTE, NOW, PASS, READY, facts, package, shadowing, spec


def test_nothing_happens_without_a_version() -> None:
    """Without a resolved version a fresh detector stays idle with release 0."""
    assert decide(RolloutState(), facts(), NOW) == (RolloutState(), [])


def test_the_first_version_goes_live_by_itself() -> None:
    """The first version is prepared in slot a and goes live once it is ready and the features are warm, not before."""
    state, actions = decide(RolloutState(), facts(resolved=package("1")), NOW)
    assert (
        state.phase is RolloutPhase.PREPARING and state.candidate is not None and state.candidate.slot == "a"
    )
    assert isinstance(actions[0], PostEvent)
    assert (
        decide(state, facts(resolved=package("1"), ready=frozenset("a")), NOW)[0].phase
        is RolloutPhase.PREPARING
    )
    assert decide(state, facts(resolved=package("1"), warm=True), NOW)[0].phase is RolloutPhase.PREPARING
    live, actions = decide(state, facts(resolved=package("1"), ready=frozenset("a"), warm=True), NOW)
    assert live.phase is RolloutPhase.PROMOTED and live.stable is not None and live.stable.version == "1"
    assert live.candidate is None and live.previous is None
    assert [action.reason for action in actions if isinstance(action, PostEvent)] == ["ModelLive"]


def test_champion_follows_propagation() -> None:
    """The champion alias is written only when every replica has the release, and only once."""
    live = RolloutState(phase=RolloutPhase.PROMOTED, stable=package("1"))
    assert decide(live, facts(resolved=package("1")), NOW)[1] == []
    assert decide(live, facts(resolved=package("1"), propagated=True), NOW)[1] == [SetChampion("n.d", "1")]
    assert decide(live, facts(resolved=package("1"), propagated=True, champion="1"), NOW)[1] == []


def test_a_second_version_shadows_in_the_other_slot() -> None:
    """A later version is prepared beside the live one and then shadows; the live one keeps its slot."""
    live = RolloutState(phase=RolloutPhase.PROMOTED, stable=package("1"))
    observed = {"propagated": True, "champion": "1", "resolved": package("2")}
    preparing, _ = decide(live, facts(**observed), NOW)
    assert preparing.candidate is not None and preparing.candidate.slot == "b"
    assert preparing.in_release() is None
    shadow, _ = decide(preparing, facts(**observed, ready=frozenset("ab")), NOW)
    assert shadow.phase is RolloutPhase.SHADOW and shadow.in_release() == shadow.candidate
    assert shadow.split(spec()) is None and shadow.stable == package("1")


def test_no_data_holds() -> None:
    """Without measured gates a candidate shadows for ever, however long it has been there."""
    for gates in ((), (Gate("AlertRate", GateResult.NO_DATA),), (PASS[0], Gate("X", GateResult.NOT_ENOUGH))):
        assert decide(shadowing(), facts(**READY, gates=gates), NOW + 10**9)[0] == shadowing()


def test_passed_gates_move_on_step_by_step() -> None:
    """With all gates passed a candidate takes each step for its whole duration and is then promoted."""
    state, steps = shadowing(), []
    now = NOW
    for _ in range(20):
        now += MINUTE // 2
        state, _ = decide(state, facts(**READY, gates=PASS), now)
        split = state.split(spec())
        steps.append((state.phase, split.share if split else None))
    assert list(dict.fromkeys(steps)) == [
        (RolloutPhase.SHADOW, None),
        (RolloutPhase.RAMP, 500),
        (RolloutPhase.RAMP, 5000),
        (RolloutPhase.PROMOTED, None),
    ]
    assert state.stable == package("2", "b")


def test_a_step_counts_from_its_propagation() -> None:
    """A step's time doesn't run while some replica still has the release before it."""
    ramp = shadowing(phase=RolloutPhase.RAMP, step=0, counted=None)
    late = NOW + 100 * MINUTE
    held, _ = decide(ramp, facts(**{**READY, "propagated": False}, gates=PASS), late)
    assert held.step == 0 and held.counted is None
    counted, _ = decide(held, facts(**READY, gates=PASS), late)
    assert counted.step == 0 and counted.counted == late


def test_a_failed_gate_takes_the_candidate_back_for_good() -> None:
    """A failed gate rolls back; the version isn't tried again and its slot is kept until nobody refers to it."""
    bad = (Gate("AlertRate", GateResult.FAIL, "3 %", "1 %"),)
    back, actions = decide(shadowing(), facts(**READY, gates=bad), NOW)
    assert back.phase is RolloutPhase.ROLLED_BACK and back.rejected == ("2",) and back.stable == package("1")
    assert back.retiring == package("2", "b") and free_slot(back) is None
    assert isinstance(actions[0], PostEvent) and actions[0].warning
    later, _ = decide(back, facts(**READY), NOW + MINUTE)
    assert later.phase is RolloutPhase.ROLLED_BACK and later.candidate is None and later.retiring is None
    assert (
        decide(later, facts(**{**READY, "resolved": package("3")}), NOW + MINUTE)[0].phase
        is RolloutPhase.PREPARING
    )


def test_approval_stands_in_for_missing_data_but_not_for_failure() -> None:
    """A person's approval moves a candidate on without data; a failed gate still takes it back."""
    ramp, _ = decide(
        shadowing(), facts(**READY, approve="2", gates=(Gate("AlertRate", GateResult.NO_DATA),)), NOW
    )
    assert ramp.phase is RolloutPhase.RAMP and ramp.step == 0
    other, _ = decide(shadowing(), facts(**READY, approve="9"), NOW)
    assert other.phase is RolloutPhase.SHADOW
    bad, _ = decide(
        shadowing(), facts(**READY, approve="2", gates=(Gate("AlertRate", GateResult.FAIL),)), NOW
    )
    assert bad.phase is RolloutPhase.ROLLED_BACK


def test_manual_mode_waits_for_a_person() -> None:
    """In Manual mode passed gates alone move nothing."""
    manual = spec(mode="Manual")
    late = NOW + 100 * MINUTE
    assert decide(shadowing(), facts(**READY, spec=manual, gates=PASS), late)[0].phase is RolloutPhase.SHADOW
    assert (
        decide(shadowing(), facts(**READY, spec=manual, gates=PASS, approve="2"), late)[0].phase
        is RolloutPhase.RAMP
    )
