"""The one way to a decision, for both doors: ``Ruling.route`` says which arm is asked for a score, ``Ruling.judge`` decides.

Pure: a case, a score, counts and the time in, the decision record out. Once judged, a decision changes by ``with_mark`` only.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from fraud_contracts import durations
from fraud_contracts.detector import DetectorSpec
from fraud_contracts.detector_policy import Action, OnProfileLoss
from fraud_contracts.errors import Degraded
from fraud_contracts.feature_set import hash6
from fraud_contracts.records import Decision, Event, Saw, Source
from fraud_contracts.release import BUCKETS, ModelPackage, Release, Split
from fraud_pipelines.events import Tokeniser
from fraud_pipelines.score_map import ScoreMap
from fraud_serving.policy import CompiledPolicy, Proposal, apply_limits, combine
from fraud_serving.reasons import fallback_reason, feature_reasons

Arm = Literal["stable", "candidate"]
Door = Literal["inline", "stream"]
_WITHOUT_PROFILES: Final = frozenset[str](
    {Degraded.PROFILES_UNAVAILABLE, Degraded.PROFILES_INCOMPLETE, Degraded.PROFILES_STALE}
)
_ACTIONS: Final[Mapping[Action, Literal["approve", "review", "decline"]]] = {
    Action.APPROVE: "approve",
    Action.REVIEW: "review",
    Action.DECLINE: "decline",
}


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a predictor said about one vector, and which model it says it serves.

    ``contributions`` are (column, what it added to the log-odds), greatest first.
    """

    probability: float
    contributions: tuple[tuple[int, float], ...]
    model_version: str
    model_digest: str


@dataclass(frozen=True, slots=True)
class Route:
    """The arm that answers an event, its package (None where no model can), and the bucket where a split is on.

    ``candidate_lost`` says that the candidate should have answered and the stable model does, since the candidate gave no score.
    """

    arm: Arm | None
    package: ModelPackage | None
    bucket: int | None
    candidate_lost: bool = False


@dataclass(frozen=True, slots=True)
class RoutedScore:
    """The route that was taken at last, and its arm's prediction, None where that gave none."""

    route: Route
    prediction: Prediction | None


@dataclass(frozen=True, slots=True)
class Case:
    """One event and all that was found out about it before it is judged.

    ``vector`` has the columns of ``feature_set`` (NaN or None for unknown) and is None where it couldn't be computed.
    ``degraded`` are marks of what it was computed without. ``source`` and ``appended`` (UTC ms) say where the record lay and
    since when; the inline door doesn't know them yet.
    """

    event: Event
    body_hash: str
    feature_set: str
    vector: list[float | None] | None
    saw: Saw
    door: Door
    degraded: Sequence[str] = ()
    source: Source | None = None
    appended: int | None = None


class Ruling:
    """A release made ready: its compiled policy and those of its packages that fit the feature set in use.

    ``feature_set`` and ``names`` are the vector's that this process can read; ``rule_failed`` is told the name of each rule
    that couldn't be evaluated for an event.
    """

    def __init__(
        self,
        release: Release,
        spec: DetectorSpec,
        feature_set: str,
        names: Sequence[str],
        tokeniser: Tokeniser,
        rule_failed: Callable[[str], None] = lambda rule: None,
    ) -> None:
        self.release = release
        self.policy = CompiledPolicy(release.policy, spec, tokeniser)
        fallback = release.policy.fallback
        self.deadline = durations.to_ms(fallback.deadline) / 1000  # seconds
        self.staleness = durations.to_ms(fallback.staleness) / 1000  # seconds
        self.problems = list(self.policy.problems)
        self._feature_set, self._names, self._rule_failed = feature_set, names, rule_failed
        self._score_maps: dict[str, ScoreMap] = {}
        self.stable = self._fitting(release.stable)
        self.candidate = self._fitting(release.candidate)
        self.split_entity = spec.entities[0].name

    def _fitting(self, package: ModelPackage | None) -> ModelPackage | None:
        """A package of another feature set would read the wrong columns: it is refused, and ``problems`` says so."""
        if package is None:
            return None
        if package.feature_set != self._feature_set:
            sets = f"{hash6(package.feature_set)}, this process makes {hash6(self._feature_set)}"
            self.problems.append(f"model {package.version} expects the feature set {sets}")
            return None
        try:
            self._score_maps[package.digest] = ScoreMap(package.score_map)
        except ValueError as error:
            self.problems.append(f"model {package.version}: {error}")
            return None
        return package

    def map_score(self, package: ModelPackage, probability: float) -> int:
        """Score 0-1000 on the scale whose meaning outlives the package."""
        return self._score_maps[package.digest].score(min(1.0, max(0.0, probability)))

    def route(self, event: Event) -> Route:
        """The same entity gets the same arm while the salt stays; raising the share only adds entities."""
        if self.stable is None:
            return Route(None, None, None)
        split, token = self.release.split, event["entities"].get(self.split_entity)
        if split is None or token is None:
            return Route("stable", self.stable, None)
        bucket = bucket_of(split, token)
        if self.candidate is not None and bucket < split.share:
            return Route("candidate", self.candidate, bucket)
        return Route("stable", self.stable, bucket)

    def without_candidate(self, route: Route) -> Route:
        """Where an event of the candidate's goes while the candidate gives no score; the bucket stays."""
        return Route("stable", self.stable, route.bucket, candidate_lost=True)

    def shadow_arm(self, arm: Arm | None) -> tuple[Arm, ModelPackage] | None:
        """The other arm than the one that answered, where there are two."""
        if arm == "candidate" and self.stable is not None:
            return "stable", self.stable
        if self.candidate is not None and arm != "candidate":
            return "candidate", self.candidate
        return None

    def readable_vector(
        self, feature_set: str, vector: list[float | None] | None
    ) -> list[float | None] | None:
        """The vector, where it is of the set that this process's models and rules read; else None.

        One of another set, as while a changed detector's processes are replaced, is refused: its columns mean something else.
        """
        if vector is None or feature_set != self._feature_set or len(vector) != len(self._names):
            return None
        return vector

    def judge(self, case: Case, score: RoutedScore, counts: tuple[int, int], now: int) -> Decision:
        """The decision of a case, whole but for the inline door's ``latency_ms``.

        ``counts`` are the declines of the last minute and the reviews of the last day (``policy.Tally``); ``now`` is UTC ms.
        """
        policy, route, prediction = self.policy, score.route, score.prediction
        vector = self.readable_vector(case.feature_set, case.vector)
        marks = set(case.degraded)
        if case.feature_set != self._feature_set:
            marks.add(Degraded.OTHER_FEATURE_SET)
        if route.candidate_lost:
            marks.add(Degraded.CANDIDATE_UNAVAILABLE)
        features = None if vector is None else _by_name(self._names, vector)
        matches = policy.matches(case.event, features, now)
        for rule in matches.failed:
            self._rule_failed(rule)
        mapped = None
        if route.package is not None and prediction is not None and vector is not None:
            mapped = self.map_score(route.package, prediction.probability)
            proposal = self._of_score(mapped, marks)
        else:
            proposal = self._without_score(route, vector is not None, marks)
        action = combine(matches, proposal)
        reasons = [match.reason for match in matches.enforced]
        if proposal.stands_in_for and (
            matches.action is None or (not proposal.only_if_silent and action is not matches.action)
        ):
            reasons.append(fallback_reason(proposal.stands_in_for, proposal.action))
        action, limit_reason = apply_limits(action, matches, policy.limits, *counts)
        if limit_reason is not None:
            reasons.append(limit_reason)
        if prediction is not None and vector is not None:
            reasons += feature_reasons(prediction.contributions, self._names, vector)
        decision: Decision = {
            "id": case.event["id"],
            "hash": case.body_hash,
            "door": case.door,
            "event": case.event,
            "set": case.feature_set,
            "vector": case.vector,
            "saw": case.saw,
            "action": _ACTIONS[action],
            "score": mapped,
            "probability": None if mapped is None or prediction is None else prediction.probability,
            "reasons": reasons,
            "release": self.release.name,
            "model_version": prediction.model_version if prediction else None,
            "model_digest": prediction.model_digest if prediction else None,
            "arm": route.arm,
            "bucket": route.bucket,
            "degraded": sorted(map(str, marks)),
            "decided": now,
            "latency_ms": None,
            "shadow": {"rules": matches.shadow} if matches.shadow else None,
        }
        if case.source is not None:
            decision["source"], decision["appended"] = case.source, case.appended
        return decision

    def _of_score(self, score: int, marks: set[str]) -> Proposal:
        """The band's action, or what the policy puts in its place where the score was made without the profiles."""
        policy = self.policy
        if _WITHOUT_PROFILES & marks and policy.fallback.on_profile_loss is not OnProfileLoss.DEFAULT_PROFILE:
            return policy.without_profiles()
        return Proposal(policy.band(score))

    def _without_score(self, route: Route, has_vector: bool, marks: set[str]) -> Proposal:
        """What is answered without a model, or without its score; ``marks`` then say why."""
        if route.package is None:
            lost = Degraded.NO_MODEL if self.release.stable is None else Degraded.MODEL_UNAVAILABLE
        elif Degraded.OTHER_FEATURE_SET in marks:
            lost = Degraded.OTHER_FEATURE_SET
        else:
            lost = Degraded.MODEL_UNAVAILABLE if has_vector else Degraded.FEATURES_FAILED
        marks.add(lost)
        return self.policy.without_model(lost)


def with_mark(decision: Decision, mark: Degraded) -> Decision:
    """The decision with one more mark in ``degraded``: how it was recorded, or whether its id is safe."""
    return {**decision, "degraded": sorted({*decision["degraded"], str(mark)})}


def bucket_of(split: Split, token: str) -> int:
    digest = hashlib.blake2b(f"{split.salt}\0{token}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % BUCKETS


def _by_name(names: Sequence[str], vector: Sequence[float | None]) -> Mapping[str, float]:
    return {name: math.nan if value is None else value for name, value in zip(names, vector, strict=True)}
