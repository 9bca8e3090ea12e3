"""What is kept of a detector's rollout, in the pointer ConfigMap beside the release, and what follows from it alone."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from pydantic import Field

from fraud_contracts.config import Mounted
from fraud_contracts.detector import DetectorSpec
from fraud_contracts.names import SLOTS, Slot
from fraud_contracts.release import BUCKETS, ModelPackage, Split

ROLLOUT_KEY: Final = "rollout.json"


class RolloutPhase(StrEnum):
    IDLE = "Idle"
    PREPARING = "Preparing"
    SHADOW = "Shadow"
    RAMP = "Ramp"
    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"


RESTING: Final = frozenset({RolloutPhase.IDLE, RolloutPhase.PROMOTED, RolloutPhase.ROLLED_BACK})


class RolloutState(Mounted):
    """Times are UTC ms. ``since`` is when the phase began.

    - ``counted``: when every replica first had this step's release; a step's time runs from there.
    - ``retiring``: keeps a slot's predictor while replicas may still ask it.
    - ``previous``: keeps the former stable version, until ``previous_until``, for a fast way back.
    - ``rejected``: versions that were taken back; ``rejected_of`` the models of the last of them. A version that
      was stored without its model stands for that version of any model.
    - ``gone``: since when no replica of the candidate's predictor answers.
    - ``pin``: what model.pin named when a version was last taken back, or since ("" for nothing). Only another
      pin asks for that version again.
    - ``by``: who ordered this phase and how; None where nobody did: gates, a failure, the registry's alias.
    - ``rollback``: the annotation's value that was acted on already; it takes back nothing that goes live later.
    """

    phase: RolloutPhase = RolloutPhase.IDLE
    since: int = 0
    counted: int | None = None
    step: int = -1
    stable: ModelPackage | None = None
    candidate: ModelPackage | None = None
    previous: ModelPackage | None = None
    previous_until: int | None = None
    retiring: ModelPackage | None = None
    rejected: tuple[str, ...] = Field(default=())
    rejected_of: tuple[str, ...] = Field(default=())
    gone: int | None = None
    pin: str | None = None
    by: str | None = None
    rollback: str | None = None

    def packages(self) -> list[ModelPackage]:
        """What must be served now: one InferenceService each."""
        return [p for p in (self.stable, self.candidate, self.previous, self.retiring) if p is not None]

    def rejections(self) -> list[tuple[str, str]]:
        """(model, version), the model empty where it wasn't stored."""
        lacking = ("",) * (len(self.rejected) - len(self.rejected_of))
        return list(zip(lacking + self.rejected_of, self.rejected, strict=True))

    def rejects(self, package: ModelPackage) -> bool:
        return any((model or package.name, version) == key(package) for model, version in self.rejections())

    def in_release(self) -> ModelPackage | None:
        """The candidate, where the release names it."""
        return self.candidate if self.phase in (RolloutPhase.SHADOW, RolloutPhase.RAMP) else None

    def split(self, spec: DetectorSpec) -> Split | None:
        """The buckets that the candidate answers; None while it only shadows."""
        if self.phase is not RolloutPhase.RAMP or self.candidate is None:
            return None
        percent = spec.rollout.steps[min(self.step, len(spec.rollout.steps) - 1)]
        salt = f"{self.candidate.version}:{self.candidate.digest[-8:]}"
        return Split(salt=salt, share=percent * BUCKETS // 100)


def key(package: ModelPackage) -> tuple[str, str]:
    return package.name, package.version


def free_slot(state: RolloutState) -> Slot | None:
    used = {package.slot for package in state.packages()}
    return next((slot for slot in SLOTS if slot not in used), None)


def waiting(state: RolloutState, resolved: ModelPackage | None) -> str | None:
    """The version that is wanted and can't begin yet, as both slots are in use; None where there is none."""
    in_use = {key(package) for package in (state.stable, state.candidate) if package is not None}
    if resolved is None or key(resolved) in in_use or state.rejects(resolved) or free_slot(state) is not None:
        return None
    return resolved.version


def freed(state: RolloutState, now: int, *, propagated: bool) -> RolloutState:
    """The state without what keeps a slot that nothing refers to any more, and with its step counted where that begins."""
    if not propagated:
        return state
    if state.retiring is not None:
        state = state.model_copy(update={"retiring": None})
    if state.previous is not None and state.previous_until is not None and now >= state.previous_until:
        state = state.model_copy(update={"previous": None, "previous_until": None})
    return state if state.counted is not None else state.model_copy(update={"counted": now})


def asked_again(state: RolloutState, model: str, pin: str) -> RolloutState:
    """A pin that was set after a version was taken back asks for it again; the one under which it failed doesn't.

    ``model`` is the one whose versions a pin names, ``pin`` empty where there is none.
    """
    if not state.rejected or state.pin == pin:
        return state
    kept = [
        (of, version)
        for of, version in state.rejections()
        if state.pin is None or (of or model, version) != (model, pin)
    ]
    return state.model_copy(update={"pin": pin, **rejected(kept)})


def rejected(kept: list[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """The fields of a state with these rejections."""
    return {
        "rejected": tuple(version for _, version in kept),
        "rejected_of": tuple(model for model, _ in kept),
    }
