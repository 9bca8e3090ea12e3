"""What was observed in one pass, as plain data: the input of everything that decides. No client here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fraud_contracts import names
from fraud_contracts.release import Release
from fraud_contracts.training_end import TrainingFailure
from fraud_operator import readiness, rollout, training
from fraud_operator.detector import Detector
from fraud_operator.readiness import Level, Verdict
from fraud_operator.registry import Version
from fraud_operator.rollout import Gate
from fraud_operator.rollout_state import SLOTS, RolloutState

Json = dict[str, Any]
# Payments that come in meanwhile write profiles too, so with traffic the sink is never quite at the end.
PROFILES_BEHIND: Final = 500


@dataclass(frozen=True)
class Lags:
    """Records that a consumer hasn't committed yet; None where that couldn't be read. ``written`` counts all seeds."""

    seeds: int | None = None
    profiles: int | None = None
    written: int | None = None


@dataclass(frozen=True)
class Replica:
    """A replica of the data path and the release that it says it uses; None where it gave no answer."""

    pod: str
    release: str | None


@dataclass(frozen=True)
class Models:
    """``problem`` says why nothing is resolved, as (reason, message); ``failure`` why the wanted training made no model."""

    resolved: Version | None = None
    problem: tuple[str, str] | None = None
    champion: str | None = None
    trained: str | None = None
    failure: TrainingFailure | None = None


@dataclass(frozen=True)
class Facts:
    now: int
    children: Mapping[tuple[str, str], Json] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()
    release: Release | None = None
    state: RolloutState = field(default_factory=RolloutState)
    has_keys: bool = False
    copies: int | None = None
    revision: str | None = None
    models: Models = field(default_factory=Models)
    lags: Lags = field(default_factory=Lags)
    replicas: tuple[Replica, ...] = ()
    gates: tuple[Gate, ...] = ()

    def child(self, kind: str, name: str) -> Json | None:
        return self.children.get((kind, name))

    def job(self, detector: Detector) -> Json | None:
        if self.revision is None:
            return None
        return self.child("RayJob", names.ray_job(detector.name, self.revision))

    def outcome(self, detector: Detector) -> training.Outcome:
        """The wanted run's, from its RayJob; from the registry where the RayJob is gone but its version is there."""
        result = training.outcome(self.job(detector), self.models.failure)
        if result.phase is training.Phase.NONE and self.models.trained is not None:
            return training.Outcome(training.Phase.SUCCEEDED)
        return result

    def slot(self, detector: Detector, slot: str, version: str) -> Verdict:
        """Of the predictor in a slot, for one version."""
        name = names.inference_service(detector.name, slot)
        return readiness.predictor(
            self.child("InferenceService", name),
            self.child("Deployment", names.predictor(name)),
            version,
            self.now,
        )

    def silent(self, detector: Detector, slot: str) -> bool:
        """Whether no replica of the predictor in a slot is there."""
        name = names.inference_service(detector.name, slot)
        return not readiness.answers(self.child("Deployment", names.predictor(name)))

    def kafka(self, detector: Detector) -> Verdict:
        """Of the broker and all topics: the first that isn't usable, else what any of them warns of."""
        ephemeral = detector.platform.kafka.ephemeral
        brokers = self.child("Kafka", names.kafka(detector.name))
        worst = readiness.kafka(brokers, self.now, ephemeral=ephemeral)
        if not worst.usable:
            return worst
        warnings = [worst.message] if worst.message else []
        for noun in names.TOPICS:
            verdict = readiness.kafka(
                self.child("KafkaTopic", names.kafka_topic(detector.name, noun)), self.now
            )
            if not verdict.usable:
                return Verdict(verdict.level, f"topic {detector.identity.topic(noun)} {verdict.message}")
            if verdict.message:
                warnings.append(f"topic {detector.identity.topic(noun)} {verdict.message}")
        return Verdict(Level.DEGRADED, "; ".join(warnings)) if warnings else worst

    def flink(self, detector: Detector) -> Verdict:
        name = names.flink_deployment(detector.name, detector.hash6)
        return readiness.flink(self.child("FlinkDeployment", name), self.now)

    def warm(self, detector: Detector) -> tuple[bool, str, str]:
        """Whether the stream has taken in all history: (so, reason, message)."""
        streaming = self.flink(detector)
        if not streaming.usable:
            return False, "StreamingNotReady", f"the streaming job {streaming.message}"
        trained = (
            detector.spec.model.train is None or self.outcome(detector).phase is training.Phase.SUCCEEDED
        )
        if not trained and self.state.stable is None:
            return False, "SeedsNotWritten", "training writes the seeds; it hasn't succeeded yet"
        lags = self.lags
        if lags.seeds is None or lags.profiles is None:
            return False, "LagUnknown", "the lag on seeds and profiles can't be read from Kafka yet"
        if lags.seeds > 0:
            return False, "SeedsLag", f"{lags.seeds} seeds are still to be taken in by the streaming job"
        if lags.profiles > PROFILES_BEHIND:
            return False, "ProfilesLag", f"{lags.profiles} profiles are still to be written to Redis"
        return True, "SeedsConsumed", f"all {lags.written or 0} seeds are in the stream's state and in Redis"

    def propagated(self) -> bool:
        """Every replica says that it uses the release; nobody to ask isn't an answer."""
        if self.release is None or not self.replicas:
            return False
        return all(replica.release == self.release.name for replica in self.replicas)

    def of_rollout(self, detector: Detector) -> rollout.Facts:
        """What the rollout decides from."""
        ready: set[str] = set()
        failed: dict[str, str] = {}
        for package in self.state.packages():
            verdict = self.slot(detector, package.slot, package.version)
            if verdict.usable:
                ready.add(package.slot)
            elif verdict.level is Level.FAILED:
                failed[package.slot] = verdict.message
        found = self.models.resolved
        annotations = detector.annotations
        return rollout.Facts(
            spec=detector.spec,
            model=detector.model,
            resolved=found.package() if found is not None else None,
            warm=self.warm(detector)[0],
            ready=frozenset(ready),
            failed=failed,
            silent=frozenset(p.slot for p in self.state.packages() if self.silent(detector, p.slot)),
            propagated=self.propagated(),
            champion=self.models.champion,
            gates=self.gates,
            approve=annotations.get(names.APPROVE_ANNOTATION),
            abort=annotations.get(names.ABORT_ANNOTATION),
            rollback=annotations.get(names.ROLLBACK_ANNOTATION) or None,
            urls={
                slot: f"http://{names.predictor_address(detector.name, detector.namespace, slot)}"
                for slot in SLOTS
            },
        )
