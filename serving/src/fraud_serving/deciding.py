"""The one decision function of both doors. Pure: release, event, vector, score and time in; verdict out.

Routing comes first (``route``), since only the routed arm is asked for a score; then ``decide``; ``write_up`` makes the record.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from fraud_contracts.detector import DetectorSpec
from fraud_contracts.detector_policy import Action, OnModelLoss, OnProfileLoss
from fraud_contracts.errors import Degraded
from fraud_contracts.records import Decision, Event, Reasoned, Saw
from fraud_contracts.release import BUCKETS, ModelPackage, Release, Split
from fraud_pipelines.events import Tokeniser
from fraud_pipelines.score_map import ScoreMap
from fraud_serving.policy import CompiledPolicy, Matches, limit, strictest

Arm = Literal["stable", "candidate"]
MODEL_REASONS = 3


@dataclass(frozen=True, slots=True)
class Score:
    """What a predictor said about one vector, and what it says it is."""

    probability: float
    reasons: tuple[tuple[int, float], ...]
    model_version: str
    model_digest: str


@dataclass(frozen=True, slots=True)
class Route:
    """The arm that answers an event, its package, and the bucket where a split is on."""

    arm: Arm | None
    package: ModelPackage | None
    bucket: int | None


@dataclass(frozen=True, slots=True)
class Verdict:
    action: Literal["approve", "review", "decline"]
    score: int | None
    probability: float | None
    reasons: list[Reasoned]
    degraded: list[str]
    shadow_rules: list[str] = field(default_factory=list)
    failed_rules: list[str] = field(default_factory=list)


class Ruling:
    """A release made ready: its compiled policy and the packages that fit the feature set in use."""

    def __init__(self, release: Release, spec: DetectorSpec, feature_set: str, tokeniser: Tokeniser) -> None:
        self.release = release
        self.policy = CompiledPolicy(release.policy, spec, tokeniser)
        self.problems = list(self.policy.problems)
        self._maps: dict[str, ScoreMap] = {}
        self.stable = self._fit(release.stable, feature_set)
        self.candidate = self._fit(release.candidate, feature_set)
        self.split_entity = spec.entities[0].name

    def _fit(self, package: ModelPackage | None, feature_set: str) -> ModelPackage | None:
        """A package of another feature set would read the wrong columns: it is refused, and the ruling says so."""
        if package is None:
            return None
        if package.feature_set != feature_set:
            sets = f"{package.feature_set[:6]}, this process makes {feature_set[:6]}"
            self.problems.append(f"model {package.version} expects the feature set {sets}")
            return None
        try:
            self._maps[package.digest] = ScoreMap(package.score_map)
        except ValueError as error:
            self.problems.append(f"model {package.version}: {error}")
            return None
        return package

    def map_score(self, package: ModelPackage, probability: float) -> int:
        """Score 0-1000 on the scale whose meaning outlives the package."""
        return self._maps[package.digest].score(min(1.0, max(0.0, probability)))

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
        return Route("stable", self.stable, route.bucket)

    def other(self, arm: Arm | None) -> tuple[Arm, ModelPackage] | None:
        """The arm that shadows a decision, where there are two."""
        if arm == "candidate" and self.stable is not None:
            return "stable", self.stable
        if self.candidate is not None and arm != "candidate":
            return "candidate", self.candidate
        return None


def bucket_of(split: Split, token: str) -> int:
    digest = hashlib.blake2b(f"{split.salt}\0{token}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % BUCKETS


def model_reasons(score: Score, names: Sequence[str], vector: Sequence[float | None]) -> list[Reasoned]:
    """The features that raised this score most, by their leaf contributions (log-odds)."""
    found: list[Reasoned] = []
    for index, contribution in score.reasons[:MODEL_REASONS]:
        if 0 <= index < len(names):
            value = vector[index]
            shown = "unknown" if value is None or math.isnan(value) else f"{value:.6g}"
            text = f"{names[index]} is {shown}, which raised the score"
            found.append({"code": names[index], "text": text, "contribution": round(contribution, 6)})
    return found


def _stand_in(ruling: Ruling, loss: OnModelLoss) -> tuple[Action, bool]:
    """The action in place of a band, and whether only rules speak (then it counts only where none matched)."""
    if loss is OnModelLoss.RULES:
        return ruling.policy.fallback.on_no_model, True
    return Action(loss.value), False


def _combine(matches: Matches, model: Action, only_if_silent: bool) -> Action:
    if matches.action is None:
        return model
    if matches.action is Action.APPROVE or only_if_silent:
        return matches.action
    return strictest(matches.action, model)


def decide(
    ruling: Ruling,
    route: Route,
    event: Event,
    vector: Sequence[float | None] | None,
    names: Sequence[str],
    score: Score | None,
    degraded: Sequence[str],
    counts: tuple[int, int],
    now: int,
) -> Verdict:
    """Judges one event. ``score`` is the routed arm's, None where there is none; ``counts`` are the Tally's."""
    policy, lost = ruling.policy, list(degraded)
    features = None if vector is None else _by_name(names, vector)
    matches = policy.matches(event, features, now)
    reasons = [match.reason() for match in matches.enforced]
    mapped = probability = None
    profile_loss = policy.fallback.on_profile_loss
    profiles_lost = Degraded.PROFILES_UNAVAILABLE in lost or Degraded.PROFILES_INCOMPLETE in lost

    if route.package is None:
        mark = Degraded.NO_MODEL if ruling.release.stable is None else Degraded.MODEL_UNAVAILABLE
        loss = OnModelLoss.RULES if mark is Degraded.NO_MODEL else policy.fallback.on_model_loss
        lost.append(mark)
        model, silent = _stand_in(ruling, loss)
        code = f"fallback:{mark}"
    elif score is None or vector is None:
        mark = Degraded.FEATURES_FAILED if vector is None else Degraded.MODEL_UNAVAILABLE
        if Degraded.OTHER_FEATURE_SET in lost:
            mark = Degraded.OTHER_FEATURE_SET
        if mark not in lost:
            lost.append(mark)
        model, silent = _stand_in(ruling, policy.fallback.on_model_loss)
        code = f"fallback:{mark}"
    else:
        probability, mapped = score.probability, ruling.map_score(route.package, score.probability)
        model, silent, code = policy.band(mapped), False, ""
        if profiles_lost and profile_loss is not OnProfileLoss.DEFAULT_PROFILE:
            rules_only = profile_loss is OnProfileLoss.RULES
            model, silent = (policy.fallback.on_no_model, True) if rules_only else (Action.REVIEW, False)
            code = "fallback:profiles"
    action = _combine(matches, model, silent)
    if code and (matches.action is None or (not silent and action is not matches.action)):
        reasons.append({"code": code, "text": f"the policy's fallback: {model.value}"})
    action, opened = limit(action, matches, policy.limits, *counts)
    if opened is not None:
        reasons.append(opened.reason())
    if score is not None and vector is not None:
        reasons.extend(model_reasons(score, names, vector))
    return Verdict(
        action.value.lower(),  # type: ignore[arg-type]
        mapped,
        probability,
        reasons,
        sorted({str(mark) for mark in lost}),
        matches.shadow,
        matches.failed,
    )


def write_up(
    ruling: Ruling,
    route: Route,
    verdict: Verdict,
    score: Score | None,
    *,
    door: Literal["inline", "stream"],
    event: Event,
    body_hash: str,
    feature_set: str,
    vector: list[float | None] | None,
    saw: Saw,
    now: int,
) -> Decision:
    """The decision record, whole but for what only one door knows: its latency, or where the event lay."""
    return {
        "id": event["id"],
        "hash": body_hash,
        "door": door,
        "event": event,
        "set": feature_set,
        "vector": vector,
        "saw": saw,
        "action": verdict.action,
        "score": verdict.score,
        "probability": verdict.probability,
        "reasons": verdict.reasons,
        "release": ruling.release.name,
        "model_version": score.model_version if score else None,
        "model_digest": score.model_digest if score else None,
        "arm": route.arm,
        "bucket": route.bucket,
        "degraded": verdict.degraded,
        "decided": now,
        "latency_ms": None,
        "shadow": {"rules": verdict.shadow_rules} if verdict.shadow_rules else None,
    }


def _by_name(names: Sequence[str], vector: Sequence[float | None]) -> Mapping[str, float]:
    return {name: math.nan if value is None else value for name, value in zip(names, vector, strict=True)}
