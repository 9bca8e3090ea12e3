"""How one model version follows another: ``decide(state, facts, now) -> (state, actions)``, pure.

::

    Idle ──► Preparing ──► Shadow ──► Ramp(step 0..n) ──► Promoted (idle again)
                 │            │           │
                 └────────────┴───────────┴──► RolledBack (idle again)

There are two slots, ``a`` and ``b``, each one InferenceService. A version is prepared in a slot that no replica refers
to. The first version ever has nothing to be compared with: it goes live by itself as soon as its predictor answers and the
features are warm. Every later one shadows first; it moves on only when all gates say Pass, or when a person names it in
the approve annotation. ``NoData`` and ``NotEnough`` hold; ``Fail`` rolls back. What was rolled back isn't retried, unless
``model.pin`` asks for it anew; a candidate that only gives way to another version may be.

One that reads another feature set than the one that answers can't be compared with the live one: it waits in ``Preparing``
until a person approves it, and goes live once the decisions are handed over (``hand_over``).

``back`` takes versions back, and nothing holds it: no pause, no invalid spec. ``decide`` calls it first.

The state is kept beside the release in the pointer ConfigMap, so an operator that starts anew goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from fraud_contracts import durations, names
from fraud_contracts.detector import DetectorSpec
from fraud_contracts.detector_model import RolloutMode
from fraud_contracts.release import ModelPackage
from fraud_operator.orders import Orders
from fraud_operator.rollout_state import (
    RESTING,
    RolloutPhase,
    RolloutState,
    asked_again,
    free_slot,
    freed,
    key,
    rejected,
)

# A candidate of which no replica answers is taken back after this time: longer than a lost Pod takes to be there again.
GONE_MS: Final = 60_000


class GateResult(StrEnum):
    PASS = "Pass"  # noqa: S105 - a gate's result, no password
    FAIL = "Fail"
    NO_DATA = "NoData"
    NOT_ENOUGH = "NotEnough"


@dataclass(frozen=True)
class Gate:
    name: str
    result: GateResult
    value: str | None = None
    bound: str | None = None


@dataclass(frozen=True)
class RolloutFacts:
    """What the rollout decides from.

    - ``model``: the registered model that the spec asks for; ``spec.model.pin`` and ``champion`` are its versions.
    - ``resolved``: the version that the registry or the pin names, checked, with slot and url left open.
    - ``warm``: the features have taken in all history.
    - ``ready``: slots whose predictor runs exactly the version that the state puts there.
    - ``silent``: slots whose predictor has no replica at all; ``failed`` why a slot's predictor failed.
    - ``propagated``: every replica uses the release.
    - ``approve``, ``abort``, ``rollback``: the annotations' values; ``orders`` says who set them and the pin.
    - ``urls``: the predictor's address by slot.
    - ``answering`` is the feature set that decides, ``declared`` the spec's; empty where there is only one. ``handed_over``: the
      other one is about to decide; ``returns``: the live version's is on its way back, and rules decide meanwhile.
    """

    spec: DetectorSpec
    model: str
    resolved: ModelPackage | None = None
    warm: bool = False
    ready: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()
    failed: dict[str, str] = field(default_factory=dict)
    propagated: bool = False
    champion: str | None = None
    gates: tuple[Gate, ...] = ()
    approve: str | None = None
    abort: str | None = None
    rollback: str | None = None
    orders: Orders = field(default_factory=Orders)
    urls: dict[str, str] = field(default_factory=dict)
    answering: str = ""
    declared: str = ""
    handed_over: bool = False
    returns: bool = False

    def reads_another(self, package: ModelPackage) -> bool:
        """Whether a version reads another feature set than the one that decides."""
        return bool(self.answering) and package.feature_set != self.answering

    def pinned(self, package: ModelPackage | None) -> bool:
        """Whether spec.model.pin names this version."""
        return package is not None and (self.model, self.spec.model.pin) == key(package)


@dataclass(frozen=True)
class SetChampion:
    model: str
    version: str


@dataclass(frozen=True)
class PostEvent:
    """An event that a person reads."""

    reason: str
    message: str
    warning: bool = False


RolloutAction = SetChampion | PostEvent


def decide(state: RolloutState, facts: RolloutFacts, now: int) -> tuple[RolloutState, list[RolloutAction]]:
    """The next state and what to do about it. At most one transition a pass, so each shows in events and status."""
    state, actions = back(state, facts, now)
    if actions:
        return state, actions
    state = freed(state, now, propagated=facts.propagated)
    stable = state.stable
    # The alias of a model that the spec no longer names isn't read any more, so it stays as it is.
    ours = stable is not None and stable.name == facts.model
    if ours and stable is not None and facts.propagated and facts.champion != stable.version:
        actions.append(SetChampion(stable.name, stable.version))
    if facts.spec.rollout.paused:
        return state, actions
    if stable is not None and facts.handed_over and _unwanted(stable, facts):
        after, more = _leave_model(state, now)
        return after, actions + more
    state = asked_again(state, facts.model, facts.spec.model.pin or "")
    if state.phase in RESTING:
        after, more = _begin(state, facts, now)
    elif state.phase is RolloutPhase.PREPARING:
        after, more = _prepare(state, facts, now)
    else:
        after, more = _advance(state, facts, now)
    return after, actions + more


def back(state: RolloutState, facts: RolloutFacts, now: int) -> tuple[RolloutState, list[RolloutAction]]:
    """Takes a version back where a person or a failure asks for it.

    Without an action only ``gone`` and ``rollback`` of the state may change.
    """
    last_order, state = state.rollback, state.model_copy(update={"rollback": facts.rollback})
    ordered = facts.rollback is not None and facts.rollback != last_order
    if ordered and state.stable is not None and facts.rollback == state.stable.version:
        by = f"ordered by {facts.orders.rollback}"
        return _leave_stable(state, facts, now, f"by annotation, {by}", by)
    after, actions = _back(state, facts, now)
    if ordered:
        live = f"version {state.stable.version}" if state.stable is not None else "none"
        message = f"{names.ROLLBACK_ANNOTATION} names the version to leave; {facts.rollback!r} isn't live ({live} is): nothing is done"
        actions = [PostEvent("RollbackIgnored", message, warning=True), *actions]
    return after, actions


def _back(state: RolloutState, facts: RolloutFacts, now: int) -> tuple[RolloutState, list[RolloutAction]]:
    stable, candidate, previous, pin = state.stable, state.candidate, state.previous, facts.spec.model.pin
    # The registry isn't asked: the previous version was live, and its predictor still runs.
    fits = stable is not None and previous is not None and previous.feature_set == stable.feature_set
    if fits and facts.pinned(previous):
        pinned_by = f"pinned by {facts.orders.pin}"
        why = f"since spec.model.pin names version {pin}, {pinned_by}"
        return _leave_stable(state, facts, now, why, pinned_by)
    if candidate is None:
        return state, []
    why, by = _against(state, candidate, facts)
    gone = (now if state.gone is None else state.gone) if candidate.slot in facts.silent else None
    if state.phase is RolloutPhase.PREPARING:
        gone = None  # it isn't there yet
    if not why and gone is not None and now - gone >= GONE_MS:
        why = f"no replica of its predictor has answered for {(now - gone) // 1000} s"
    if why:
        return _reject(state, facts, now, why, by)
    if pin is not None and not facts.pinned(candidate):
        pinned_by = f"pinned by {facts.orders.pin}"
        return _withdraw(state, now, f"spec.model.pin names version {pin}, {pinned_by}", pinned_by)
    return (state if gone == state.gone else state.model_copy(update={"gone": gone})), []


def _against(state: RolloutState, candidate: ModelPackage, facts: RolloutFacts) -> tuple[str, str | None]:
    """(Why a candidate is taken back at once, who ordered it); empty where nothing speaks against it."""
    if facts.abort == candidate.version:
        by = f"aborted by {facts.orders.abort}"
        return f"{by}, by annotation", by
    if candidate.slot in facts.failed:
        verb = "can't start" if state.phase is RolloutPhase.PREPARING else "failed"
        return f"its predictor {verb}: {facts.failed[candidate.slot]}", None
    if state.phase is RolloutPhase.PREPARING:
        return "", None
    if state.stable is not None and facts.pinned(state.stable):
        by = f"pinned by {facts.orders.pin}"
        return f"spec.model.pin names the live version {state.stable.version}, {by}", by
    failing = next((gate for gate in facts.gates if gate.result is GateResult.FAIL), None)
    return f"gate {failing.name} failed: {failing.value} is past {failing.bound}" if failing else "", None


def _begin(state: RolloutState, facts: RolloutFacts, now: int) -> tuple[RolloutState, list[RolloutAction]]:
    wanted = facts.resolved
    if wanted is None or state.rejects(wanted):
        return state, []
    if state.stable is not None and key(state.stable) == key(wanted):
        return state, []
    if state.stable is not None and not facts.propagated:
        return state, []
    slot = free_slot(state)
    if slot is None:
        return state, []
    candidate = wanted.model_copy(update={"slot": slot, "url": facts.urls.get(slot, wanted.url)})
    by = f"pinned by {facts.orders.pin}" if facts.pinned(wanted) else None
    after = _enter(state, RolloutPhase.PREPARING, now, by, candidate=candidate)
    message = f"model version {candidate.version} is prepared in slot {slot}{_named(by)}"
    return after, [PostEvent("Preparing", message)]


def _prepare(state: RolloutState, facts: RolloutFacts, now: int) -> tuple[RolloutState, list[RolloutAction]]:
    candidate = state.candidate
    assert candidate is not None
    if facts.resolved is not None and key(facts.resolved) != key(candidate):
        # Nobody refers to the slot yet, so a newer version may simply take its place.
        return _withdraw(state, now, f"version {facts.resolved.version} is wanted", None)
    if facts.reads_another(candidate) and candidate.feature_set != facts.declared:
        return _withdraw(state, now, "the spec declares another feature set", None)
    if facts.returns or candidate.slot not in facts.ready:
        return state, []  # beside a live version that no door can read yet nothing can be tried
    by = state.by if state.stable is None else approved(candidate, facts)
    if facts.reads_another(candidate):
        goes = state.stable is not None and by is not None and facts.handed_over
        return _make_live(state, facts, now, by) if goes else (state, [])
    if state.stable is None:
        return _make_live(state, facts, now, by) if facts.warm else (state, [])
    after = _enter(state, RolloutPhase.SHADOW, now, state.by)
    return after, [PostEvent("Shadow", f"model version {candidate.version} shadows {state.stable.version}")]


def _advance(state: RolloutState, facts: RolloutFacts, now: int) -> tuple[RolloutState, list[RolloutAction]]:
    candidate = state.candidate
    assert candidate is not None
    if facts.reads_another(candidate):
        return _withdraw(state, now, "another feature set answers now", None)
    by = approved(candidate, facts)
    passed = bool(facts.gates) and all(gate.result is GateResult.PASS for gate in facts.gates)
    if not by and (facts.spec.rollout.mode is RolloutMode.MANUAL or not passed):
        return state, []
    if state.counted is None or candidate.slot not in facts.ready:
        return state, []
    waits = not by or state.phase is RolloutPhase.RAMP
    if waits and now - state.counted < durations.to_ms(facts.spec.rollout.step_duration):
        return state, []
    step = state.step + 1
    if step >= len(facts.spec.rollout.steps):
        return _make_live(state, facts, now, by)
    after = _enter(state, RolloutPhase.RAMP, now, by, step=step)
    percent = facts.spec.rollout.steps[step]
    message = f"model version {candidate.version} answers {percent} % of the entities{_named(by)}"
    return after, [PostEvent("Ramp", message)]


def approved(candidate: ModelPackage, facts: RolloutFacts) -> str | None:
    """Who approved a candidate's steps; None where only its gates may."""
    if facts.approve == candidate.version:
        return f"approved by {facts.orders.approve}"
    return f"pinned by {facts.orders.pin}" if facts.pinned(candidate) else None


def _named(by: str | None) -> str:
    return f", {by}" if by else ""


def _make_live(
    state: RolloutState, facts: RolloutFacts, now: int, by: str | None
) -> tuple[RolloutState, list[RolloutAction]]:
    """The candidate becomes the stable version, which answers; the one before is kept for ``keepPrevious``."""
    candidate, old = state.candidate, state.stable
    assert candidate is not None
    keep = durations.to_ms(facts.spec.rollout.keep_previous)
    after = _enter(
        state,
        RolloutPhase.PROMOTED,
        now,
        by,
        stable=candidate,
        candidate=None,
        previous=old,
        previous_until=now + keep if old is not None else None,
    )
    return after, [PostEvent("ModelLive", f"model version {candidate.version} is live{_named(by)}")]


def _unwanted(stable: ModelPackage, facts: RolloutFacts) -> bool:
    """Whether no model is to answer once another set does: the live one couldn't be read, and the spec wants none."""
    return facts.spec.model.none is not None and not facts.reads_another(stable)


def _leave_model(state: RolloutState, now: int) -> tuple[RolloutState, list[RolloutAction]]:
    """To rules without a model, as the spec has it: nothing is wrong with the version."""
    old = state.stable
    assert old is not None
    after = _enter(
        state,
        RolloutPhase.IDLE,
        now,
        None,
        stable=None,
        candidate=None,
        gone=None,
        previous=None,
        previous_until=None,
        retiring=old,
    )
    message = f"model version {old.version} gives way: its feature set no longer answers, and the spec wants no model"
    return after, [PostEvent("Superseded", message)]


def _withdraw(
    state: RolloutState, now: int, why: str, by: str | None
) -> tuple[RolloutState, list[RolloutAction]]:
    """Drops a candidate that has no fault; it may be tried again."""
    candidate = state.candidate
    assert candidate is not None
    after = _enter(state, RolloutPhase.IDLE, now, by, candidate=None, gone=None, retiring=candidate)
    return after, [PostEvent("Superseded", f"model version {candidate.version} gives way: {why}")]


def _reject(
    state: RolloutState, facts: RolloutFacts, now: int, why: str, by: str | None
) -> tuple[RolloutState, list[RolloutAction]]:
    candidate = state.candidate
    assert candidate is not None
    after = _take_back(state, facts, now, [candidate], by, retiring=candidate)
    return after, [
        PostEvent("RolledBack", f"model version {candidate.version} is taken back: {why}", warning=True)
    ]


def _leave_stable(
    state: RolloutState, facts: RolloutFacts, now: int, why: str, by: str
) -> tuple[RolloutState, list[RolloutAction]]:
    """Back to the previous version, or to policy without a model where there is none. The policy stays as it is."""
    bad = state.stable
    assert bad is not None
    after = _take_back(
        state,
        facts,
        now,
        [*([state.candidate] if state.candidate else []), bad],
        by,
        stable=state.previous,
        previous=None,
        previous_until=None,
        retiring=bad,
    )
    to = f"version {state.previous.version}" if state.previous else "rules without a model"
    return after, [
        PostEvent(
            "RolledBack", f"model version {bad.version} is taken back {why}; {to} answers", warning=True
        )
    ]


def _take_back(
    state: RolloutState,
    facts: RolloutFacts,
    now: int,
    bad: Sequence[ModelPackage],
    by: str | None,
    **changes: object,
) -> RolloutState:
    """Drops the candidate and rejects the ``bad`` versions; the condition names the last of these."""
    rejections = rejected([*state.rejections(), *map(key, bad)][-20:])
    pin = facts.spec.model.pin or ""
    return _enter(
        state, RolloutPhase.ROLLED_BACK, now, by, candidate=None, gone=None, pin=pin, **rejections, **changes
    )


def _enter(
    state: RolloutState, phase: RolloutPhase, now: int, by: str | None, **changes: object
) -> RolloutState:
    """The one way into a phase: its time begins anew, and its step counts once every replica has its release."""
    return state.model_copy(
        update={"phase": phase, "since": now, "by": by, "counted": None, "step": -1, **changes}
    )
