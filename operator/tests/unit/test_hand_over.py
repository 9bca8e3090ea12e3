"""Another feature set takes over without a record that nobody writes, or two jobs that write, whatever ends or changes meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud_contracts.lineage import HandOver, HandOverStep, Lineage, Lineages, Positions
from fraud_operator import lineage
from fraud_operator.hand_over import (
    HELD_MS,
    STILL_MS,
    UNSEEN_MS,
    HandOverFacts,
    Still,
    follow,
    is_ready,
    still,
)
from fraud_operator.rollout_state import RolloutPhase
from fraud_testing.hand_overs import AT_ONCE, PARTITIONS, World


@pytest.fixture(autouse=True)
def held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many records as a job of these tests may hold back."""
    monkeypatch.setattr(lineage, "HELD_BACK", AT_ONCE)


def switched() -> World:
    """The second set has taken over."""
    world = World()
    world.declared = 1
    world.passed()
    world.register()
    for _ in range(40):
        world.pay()
        world.settle_once()
    assert world.answering == world.sets[1].feature_set and world.lineages.hand_over is None
    return world


def all_written(world: World) -> bool:
    return all((at, offset) in world.written for at in PARTITIONS for offset in range(world.ends[at]))


def test_a_changed_set_leaves_the_old_one_answering() -> None:
    """Its own job is built beside, in silence; the model stays, and so does the document, until a version is approved."""
    world = World()
    old, new = (one.feature_set for one in world.sets)
    world.declared, world.approve = 1, False
    for _ in range(20):
        world.pay()
        world.settle_once()
    world.register()
    for _ in range(20):
        world.pay()
        world.settle_once()
    beside = world.lineages.of(new)
    assert world.answering == world.document == old
    assert beside is not None and beside.generation == 2 and beside.beginning.silent
    assert world.state.stable is not None and world.state.stable.version == "1"
    assert world.state.candidate is not None and world.state.phase is RolloutPhase.PREPARING
    assert all_written(world) and {name for names in world.written.values() for name in names} == {old}


def test_an_approved_version_takes_over() -> None:
    """Stream, document and model change to the new set; the old one's job goes on in silence for the way back."""
    world = switched()
    old = world.lineages.of(world.sets[0].feature_set)
    assert world.state.stable is not None and world.state.stable.version == "2"
    assert old is not None and old.beginning.silent
    assert world.jobs[1].running and world.jobs[2].running
    world.settle()
    assert all_written(world) and not world.lost_model


def test_a_rolled_back_set_gives_way_to_the_kept_one() -> None:
    """In its own generation. The bad version leaves the release at once; a key's numbers go on, as each generation is given once."""
    world = switched()
    world.rollback = "2"
    world.passed()
    assert world.state.stable is not None and world.state.stable.version == "1"
    assert not world.release_model(world.sets[1], *world.stored), "rules decide meanwhile"
    for _ in range(40):
        world.pay()
        world.settle_once()
    in_use = world.lineages.in_use
    assert in_use is not None and (in_use.feature_set, in_use.generation) == (world.sets[0].feature_set, 1)
    world.settle()
    assert world.release_model(world.sets[1], *world.stored) and all_written(world)


def test_a_spec_that_is_put_back_takes_the_pending_set_away() -> None:
    """Nothing else happens: its job ends with a savepoint, and the old set goes on answering."""
    world = World()
    world.declared, world.approve = 1, False
    world.register()
    for _ in range(5):
        world.settle_once()
    world.declared = 0
    for _ in range(5):
        world.settle_once()
    assert not world.jobs[2].there and world.jobs[2].kept is not None and world.jobs[1].running
    assert world.state.candidate is None and world.lineages.wanted is None
    assert world.state.stable is not None and world.answering == world.sets[0].feature_set


def test_after_keep_previous_the_old_job_goes() -> None:
    """Its savepoint stays in storage."""
    world = switched()
    world.wait(100 * 24 * 3_600_000)
    for _ in range(3):
        world.settle_once()
    assert not world.jobs[1].there and world.jobs[1].kept is not None and world.lineages.hand_over is None


def test_without_a_model_the_set_changes_at_once() -> None:
    """Rules alone decide, so there is nothing that reads the old one."""
    world = World()
    world.rollback = "1"
    world.settle_once()
    world.declared = 1
    world.passed()
    assert world.state.stable is None
    assert world.answering == world.sets[1].feature_set and world.lineages.hand_over is None


def test_an_approval_that_is_taken_away_calls_it_off() -> None:
    """At any step before the switch: the old job goes on from where it stopped."""
    for step in list(HandOverStep)[:-1]:
        world = World()
        world.declared = 1
        world.register()
        for _ in range(60):
            world.pay()
            world.settle_once()
            if world.lineages.hand_over is not None and world.lineages.hand_over.step is step:
                break
        else:
            raise AssertionError(step)
        world.approve = False
        for _ in range(10):
            world.settle_once()
        assert world.answering == world.sets[0].feature_set and world.lineages.hand_over is None
        assert world.jobs[1].running and not world.jobs[1].beginning.silent and all_written(world)


A, B = "a" * 64, "b" * 64
BOTH = frozenset({1, 2})


def passing(**more: object) -> Lineages:
    """The other job stands still, and the one that answers is to read up to the ends."""
    known = (Lineage(feature_set=B, generation=2), Lineage(feature_set=A, generation=1))
    under_way = HandOver(
        to=B, generations=(1, 2), step=HandOverStep.PASSING, since=0, ends={"accepted": {0: 9}}
    )
    return Lineages(known=known, hand_over=under_way.model_copy(update=more))


def step_after(before: Lineages, facts: HandOverFacts, now: int) -> HandOver:
    after = follow(before, replace(facts, target=B, live=A, present=BOTH), now).hand_over
    assert after is not None
    return after


def seen(short: Positions, ms: int) -> HandOverFacts:
    """The job that answers has been seen to run for so long, short of the ends by this."""
    return HandOverFacts(running=frozenset({1}), stopped=frozenset({2}), still=Still(short, 0, ms))


SHORT = {"accepted": {0: 8}}


def test_what_was_read_is_given_the_time_to_be_written() -> None:
    """A job that has read enough isn't stopped before it has written what it holds back, nor while it isn't seen to run."""
    assert step_after(passing(), HandOverFacts(), HELD_MS).step is HandOverStep.PASSING
    assert step_after(passing(), seen({}, HELD_MS - 1), HELD_MS - 1).step is HandOverStep.PASSING
    assert step_after(passing(), seen({}, HELD_MS), HELD_MS).step is HandOverStep.STOPPING


def test_the_end_of_a_transaction_holds_nothing_up() -> None:
    """No reader commits it: a partition in which a running job reads nothing for a minute has nothing more."""
    assert step_after(passing(), seen(SHORT, HELD_MS), HELD_MS).step is HandOverStep.PASSING
    after = step_after(passing(), seen(SHORT, STILL_MS), STILL_MS)
    assert (after.step, after.short) == (HandOverStep.STOPPING, SHORT)


def test_only_a_job_that_is_seen_to_run_all_the_time_stands_still() -> None:
    """One that didn't run, that nobody looked at for a while, or that read on begins its minute anew; so does a clock that was put back."""
    first = still(None, SHORT, 100)
    assert first is not None and still(first, SHORT, 1_100) == Still(SHORT, 100, 1_100)
    assert still(first, None, 1_100) is None
    assert still(first, {"accepted": {0: 7}}, 1_100) == Still({"accepted": {0: 7}}, 1_100, 1_100)
    assert still(first, SHORT, 100 + UNSEEN_MS) == Still(SHORT, 100 + UNSEEN_MS, 100 + UNSEEN_MS)
    assert still(first, SHORT, 50) == Still(SHORT, 50, 50)


@pytest.mark.parametrize(
    ("committed", "step"),
    [(9, HandOverStep.DRAINING), (8, HandOverStep.DRAINING), (7, HandOverStep.PASSING)],
)
def test_a_job_that_stopped_elsewhere_short_of_an_end_runs_on(committed: int, step: HandOverStep) -> None:
    """Records may lie between, which the other job has passed over in silence, so nobody would write them."""
    before = passing(step=HandOverStep.STOPPING, short=SHORT)
    facts = HandOverFacts(stopped=BOTH, committed={"accepted": {0: committed}})
    assert step_after(before, facts, 5).step is step


@pytest.mark.parametrize("step", [HandOverStep.DRAINING, HandOverStep.READY])
def test_a_job_that_somebody_starts_meanwhile_is_stopped_again(step: HandOverStep) -> None:
    """What it has written since then counts, too."""
    facts = HandOverFacts(running=frozenset({1}), stopped=frozenset({2}), undecided=0)
    assert step_after(passing(step=step), facts, 5).step is HandOverStep.STOPPING
    assert not is_ready(passing(step=step), B, BOTH, frozenset({2}))


EVENTS: dict[str, Callable[[World], None]] = {
    "pay": World.pay,
    "read": World.read,
    "wait": World.wait,
    "long": World.long,
    "work": World.work,
    "checkpoint": World.checkpoint,
    "no commit": lambda world: world.checkpoint(committed=False),
    "fail": World.fail,
    "pass": World.passed,
    "dies early": lambda world: world.passed("early"),
    "dies late": lambda world: world.passed("late"),
    "once": World.settle_once,
    "some": lambda world: [world.settle_once() for _ in range(3)] and None,
    "lose": lambda world: world.lose(0),
    "lose the other": lambda world: world.lose(1),
    "delete": lambda world: world.delete(0),
    "delete the other": lambda world: world.delete(1),
    "approve": lambda world: setattr(world, "approve", not world.approve),
    "predictor": lambda world: setattr(world, "ready", not world.ready),
    "edit": lambda world: setattr(world, "declared", 1 - world.declared),
    "register": World.register,
    "roll back": lambda world: setattr(
        world, "rollback", world.state.stable.version if world.state.stable else ""
    ),
}


# Of a hand-over that is under way the ones that decide whether a record is lost.
BUSY = (
    "pay",
    "read",
    "pass",
    "checkpoint",
    "no commit",
    "wait",
    "work",
    "fail",
    "pass",
    "read",
    "pay",
    "lose",
    "once",
)


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from(sorted(EVENTS)), max_size=30),
    st.lists(st.sampled_from(BUSY), max_size=40),
    st.lists(st.sampled_from(sorted(EVENTS)), max_size=30),
)
def test_every_record_is_written_whatever_happens(first: list[str], busy: list[str], last: list[str]) -> None:
    """By one job at a time, for a worker that can read it; and no model is lost but by a rollback."""
    world = World()
    for event in (*first, "edit", "register", "once", "once", "once", *busy, *last):
        EVENTS[event](world)
    world.settle()
    assert all_written(world)
    assert not world.lost_model
