"""How another lineage takes over the decisions: ``follow`` is asked in each pass, and gives the lineages as they are to be kept. Pure.

::

    (none) ─► Aligning ─► Passing ─► Stopping ─► Draining ─► Ready ─► Settling ─► (none)

At first the job beside stops with a savepoint, so that it is behind the one that answers in every partition (*Aligning*, *Passing*). Then
that one stops, too (*Stopping*): what it has read for good is where the other one goes on. The worker decides what is left
(*Draining*), the rollout makes the model live whose set this is (*Ready*), and release, document and lineage in use change in
one pass. Once the worker runs with them (*Settling*) the other job starts again and writes from the recorded offsets on; the first one
goes on in silence, for the way back.

So of each record one job writes, whatever ends in between: all of it is in the lineages, each step is taken from what was seen after
the one before was written down, and up to *Ready* it may be called off, after which the job that answered goes on from its savepoint.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from fraud_contracts.detector_policy import Policy
from fraud_contracts.feature_set import hash6
from fraud_contracts.lineage import INPUTS, HandOver, HandOverStep, Lineages, Positions
from fraud_operator.lineage import Held, written
from fraud_operator.rollout import RolloutFacts, approved
from fraud_operator.rollout_state import RolloutPhase, RolloutState

# How long a job goes on after it has read what the other one had: longer than an inline decision waits for others of its key.
HELD_MS: Final = 2_000
# A partition in which nothing is read for so long by a job that runs has nothing more: ends of transactions are no records.
STILL_MS: Final = 60_000
# Who hasn't looked for so long doesn't know whether it ran all the time.
UNSEEN_MS: Final = 15_000
# How long the worker is waited for. One that comes later decides records of the new set without a model, and marks them.
SETTLE_MS: Final = 120_000

Step = HandOverStep


@dataclass(frozen=True)
class Still:
    """The job that answers has been seen to run since then (UTC ms), pass after pass, and is short of the ends by the same all that time.

    ``short``: how far it has read the partitions of which it hasn't passed the end. ``last``: when that was seen last.
    """

    short: Positions
    since: int
    last: int


def still(before: Still | None, short: Positions | None, now: int) -> Still | None:
    """The same a pass later; ``short`` is None where the job doesn't run, or Kafka doesn't say."""
    if short is None:
        return None
    unseen = before is None or not 0 <= now - before.last < UNSEEN_MS
    if before is None or unseen or before.short != short:
        return Still(short, now, now)
    return replace(before, last=now)


@dataclass(frozen=True)
class HandOverFacts:
    """What a hand-over goes by. None is what nobody knows now.

    ``target`` is the feature set that should answer, None where the one that does should; ``live`` that of the live model.
    ``warm``: the job beside has taken in its history and is near the ends of its inputs. By generation: jobs that are there
    (``present``), run (``running``), stand still (``stopped``). ``committed`` is what the job that answers has read for good, and ``still``
    since when it is short of the ends by what it is; ``held`` first and end of the inputs. ``undecided`` are feature records that the worker hasn't decided; ``settled``: all its
    replicas run with the document of the set that answers. ``policy`` is the live one, where the other set's release will have one
    that this set can't read.
    """

    target: str | None = None
    live: str | None = None
    warm: bool = False
    present: frozenset[int] = frozenset()
    running: frozenset[int] = frozenset()
    stopped: frozenset[int] = frozenset()
    committed: Positions | None = None
    still: Still | None = None
    held: Held | None = None
    undecided: int | None = None
    settled: bool = False
    policy: Policy | None = None


def target(
    state: RolloutState, facts: RolloutFacts, answering: str, declared: str, beside: str | None
) -> str | None:
    """The feature set that should answer in the place of the one that does; None where that one should."""
    stable, candidate = state.stable, state.candidate
    if beside is None or beside == answering:
        return None
    if stable is not None and stable.feature_set == beside:
        return beside  # the way back, or a version that has just been promoted
    if facts.spec.rollout.paused:
        return None
    if stable is None or facts.spec.model.none is not None:
        return beside if beside == declared else None  # rules alone decide, or will
    if candidate is None or candidate.feature_set != beside or state.phase is not RolloutPhase.PREPARING:
        return None  # one that is tried already is another live version's rival
    if candidate.slot not in facts.ready:
        return None
    return beside if approved(candidate, facts) is not None else None


def is_ready(lineages: Lineages, feature_set: str, present: frozenset[int], stopped: frozenset[int]) -> bool:
    """Whether all is done but the switch to this feature set."""
    hand_over = lineages.hand_over
    if hand_over is None or hand_over.step is not Step.READY or hand_over.to != feature_set:
        return False
    facts = HandOverFacts(target=feature_set, present=present)
    return set(hand_over.generations) <= stopped and not _off(lineages, hand_over, facts)


def follow(before: Lineages, facts: HandOverFacts, now: int) -> Lineages:
    """At most one step a pass, so that the next one is taken from what is seen after this one was written down."""
    hand_over = before.hand_over
    if hand_over is None:
        return _begin(before, facts, now)
    if hand_over.step is Step.SETTLING:
        return _settle(before, hand_over, facts, now)
    if _off(before, hand_over, facts):
        return before.without_hand_over()
    both_stand = set(hand_over.generations) <= facts.stopped
    match hand_over.step:
        case Step.ALIGNING:
            if hand_over.generations[1] in facts.stopped and facts.held is not None:
                return _enter(before, Step.PASSING, now, ends=_ends(facts.held))
        case Step.PASSING:
            return _pass(before, facts, now)
        case Step.STOPPING:
            if both_stand and facts.committed is not None:
                return _stopped(before, hand_over, facts, now)
        case _ if not both_stand:
            # Somebody has started one of them, which has read on, and written: what was noted when they stood is of then.
            return _enter(before, Step.STOPPING, now)
        case Step.DRAINING:
            if facts.undecided == 0:
                return _enter(before, Step.READY, now)
        case _:
            if facts.live in (None, hand_over.to):
                return _switch(before, hand_over, facts, now)
    return before


def told(before: Lineages, after: Lineages) -> tuple[str, str] | None:
    """The event of a step, (reason, message); None of one that nobody has to know."""
    was, now = before.hand_over, after.hand_over
    if was is None and now is not None:
        return (
            "HandingOver",
            f"feature set {hash6(now.to)} is about to take over: the streaming jobs stop in turn",
        )
    if was is not None and now is None and was.step is not Step.SETTLING:
        return (
            "HandOverOff",
            f"feature set {hash6(was.to)} doesn't take over: it is wanted no more, or a streaming job is gone",
        )
    if was is not None and now is None:
        return "HandedOver", f"feature set {hash6(was.to)} answers at both doors"
    return None


def _begin(before: Lineages, facts: HandOverFacts, now: int) -> Lineages:
    in_use, other = before.in_use, before.of(facts.target) if facts.target is not None else None
    if in_use is None or other is None or other == in_use or not other.beginning.silent or not facts.warm:
        return before
    generations = (in_use.generation, other.generation)
    if not set(generations) <= facts.running:
        return before
    return before.model_copy(
        update={"hand_over": HandOver(to=other.feature_set, generations=generations, since=now)}
    )


def _off(before: Lineages, hand_over: HandOver, facts: HandOverFacts) -> bool:
    """Whether nobody wants it any more, or one of its jobs is another one or gone."""
    in_use, other = before.in_use, before.of(hand_over.to)
    if in_use is None or other is None or (in_use.generation, other.generation) != hand_over.generations:
        return True
    return facts.target != hand_over.to or not set(hand_over.generations) <= facts.present


def _enter(before: Lineages, step: Step, now: int, **changes: object) -> Lineages:
    assert before.hand_over is not None
    hand_over = before.hand_over.model_copy(update={"step": step, "since": now, **changes})
    return before.model_copy(update={"hand_over": hand_over})


def _ends(held: Held) -> Positions:
    """Of the partitions that hold any record."""
    return {
        noun: {at: end for at, (first, end) in held.get(noun, {}).items() if end > first} for noun in INPUTS
    }


def _pass(before: Lineages, facts: HandOverFacts, now: int) -> Lineages:
    """Until the job that answers has read all that the other one may have read, and has had the time to write it."""
    seen = facts.still
    if seen is None or now - seen.since < (STILL_MS if seen.short else HELD_MS):
        return before
    return _enter(before, Step.STOPPING, now, short=seen.short)


def _stopped(before: Lineages, hand_over: HandOver, facts: HandOverFacts, now: int) -> Lineages:
    """Where it stopped short of an end, and not where it had been seen to stand, records may lie between: it runs on."""
    short = short_of(facts.committed or {}, hand_over.ends)
    moved = any(
        hand_over.short.get(noun, {}).get(at) != read
        for noun, by_partition in short.items()
        for at, read in by_partition.items()
    )
    if moved:
        return _enter(before, Step.PASSING, now, short={})
    return _enter(before, Step.DRAINING, now, emits_from=_goes_on(before, hand_over, facts))


def short_of(committed: Positions, ends: Positions) -> Positions:
    """How far the partitions are read that aren't read up to there."""
    behind = {
        noun: {
            at: read for at, end in by_partition.items() if (read := committed.get(noun, {}).get(at, 0)) < end
        }
        for noun, by_partition in ends.items()
    }
    return {noun: by_partition for noun, by_partition in behind.items() if by_partition}


def _goes_on(before: Lineages, hand_over: HandOver, facts: HandOverFacts) -> Positions:
    """From where the other job writes: never from before where it has stopped, as it reads nothing twice."""
    assert before.in_use is not None
    by_job, ends = written(before.in_use, {}, facts.committed or {}), hand_over.ends
    return {
        noun: {
            at: max(by_job.get(noun, {}).get(at, 0), ends.get(noun, {}).get(at, 0))
            for at in sorted({*by_job.get(noun, {}), *ends.get(noun, {})})
        }
        for noun in INPUTS
        if by_job.get(noun) or ends.get(noun)
    }


def _switch(before: Lineages, hand_over: HandOver, facts: HandOverFacts, now: int) -> Lineages:
    """The other lineage is in use from now on; neither job writes before the worker is the other set's."""
    last, own = before.in_use, before.of(hand_over.to)
    assert last is not None and own is not None
    silent = last.beginning.model_copy(update={"silent": True})
    goes_on = own.beginning.model_copy(update={"emits_from": hand_over.emits_from})
    after = before.using(last.model_copy(update={"beginning": silent, "policy": facts.policy}))
    after = after.using(own.model_copy(update={"beginning": goes_on}))
    return _enter(after, Step.SETTLING, now)


def _settle(before: Lineages, hand_over: HandOver, facts: HandOverFacts, now: int) -> Lineages:
    own = before.in_use
    if own is None or (not facts.settled and now - hand_over.since < SETTLE_MS):
        return before
    aloud = own.beginning.model_copy(update={"silent": False})
    return before.using(own.model_copy(update={"beginning": aloud})).without_hand_over()
