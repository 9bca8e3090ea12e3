"""Which feature set of a detector answers, and which one's streaming job is kept beside it. Pure.

They are two only while there is something to keep: a live model reads the set that answers until a version of another set takes over
(``hand_over``), and for ``rollout.keepPrevious`` the way back stays open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fraud_contracts import feature_set
from fraud_contracts.detector_policy import Policy
from fraud_contracts.errors import SpecError
from fraud_contracts.lineage import Declaration, HandOverStep, Lineages
from fraud_contracts.release import Release
from fraud_operator.detector import Detector, unreadable
from fraud_operator.releases import live_policy
from fraud_operator.rollout_state import RolloutState


@dataclass(frozen=True)
class FeatureSets:
    """``declared`` is the detector as its spec has it; ``answering`` the same with the feature set that decides, which may be another.

    ``beside``: with that of the streaming job beside the one that answers, which is silent; None where there is none.
    ``returns``: the rollout went back to a model that reads the set beside, so until that one answers there is no model.
    """

    declared: Detector
    answering: Detector
    beside: Detector | None = None
    returns: bool = False

    @property
    def built(self) -> Detector | None:
        """``beside`` once it has a lineage, without which its job has no name."""
        return self.beside if self.beside is not None and self.beside.lineage is not None else None

    @property
    def trains(self) -> Detector | None:
        """For which set training is: the declared one; None where that has no streaming job now."""
        own = self.declared.feature_set
        return next((view for view in (self.answering, self.built) if view and view.feature_set == own), None)

    def state(self, state: RolloutState) -> RolloutState:
        """What of a rollout's state the release is made from."""
        return state.model_copy(update={"stable": None}) if self.returns else state


def feature_sets(declared: Detector, lineages: Lineages, state: RolloutState) -> FeatureSets:
    in_use, own = lineages.in_use, declared.feature_set
    if in_use is None or _answers_at_once(own, lineages, state):
        return FeatureSets(declared, _view(declared, own, lineages) or declared)
    answering = _view(declared, in_use.feature_set, lineages)
    if answering is None:
        return FeatureSets(declared, declared.with_lineage(lineages))
    others = _others(own, lineages, state)
    found = next(((name, v) for name in others if (v := _view(declared, name, lineages)) is not None), None)
    if found is None:
        return FeatureSets(declared, answering)
    name, beside = found
    stable = state.stable.feature_set if state.stable is not None else None
    returns = stable is not None and stable == name
    return FeatureSets(declared, answering, replace(beside, decided=answering.stream), returns)


def _answers_at_once(own: str, lineages: Lineages, state: RolloutState) -> bool:
    """Whether the declared set takes the place of one that answers without a model: then there is nothing to keep.

    A set whose job has run in silence has read further than the other one has written: it takes over by a hand-over only.
    """
    in_use, known = lineages.in_use, lineages.of(own)
    assert in_use is not None
    if own == in_use.feature_set or lineages.hand_over is not None:
        return False
    if known is not None and known.beginning.silent:
        return False
    return state.stable is None or state.stable.feature_set == own


def _others(own: str, lineages: Lineages, state: RolloutState) -> list[str]:
    """Feature sets that a job beside may be of, the most urgent first."""
    in_use, hand_over = lineages.in_use, lineages.hand_over
    assert in_use is not None
    if hand_over is not None and hand_over.step is not HandOverStep.SETTLING:
        return [hand_over.to]
    packages = (state.stable, state.previous)
    back, kept = (package.feature_set if package is not None else own for package in packages)
    return [name for name in (back, own, kept) if name != in_use.feature_set]


def _view(declared: Detector, name: str, lineages: Lineages) -> Detector | None:
    """The detector with another feature set that it has had; None where nobody knows what that was made of."""
    lineage, spec = lineages.of(name), declared.spec
    if name != declared.feature_set:
        if lineage is None or lineage.declared is None:
            return None
        spec = lineage.declared.put_into(spec)
        if feature_set.feature_set_hash(spec) != name:
            return None
    return replace(declared, spec=spec, lineage=lineage)


def noted(lineages: Lineages, sets: FeatureSets) -> Lineages:
    """The lineages with what their sets are made of, as far as it is known now, and with what the spec declares beside them."""
    views = {view.feature_set: Declaration.of(view.spec) for view in (sets.answering, sets.beside) if view}
    known = tuple(
        one.model_copy(update={"declared": views.get(one.feature_set, one.declared)})
        for one in lineages.known
    )
    other = sets.declared.feature_set != sets.answering.feature_set
    wanted = Declaration.of(sets.declared.spec) if other else None
    return lineages.model_copy(update={"known": known, "wanted": wanted})


def unreadable_policy(sets: FeatureSets) -> list[SpecError]:
    """What of the spec's policy the set that answers can't read."""
    return [] if sets.answering.spec is sets.declared.spec else unreadable(sets.answering.spec)


def policy_of(sets: FeatureSets, release: Release | None, keys: Mapping[str, str] | None) -> Policy:
    """The spec's policy where the set that answers can read it; else the live one, else the last that the set had.

    Its lists have tokens of what is sensitive in that set, as the events have that they are looked up for.
    """
    answering = sets.answering
    if not unreadable_policy(sets):
        return live_policy(answering, release, keys)
    earlier = [release.policy] if release is not None else []
    if answering.lineage is not None and answering.lineage.policy is not None:
        earlier.append(answering.lineage.policy)
    fitting = [policy for policy in earlier if not unreadable(answering.spec, policy)]
    return [*fitting, *earlier, live_policy(answering, release, keys)][0]
