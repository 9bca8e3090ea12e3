"""What each condition of a detector says, from what was observed. Pure.

Each says what is so and, where it is not well, what a person can do about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from fraud_contracts import names
from fraud_contracts.child_kinds import BY_KIND
from fraud_operator import readiness, training
from fraud_operator.desired.workloads import WORKLOADS
from fraud_operator.detector import Detector
from fraud_operator.facts import Facts
from fraud_operator.readiness import Level, Verdict
from fraud_operator.rollout import GONE_MS
from fraud_operator.rollout_state import Phase, waiting

Json = dict[str, Any]
_BROKEN: Final = frozenset({Level.FAILED, Level.BLOCKED, Level.DEGRADED, Level.SILENT})


@dataclass(frozen=True)
class Told:
    """``status`` None stands for Unknown."""

    status: bool | None
    reason: str
    message: str
    level: Level = Level.READY


@dataclass(frozen=True)
class Trouble:
    """What went wrong in applying, already in words."""

    problems: Mapping[tuple[str, str], str] = field(default_factory=dict)
    conflicts: Mapping[tuple[str, str], str] = field(default_factory=dict)


def stamp(now: int) -> str:
    return datetime.fromtimestamp(now / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _from(verdict: Verdict, reason: str, what: str) -> Told:
    if verdict.usable:
        return Told(
            True,
            reason,
            f"{what} is ready" + (f"; {verdict.message}" if verdict.message else ""),
            verdict.level,
        )
    reasons = {
        Level.FAILED: "Failed",
        Level.BLOCKED: "Failed",
        Level.SILENT: "OperatorSilent",
        Level.ABSENT: "NotApplied",
    }
    reason = verdict.down or reasons.get(verdict.level, "Progressing")
    link = ": " if verdict.down else " "
    return Told(False, reason, f"{what}{link}{verdict.message}", verdict.level)


def _missing(facts: Facts, *kinds: str) -> Told | None:
    for kind in kinds:
        if kind in facts.missing:
            known = BY_KIND[kind]
            return Told(
                False,
                "OperatorMissing",
                f"the cluster has no {known.kind} ({known.api_version}): install {known.needs}, then this goes on by itself",
                Level.FAILED,
            )
    return None


def kafka_ready(detector: Detector, facts: Facts) -> Told:
    if not detector.managed_kafka:
        return Told(True, "External", f"brokers are the user's own at {detector.bootstrap}")
    missing = _missing(facts, "Kafka", "KafkaNodePool", "KafkaTopic")
    return missing or _from(facts.kafka(detector), "BrokersReady", "Kafka with its topics")


def streaming_ready(detector: Detector, facts: Facts) -> Told:
    missing = _missing(facts, "FlinkDeployment")
    return missing or _from(facts.flink(detector), "JobRunning", "the streaming job")


def features_warm(detector: Detector, facts: Facts) -> Told:
    so, reason, message = facts.warm(detector)
    return Told(so, reason, message, Level.READY if so else Level.PROGRESSING)


def training_succeeded(detector: Detector, facts: Facts) -> Told:
    if facts.revision is None:
        return Told(True, "NotUsed", "the spec trains no model")
    missing = _missing(facts, "RayJob")
    if missing is not None:
        return missing
    result = facts.outcome(detector)
    short = facts.revision[:8]
    job = names.ray_job(detector.name, facts.revision)
    if result.phase is training.Phase.SUCCEEDED:
        version = f" and registered version {facts.models.trained}" if facts.models.trained else ""
        return Told(True, "Succeeded", f"training revision {short} ended{version}")
    waits = training.waits_for(result)
    if waits is not None:
        reason, lacking = waits
        return Told(
            False,
            reason,
            f"{lacking}. It is looked for again every 30 minutes, or at once with another value in {names.TRAIN_ANNOTATION}",
            Level.PROGRESSING,
        )
    if result.phase is training.Phase.FAILED:
        return Told(
            False,
            "TrainingFailed",
            f"RayJob {job}: {result.message}. History is read from {detector.storage_uri}; see the job's log. "
            f"It is tried again by itself after 30 minutes, or at once with another value in {names.TRAIN_ANNOTATION}",
            Level.FAILED,
        )
    found = facts.job(detector)
    if found is not None and not found.get("status"):
        verdict = readiness.silent(found, facts.now, "the KubeRay operator")
        if verdict.level is Level.SILENT:
            return _from(verdict, "", f"RayJob {job}")
    words = {
        training.Phase.NONE: "is about to be made",
        training.Phase.PENDING: f"waits for its cluster ({result.message})",
        training.Phase.RUNNING: "is running",
    }
    return Told(False, "Training", f"RayJob {job} {words[result.phase]}", Level.PROGRESSING)


def model_resolved(detector: Detector, facts: Facts) -> Told:
    if detector.spec.model.none is not None:
        return Told(True, "NotUsed", "the spec wants no model: rules and lists decide")
    found = facts.models.resolved
    if found is not None:
        return Told(True, "Resolved", f"model {found.name} version {found.version}, {found.digest[:19]}")
    reason, message = facts.models.problem or ("NotResolved", "the registry was not asked yet")
    waiting = reason in ("NoVersionYet", "NotResolved", "KafkaFirst")
    return Told(False, reason, message, Level.PROGRESSING if waiting else Level.DEGRADED)


def serving_ready(detector: Detector, facts: Facts) -> Told:
    state = facts.state
    for workload in WORKLOADS:
        verdict = readiness.workload(facts.child(workload.kind, workload.name(detector.name)), facts.now)
        if workload.data_path and not verdict.usable:
            return _from(verdict, "", workload.title)
    if state.stable is None:
        missing = _missing(facts, "InferenceService")
        if missing is not None and detector.spec.model.none is None:
            return missing
        if state.candidate is not None:
            verdict = facts.slot(detector, state.candidate.slot, state.candidate.version)
            if not verdict.usable:
                return _from(verdict, "", f"the predictor of version {state.candidate.version}")
        return Told(True, "RulesOnly", "both doors answer by rules; no model is live yet")
    verdict = facts.slot(detector, state.stable.slot, state.stable.version)
    return _from(verdict, "ModelLive", f"the predictor of version {state.stable.version}")


def release_propagated(facts: Facts) -> Told:
    if facts.release is None:
        return Told(False, "NoRelease", "the first release is about to be written", Level.PROGRESSING)
    there = sum(replica.release == facts.release.name for replica in facts.replicas)
    message = f"{there} of {len(facts.replicas)} replicas use {facts.release.name}"
    if facts.propagated():
        return Told(True, "Propagated", message)
    mute = [replica.pod for replica in facts.replicas if replica.release is None]
    if mute:
        message += f"; no answer from {', '.join(mute[:3])}"
    return Told(False, "Propagating", message, Level.PROGRESSING)


def rollout_healthy(detector: Detector, facts: Facts) -> Told:
    """How the candidate gets on, and what of people's wishes waits."""
    told, state, found = _candidate(detector, facts), facts.state, facts.models.resolved
    notes = [told.message]
    if found is not None and (version := waiting(state, found.package())) is not None:
        kept = state.previous and state.previous_until
        why = (
            f"version {state.previous.version} is kept until {stamp(kept)}"
            if state.previous and kept
            else "none is free"
        )
        notes.append(f"version {version} waits for a slot: {why}")
    rollback = detector.annotations.get(names.ROLLBACK_ANNOTATION)
    if state.stable is not None and rollback == state.stable.version == state.rollback:
        notes.append(
            f"{names.ROLLBACK_ANNOTATION} is older than version {rollback} is live: to take it back, remove it and set it again"
        )
    return replace(told, message="; ".join(notes))


def _candidate(detector: Detector, facts: Facts) -> Told:
    state = facts.state
    if state.phase is Phase.ROLLED_BACK:
        bad = state.rejected[-1] if state.rejected else "?"
        return Told(
            False,
            "RolledBack",
            f"model version {bad} was taken back and isn't tried again; register another version, or name it anew in spec.model.pin",
            Level.DEGRADED,
        )
    if state.gone is not None and state.candidate is not None:
        return Told(
            False,
            "CandidateGone",
            f"no replica of version {state.candidate.version}'s predictor answers since {stamp(state.gone)}: the stable model "
            f"answers in its place, and it is taken back after {GONE_MS // 1000} s",
            Level.DEGRADED,
        )
    if detector.spec.rollout.paused and state.candidate is not None:
        return Told(
            True,
            "Paused",
            f"version {state.candidate.version} stays in {state.phase} while spec.rollout.paused",
        )
    if state.phase in (Phase.SHADOW, Phase.RAMP) and state.candidate is not None:
        open_gates = [f"{gate.name} {gate.result}" for gate in facts.gates if gate.result != "Pass"]
        hold = f"; waits for {', '.join(open_gates)}" if open_gates else ""
        hint = f"; approve with {names.APPROVE_ANNOTATION}: {state.candidate.version!r}" if open_gates else ""
        return Told(True, str(state.phase), f"version {state.candidate.version} in {state.phase}{hold}{hint}")
    if state.phase is Phase.PREPARING and state.candidate is not None:
        message = f"version {state.candidate.version} is prepared in slot {state.candidate.slot}"
        verdict = facts.slot(detector, state.candidate.slot, state.candidate.version)
        if verdict.level is Level.BLOCKED:
            return Told(True, "Preparing", f"{message}: its predictor {verdict.message}", Level.BLOCKED)
        return Told(True, "Preparing", message)
    return Told(True, str(state.phase), "no version is on its way")


def _others(detector: Detector, facts: Facts) -> list[tuple[str, Verdict]]:
    """The workloads that no condition of their own tells of."""
    return [
        (
            workload.title,
            readiness.workload(facts.child(workload.kind, workload.name(detector.name)), facts.now),
        )
        for workload in WORKLOADS
        if not workload.data_path
    ]


def conditions(detector: Detector, facts: Facts, trouble: Trouble) -> dict[str, Told]:
    out = {
        "KafkaReady": kafka_ready(detector, facts),
        "StreamingReady": streaming_ready(detector, facts),
        "FeaturesWarm": features_warm(detector, facts),
        "TrainingSucceeded": training_succeeded(detector, facts),
        "ModelResolved": model_resolved(detector, facts),
        "ServingReady": serving_ready(detector, facts),
        "ReleasePropagated": release_propagated(facts),
        "RolloutHealthy": rollout_healthy(detector, facts),
    }
    paused = detector.spec.paused
    out["Paused"] = Told(
        paused,
        "SpecPaused" if paused else "Running",
        "spec.paused: nothing is changed, but a version may be taken back" if paused else "",
    )
    others = _others(detector, facts)
    out["Degraded"] = _degraded(out, others, trouble)
    out["Progressing"] = _progressing(out, others)
    out["Ready"] = _ready(detector, facts, out, others)
    return out


def _degraded(told: Mapping[str, Told], others: Sequence[tuple[str, Verdict]], trouble: Trouble) -> Told:
    for (kind, name), message in trouble.conflicts.items():
        return Told(
            True,
            "ApplyConflict",
            f"{kind} {name}: {message}. Take the field out of what that manager applies; it is never taken by force",
            Level.DEGRADED,
        )
    for (kind, name), message in trouble.problems.items():
        return Told(True, "ApplyRefused", f"{kind} {name}: {message}", Level.DEGRADED)
    for name, condition in told.items():
        if condition.level in _BROKEN:
            return Told(True, condition.reason, f"{name}: {condition.message}", Level.DEGRADED)
    for what, verdict in others:
        if verdict.level in _BROKEN:
            return Told(True, "ChildFailed", f"{what} {verdict.message}", Level.DEGRADED)
    return Told(False, "AllWell", "")


def _progressing(told: Mapping[str, Told], others: Sequence[tuple[str, Verdict]]) -> Told:
    moving = [
        name for name, condition in told.items() if condition.level in (Level.PROGRESSING, Level.ABSENT)
    ]
    moving += [what for what, verdict in others if verdict.level in (Level.PROGRESSING, Level.ABSENT)]
    if moving:
        return Told(True, "InProgress", f"waits for {', '.join(moving)}")
    return Told(False, "Settled", "")


def _ready(
    detector: Detector, facts: Facts, told: Mapping[str, Told], others: Sequence[tuple[str, Verdict]]
) -> Told:
    for name in ("KafkaReady", "StreamingReady", "ServingReady", "ReleasePropagated"):
        if not told[name].status:
            return Told(False, f"Not{name}", told[name].message)
    if detector.spec.model.none is None and facts.state.stable is None:
        for name in ("TrainingSucceeded", "ModelResolved", "FeaturesWarm"):
            if not told[name].status:
                return Told(False, "NoModelYet", f"both doors answer by rules; {name}: {told[name].message}")
        return Told(False, "NoModelYet", "both doors answer by rules; the first model is about to go live")
    for what, verdict in others:
        if not verdict.usable:
            return Told(False, "ChildNotReady", f"{what}: {verdict.message}")
    model = f"model version {facts.state.stable.version}" if facts.state.stable else "rules alone"
    return Told(True, "Serving", f"{model} answers at {detector.decision_url}")
