"""How one model version follows another: ``decide(state, facts, now) -> (state, actions)``, pure.

::

    Idle ──► Preparing ──► Shadow ──► Ramp(step 0..n) ──► Promoted (idle again)
                 │            │           │
                 └────────────┴───────────┴──► RolledBack (idle again)

There are two slots, ``a`` and ``b``, each one InferenceService. A version is prepared in a slot that no replica refers
to. The first version ever has nothing to be compared with: it goes live by itself as soon as its predictor answers and the
features are warm. Every later one shadows first; it moves on only when all gates say Pass, or when a person names it in
the approve annotation. ``NoData`` and ``NotEnough`` hold; ``Fail`` rolls back. What was rolled back isn't retried.

The state is kept beside the release in the pointer ConfigMap, so an operator that starts anew goes on from there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal

from pydantic import Field

from fraud_contracts import durations
from fraud_contracts.config import Mounted
from fraud_contracts.detector import DetectorSpec, RolloutMode
from fraud_contracts.release import BUCKETS, ModelPackage, Split

SLOTS: Final[tuple[Literal["a", "b"], ...]] = ("a", "b")
ROLLOUT_KEY: Final = "rollout.json"


class Phase(StrEnum):
    IDLE = "Idle"
    PREPARING = "Preparing"
    SHADOW = "Shadow"
    RAMP = "Ramp"
    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"


RESTING: Final = frozenset({Phase.IDLE, Phase.PROMOTED, Phase.ROLLED_BACK})


class State(Mounted):
    """``counted`` is when every replica first had this step's release: a step's time runs from there, not from the order.

    ``retiring`` keeps a slot's predictor while replicas may still ask it; ``previous`` keeps it for a fast way back.
    """

    phase: Phase = Phase.IDLE
    since: int = 0
    counted: int | None = None
    step: int = -1
    stable: ModelPackage | None = None
    candidate: ModelPackage | None = None
    previous: ModelPackage | None = None
    previous_until: int | None = None
    retiring: ModelPackage | None = None
    rejected: tuple[str, ...] = Field(default=())

    def packages(self) -> list[ModelPackage]:
        """What must be served now: one InferenceService each."""
        return [p for p in (self.stable, self.candidate, self.previous, self.retiring) if p is not None]

    def in_release(self) -> ModelPackage | None:
        """The candidate, where the release names it."""
        return self.candidate if self.phase in (Phase.SHADOW, Phase.RAMP) else None

    def split(self, spec: DetectorSpec) -> Split | None:
        """The buckets that the candidate answers; None while it only shadows."""
        if self.phase is not Phase.RAMP or self.candidate is None:
            return None
        percent = spec.rollout.steps[min(self.step, len(spec.rollout.steps) - 1)]
        salt = f"{self.candidate.version}:{self.candidate.digest[-8:]}"
        return Split(salt=salt, share=percent * BUCKETS // 100)


class Result(StrEnum):
    PASS = "Pass"  # noqa: S105 - a gate's result, no password
    FAIL = "Fail"
    NO_DATA = "NoData"
    NOT_ENOUGH = "NotEnough"


@dataclass(frozen=True)
class Gate:
    name: str
    result: Result
    value: str | None = None
    bound: str | None = None


@dataclass(frozen=True)
class Facts:
    """``resolved`` is the version that the registry (or the pin) names, already checked, with slot and url left open.

    ``ready`` holds the slots whose predictor runs exactly the version that the state puts there.
    """

    spec: DetectorSpec
    resolved: ModelPackage | None = None
    warm: bool = False
    ready: frozenset[str] = frozenset()
    failed: dict[str, str] = field(default_factory=dict)
    propagated: bool = False
    champion: str | None = None
    gates: tuple[Gate, ...] = ()
    approve: str | None = None
    abort: str | None = None
    rollback: str | None = None
    urls: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SetChampion:
    version: str


@dataclass(frozen=True)
class Tell:
    """An event that a person reads."""

    reason: str
    message: str
    warning: bool = False


Action = SetChampion | Tell


def decide(state: State, facts: Facts, now: int) -> tuple[State, list[Action]]:
    """The next state and what to do about it. At most one transition a pass, so each is seen and told."""
    if facts.rollback and state.stable is not None and facts.rollback == state.stable.version:
        return _leave_stable(state, facts, now)
    if facts.abort and state.candidate is not None and facts.abort == state.candidate.version:
        return _reject(state, now, f"model version {facts.abort} was aborted by annotation")
    state = _let_go(state, facts, now)
    actions: list[Action] = []
    if state.stable is not None and facts.propagated and facts.champion != state.stable.version:
        actions.append(SetChampion(state.stable.version))
    if facts.spec.rollout.paused:
        return state, actions
    if state.phase in RESTING:
        after, more = _begin(state, facts, now)
    elif state.phase is Phase.PREPARING:
        after, more = _prepare(state, facts, now)
    else:
        after, more = _advance(state, facts, now)
    return after, actions + more


def _let_go(state: State, facts: Facts, now: int) -> State:
    """Frees the slots that nothing refers to any more."""
    if facts.propagated and state.retiring is not None:
        state = state.model_copy(update={"retiring": None})
    if (
        state.previous is not None
        and state.previous_until is not None
        and now >= state.previous_until
        and facts.propagated
    ):
        state = state.model_copy(update={"previous": None, "previous_until": None})
    if facts.propagated and state.counted is None:
        state = state.model_copy(update={"counted": now})
    return state


def free_slot(state: State) -> Literal["a", "b"] | None:
    used = {package.slot for package in state.packages()}
    return next((slot for slot in SLOTS if slot not in used), None)


def _begin(state: State, facts: Facts, now: int) -> tuple[State, list[Action]]:
    wanted = facts.resolved
    if wanted is None or wanted.version in state.rejected:
        return state, []
    if state.stable is not None and state.stable.version == wanted.version:
        return state, []
    if state.stable is not None and not facts.propagated:
        return state, []
    slot = free_slot(state)
    if slot is None:
        return state, []
    candidate = wanted.model_copy(update={"slot": slot, "url": facts.urls.get(slot, wanted.url)})
    after = state.model_copy(
        update={"phase": Phase.PREPARING, "since": now, "counted": None, "step": -1, "candidate": candidate}
    )
    return after, [Tell("Preparing", f"model version {candidate.version} is prepared in slot {slot}")]


def _prepare(state: State, facts: Facts, now: int) -> tuple[State, list[Action]]:
    candidate = state.candidate
    assert candidate is not None
    if facts.resolved is not None and facts.resolved.version != candidate.version:
        # Nobody refers to the slot yet, so a newer version may simply take its place.
        after = state.model_copy(
            update={"phase": Phase.IDLE, "since": now, "candidate": None, "retiring": candidate}
        )
        return after, [
            Tell("Superseded", f"model version {candidate.version} gives way to {facts.resolved.version}")
        ]
    if candidate.slot in facts.failed:
        return _reject(state, now, f"its predictor can't start: {facts.failed[candidate.slot]}")
    if candidate.slot not in facts.ready:
        return state, []
    if state.stable is None:
        if not facts.warm:
            return state, []
        return _promote(state, facts, now)
    after = state.model_copy(update={"phase": Phase.SHADOW, "since": now, "counted": None})
    return after, [Tell("Shadow", f"model version {candidate.version} shadows {state.stable.version}")]


def _advance(state: State, facts: Facts, now: int) -> tuple[State, list[Action]]:
    candidate = state.candidate
    assert candidate is not None
    failing = [gate for gate in facts.gates if gate.result is Result.FAIL]
    if failing:
        gate = failing[0]
        return _reject(state, now, f"gate {gate.name} failed: {gate.value} is past {gate.bound}")
    approved = facts.approve == candidate.version or facts.spec.model.pin == candidate.version
    passed = bool(facts.gates) and all(gate.result is Result.PASS for gate in facts.gates)
    if not approved and (facts.spec.rollout.mode is RolloutMode.MANUAL or not passed):
        return state, []
    if state.counted is None or candidate.slot not in facts.ready:
        return state, []
    waits = not approved or state.phase is Phase.RAMP
    if waits and now - state.counted < durations.to_ms(facts.spec.rollout.step_duration):
        return state, []
    step = state.step + 1
    if step >= len(facts.spec.rollout.steps):
        return _promote(state, facts, now)
    after = state.model_copy(update={"phase": Phase.RAMP, "since": now, "counted": None, "step": step})
    percent = facts.spec.rollout.steps[step]
    return after, [Tell("Ramp", f"model version {candidate.version} answers {percent} % of the entities")]


def _promote(state: State, facts: Facts, now: int) -> tuple[State, list[Action]]:
    candidate, old = state.candidate, state.stable
    assert candidate is not None
    keep = durations.to_ms(facts.spec.rollout.keep_previous)
    after = state.model_copy(
        update={
            "phase": Phase.PROMOTED,
            "since": now,
            "counted": None,
            "step": -1,
            "stable": candidate,
            "candidate": None,
            "previous": old,
            "previous_until": now + keep if old is not None else None,
        }
    )
    return after, [Tell("ModelLive", f"model version {candidate.version} is live")]


def _reject(state: State, now: int, why: str) -> tuple[State, list[Action]]:
    candidate = state.candidate
    assert candidate is not None
    after = state.model_copy(
        update={
            "phase": Phase.ROLLED_BACK,
            "since": now,
            "counted": None,
            "step": -1,
            "candidate": None,
            "retiring": candidate,
            "rejected": (*state.rejected, candidate.version)[-20:],
        }
    )
    return after, [
        Tell("RolledBack", f"model version {candidate.version} is taken back: {why}", warning=True)
    ]


def _leave_stable(state: State, facts: Facts, now: int) -> tuple[State, list[Action]]:
    """Back to the previous version, or to policy without a model where there is none. The policy stays as it is."""
    bad = state.stable
    assert bad is not None
    after = state.model_copy(
        update={
            "phase": Phase.ROLLED_BACK,
            "since": now,
            "counted": None,
            "step": -1,
            "stable": state.previous,
            "previous": None,
            "previous_until": None,
            "candidate": None,
            "retiring": bad,
            "rejected": (
                *state.rejected,
                bad.version,
                *([state.candidate.version] if state.candidate else []),
            )[-20:],
        }
    )
    to = f"version {state.previous.version}" if state.previous else "rules without a model"
    return after, [
        Tell(
            "RolledBack",
            f"model version {bad.version} is taken back by annotation; {to} answers",
            warning=True,
        )
    ]
