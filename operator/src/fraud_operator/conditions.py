"""What each condition of a detector says, from what was observed. Pure.

Each says what is so and, where it is not well, what a person can do about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from fraud_contracts import names
from fraud_contracts.child_kinds import BY_KIND
from fraud_contracts.feature_set import hash6
from fraud_operator import capacity, child_status, readiness, training
from fraud_operator.child_status import Level, Verdict
from fraud_operator.condition_state import ConditionState
from fraud_operator.desired.workloads import LAKE_SINK
from fraud_operator.detector import Detector
from fraud_operator.facts import UNREACHABLE, Facts
from fraud_operator.rollout_conditions import candidate_state, release_propagated, rollout_healthy
from fraud_operator.rollout_state import RolloutPhase
from fraud_operator.training import TrainingPhase

_BROKEN: Final = frozenset({Level.FAILED, Level.BLOCKED, Level.DEGRADED, Level.SILENT})
# Of what is asked outside the cluster, by whether it will do.
_LEVELS: Final = {True: Level.READY, False: Level.DEGRADED, None: Level.PROGRESSING}
HELD: Final = "; until it is right"
# Of a store that is away from what runs already.
_GOES_ON: Final = (
    "Until it is back payments are decided as ever, the streaming job goes on without checkpoints, and the lake is late; "
    "a part that is restarted meanwhile and reads from it waits"
)
# What the first version waits for, in the order in which a person looks at it.
_BEFORE_A_MODEL: Final = ("TrainingSucceeded", "ModelResolved", "FeaturesWarm")
_NO_MODEL_WANTED: Final = ConditionState(True, "NotUsed", "the spec wants no model: rules and lists decide")


@dataclass(frozen=True)
class Trouble:
    """What went wrong in applying, already in words."""

    problems: Mapping[tuple[str, str], str] = field(default_factory=dict)
    conflicts: Mapping[tuple[str, str], str] = field(default_factory=dict)


def _from(verdict: Verdict, reason: str, what: str) -> ConditionState:
    if verdict.usable:
        return ConditionState(
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
    return ConditionState(False, reason, f"{what}{link}{verdict.message}", verdict.level)


def _missing(facts: Facts, *kinds: str) -> ConditionState | None:
    for kind in kinds:
        if kind in facts.missing:
            lacking = BY_KIND[kind]
            return ConditionState(
                False,
                "OperatorMissing",
                f"the cluster has no {lacking.kind} ({lacking.api_version}): install {lacking.needs}, then this goes on by itself",
                Level.FAILED,
            )
    return None


def references_found(facts: Facts) -> ConditionState:
    if not facts.lacking:
        message = "beside spec.storage and spec.kafka.external, every Secret and storage class that spec and chart name is there"
        return ConditionState(True, "AllFound", message)
    message = "; ".join(lacking.message for lacking in facts.lacking)
    return ConditionState(False, facts.lacking[0].reason, message, Level.DEGRADED)


def keys_ready(facts: Facts) -> ConditionState:
    if facts.keys_fault is not None:
        return ConditionState(False, *facts.keys_fault, Level.DEGRADED)
    return ConditionState(True, "KeysKept", "the detector's keys are those that its tokens were made with")


def kafka_ready(detector: Detector, facts: Facts) -> ConditionState:
    if not detector.managed_kafka:
        fact = facts.kafka
        level = Level.DEGRADED if fact.flawed else _LEVELS[fact.ready]
        return ConditionState(fact.ready, fact.reason, fact.message, level)
    missing = _missing(facts, "Kafka", "KafkaNodePool", "KafkaTopic", "KafkaUser")
    return missing or _from(
        readiness.kafka(detector, facts), "BrokersReady", "Kafka with its topics and users"
    )


def storage_ready(facts: Facts) -> ConditionState:
    fact = facts.storage
    reason, message = fact.reason, fact.message
    if reason == UNREACHABLE and any(kind == "FlinkDeployment" for kind, _ in facts.children):
        reason, message = "StorageAway", f"{message}. {_GOES_ON}"
    held = f"{HELD}, {', '.join(facts.held)} won't be changed" if facts.held else ""
    return ConditionState(fact.ready, reason, message + held, _LEVELS[fact.ready])


def stores_ready(detector: Detector, facts: Facts) -> ConditionState:
    fact, stores = facts.stores, detector.spec.stores
    if fact.problems:
        message = "; ".join(problem.message for problem in fact.problems)
        return ConditionState(False, fact.problems[0].reason, message, Level.DEGRADED)
    if not fact.ready:
        message = "the platform's stores are being asked for the detector's own logins"
        return ConditionState(None, "Checking", message, Level.PROGRESSING)
    if stores.redis is not None and stores.postgres is not None:
        return ConditionState(True, "Own", "the spec names its own Redis and PostgreSQL")
    return ConditionState(True, "LoggedIn", "the detector has its own login to each of the platform's stores")


def capacity_left(facts: Facts) -> ConditionState:
    """A warning, so nothing is broken by it until there is next to nothing left."""
    fact = facts.capacity
    if fact.before is not None:
        return ConditionState(*fact.before)
    warned = sorted(
        (room for room in fact.rooms if room.warned),
        key=lambda room: (capacity.FOREVER if room.hours is None else room.hours, -room.percent, room.name),
    )
    if warned:
        full = any(room.percent >= capacity.BRIM for room in warned)
        message = f"{capacity.in_words(warned)}. See docs/sizing.md"
        return ConditionState(False, "FillingUp", message, Level.DEGRADED if full else Level.READY)
    if fact.asking:
        return ConditionState(None, "Checking", "the stores are being asked how full they are")
    unknown = ", ".join(f"{store} ({why})" for store, why in fact.unknown)
    if not fact.rooms:
        return ConditionState(None, "CapacityUnknown", f"not known: {unknown}")
    known = " and ".join(dict.fromkeys(room.kind.title for room in fact.rooms))
    message = f"{known}: less than {capacity.FULL} % used, and not full soon at the present growth"
    return ConditionState(True, "EnoughLeft", f"{message}; not known: {unknown}" if unknown else message)


def _waits_for_storage(facts: Facts, kind: str, name: str) -> ConditionState | None:
    """Of a part that isn't there yet because the storage won't do."""
    if facts.storage.ready or facts.child(kind, name) is not None:
        return None
    message = f"{kind} {name} waits for the storage: {facts.storage.message}"
    return ConditionState(False, "StorageNotReady", message, Level.PROGRESSING)


def streaming_ready(detector: Detector, facts: Facts) -> ConditionState:
    job = detector.streaming_job
    return (
        _missing(facts, "FlinkDeployment")
        or _waits_for_storage(facts, "FlinkDeployment", job)
        or _waits_for_state(facts, "FlinkDeployment", job)
        or _stands_still(detector, facts)
        or _from(readiness.flink(detector, facts), "JobRunning", "the streaming job")
    )


def _waits_for_state(facts: Facts, kind: str, name: str) -> ConditionState | None:
    """Of a streaming job that is to be made anew while nobody knows yet of what, and of a training for it."""
    if not facts.lineage_waits or (kind == "RayJob" and facts.child(kind, name) is not None):
        return None
    message, lineage = f"{kind} {name} waits: {facts.lineage_waits}", facts.lineages.in_use
    if lineage is not None and lineage.refused:
        unread = "" if str(lineage.restored) in message else f"; {lineage.restored} can't be read"
        return ConditionState(False, "StateUnreadable", message + unread, Level.PROGRESSING)
    return ConditionState(False, "StateUnknown", message, Level.PROGRESSING)


def _stands_still(detector: Detector, facts: Facts) -> ConditionState | None:
    """Of a job that is stopped while another feature set takes over."""
    hand_over = facts.lineages.hand_over
    if hand_over is None or detector.epoch not in hand_over.stopped:
        return None
    message = (
        f"the streaming job stands still while feature set {hash6(hand_over.to)} takes over: {hand_over.step}"
    )
    waits = readiness.hand_over_waits(detector, facts)
    level = Level.DEGRADED if readiness.hand_over_overdue(facts) else Level.PROGRESSING
    return ConditionState(False, "HandingOver", f"{message}; {waits}" if waits else message, level)


def features_warm(detector: Detector, facts: Facts) -> ConditionState:
    warm, reason, message = readiness.features_warm(detector, facts)
    return ConditionState(warm, reason, message, Level.READY if warm else Level.PROGRESSING)


def training_succeeded(detector: Detector, facts: Facts) -> ConditionState:
    if facts.revision is None:
        return ConditionState(True, "NotUsed", "the spec trains no model")
    missing = _missing(facts, "RayJob")
    if missing is not None:
        return missing
    result = readiness.training_outcome(detector, facts)
    short = facts.revision[:8]
    job = names.ray_job(detector.name, facts.revision)
    held = _waits_for_storage(facts, "RayJob", job) or _waits_for_state(facts, "RayJob", job)
    if held is not None and result.phase is TrainingPhase.NONE:
        return held
    if result.phase is TrainingPhase.SUCCEEDED:
        version = f" and registered version {facts.models.trained}" if facts.models.trained else ""
        return ConditionState(True, "Succeeded", f"training revision {short} ended{version}")
    waits = training.waits_for(result)
    if waits is not None:
        reason, lacking = waits
        return ConditionState(
            False,
            reason,
            f"{lacking}. It is looked for again every 30 minutes, or at once with another value in {names.TRAIN_ANNOTATION}",
            Level.PROGRESSING,
        )
    if result.phase is TrainingPhase.FAILED:
        return ConditionState(
            False,
            "TrainingFailed",
            f"RayJob {job}: {result.message}. History is read from {detector.storage_uri}; see the job's log. "
            f"It is tried again by itself after 30 minutes, or at once with another value in {names.TRAIN_ANNOTATION}",
            Level.FAILED,
        )
    run = readiness.training_job(detector, facts)
    if run is not None and not run.get("status"):
        verdict = child_status.silent(run, facts.now, "the KubeRay operator")
        if verdict.level is Level.SILENT:
            return _from(verdict, "", f"RayJob {job}")
    words = {
        TrainingPhase.NONE: "is about to be made",
        TrainingPhase.PENDING: f"waits for its cluster ({result.message})",
        TrainingPhase.RUNNING: "is running",
    }
    return ConditionState(False, "Training", f"RayJob {job} {words[result.phase]}", Level.PROGRESSING)


def model_resolved(detector: Detector, facts: Facts) -> ConditionState:
    if detector.spec.model.none is not None:
        return _NO_MODEL_WANTED
    version = facts.models.resolved
    if version is not None:
        return ConditionState(
            True, "Resolved", f"model {version.name} version {version.version}, {version.digest[:19]}"
        )
    reason, message = facts.models.problem or ("NotResolved", "the registry was not asked yet")
    waiting = reason in ("NoVersionYet", "NotResolved")
    return ConditionState(False, reason, message, Level.PROGRESSING if waiting else Level.DEGRADED)


def serving_ready(detector: Detector, facts: Facts) -> ConditionState:
    for title, verdict in readiness.workloads(detector, facts, data_path=True):
        if not verdict.usable:
            return _from(verdict, "", title)
    return ConditionState(True, "DoorsReady", "decision service and worker are ready")


def model_live(detector: Detector, facts: Facts, states: Mapping[str, ConditionState]) -> ConditionState:
    """Of the live version's predictor. ``states`` are the conditions that the first version waits for."""
    state = facts.state
    if state.stable is not None:
        what = f"the predictor of version {state.stable.version}"
        verdict = readiness.predictor(detector, facts, state.stable.slot, state.stable.version)
        if facts.release is not None and facts.release.stable is None:
            message = f"rules decide until the feature set of version {state.stable.version} answers again; RolloutHealthy tells of it"
            return ConditionState(False, "HandingOver", message, Level.PROGRESSING)
        if readiness.predictor_gone(detector, facts, state.stable.slot):
            message = (
                f"no replica of {what} is there, so policy.fallback.onModelLoss decides: it {verdict.message}"
            )
            return ConditionState(False, "PredictorGone", message, Level.DEGRADED)
        return _from(verdict, "PredictorReady", what)
    if detector.spec.model.none is not None:
        return _NO_MODEL_WANTED
    missing = _missing(facts, "InferenceService")
    if missing is not None:
        return missing
    if state.phase is RolloutPhase.ROLLED_BACK:
        return ConditionState(False, "RolledBack", candidate_state(detector, facts).message)
    for name in _BEFORE_A_MODEL:
        if not states[name].status:
            message = f"rules decide until the first version is live; {name}: {states[name].message}"
            return ConditionState(False, "NoModelYet", message, Level.PROGRESSING)
    if state.candidate is not None:
        verdict = readiness.predictor(detector, facts, state.candidate.slot, state.candidate.version)
        if not verdict.usable:
            return _from(verdict, "", f"the predictor of version {state.candidate.version}")
    message = "rules decide; the first version is about to go live"
    return ConditionState(False, "NoModelYet", message, Level.PROGRESSING)


def conditions(detector: Detector, facts: Facts, trouble: Trouble) -> dict[str, ConditionState]:
    out = {
        # The first, since what lacks is why others fail.
        "ReferencesFound": references_found(facts),
        "KeysReady": keys_ready(facts),
        "StorageReady": storage_ready(facts),
        "StoresReady": stores_ready(detector, facts),
        "KafkaReady": kafka_ready(detector, facts),
        "CapacityLeft": capacity_left(facts),
        "StreamingReady": streaming_ready(detector, facts),
        "FeaturesWarm": features_warm(detector, facts),
        "TrainingSucceeded": training_succeeded(detector, facts),
        "ModelResolved": model_resolved(detector, facts),
        "ServingReady": serving_ready(detector, facts),
        "ReleasePropagated": release_propagated(facts),
        "RolloutHealthy": rollout_healthy(detector, facts),
    }
    out["ModelLive"] = model_live(detector, facts, out)
    paused = detector.spec.paused
    out["Paused"] = ConditionState(
        paused,
        "SpecPaused" if paused else "Running",
        "spec.paused: nothing is changed, but a version may be taken back" if paused else "",
    )
    others = readiness.workloads(detector, facts, data_path=False)
    out["Degraded"] = _degraded(out, others, trouble)
    out["Progressing"] = _progressing(out, others)
    out["Ready"] = _ready(detector, facts, out, others)
    return out


def _degraded(
    states: Mapping[str, ConditionState], others: Sequence[tuple[str, Verdict]], trouble: Trouble
) -> ConditionState:
    for (kind, name), message in trouble.conflicts.items():
        return ConditionState(
            True,
            "ApplyConflict",
            f"{kind} {name}: {message}. Take the field out of what that manager applies; it is never taken by force",
            Level.DEGRADED,
        )
    for (kind, name), message in trouble.problems.items():
        return ConditionState(True, "ApplyRefused", f"{kind} {name}: {message}", Level.DEGRADED)
    for name, condition in states.items():
        if condition.level in _BROKEN:
            return ConditionState(True, condition.reason, f"{name}: {condition.message}", Level.DEGRADED)
    for what, verdict in others:
        if verdict.level in _BROKEN:
            return ConditionState(True, "ChildFailed", f"{what} {verdict.message}", Level.DEGRADED)
    return ConditionState(False, "AllWell", "")


def _progressing(
    states: Mapping[str, ConditionState], others: Sequence[tuple[str, Verdict]]
) -> ConditionState:
    moving = [
        name for name, condition in states.items() if condition.level in (Level.PROGRESSING, Level.ABSENT)
    ]
    moving += [what for what, verdict in others if verdict.level in (Level.PROGRESSING, Level.ABSENT)]
    if moving:
        return ConditionState(True, "InProgress", f"waits for {', '.join(moving)}")
    return ConditionState(False, "Settled", "")


def _ready(
    detector: Detector,
    facts: Facts,
    states: Mapping[str, ConditionState],
    others: Sequence[tuple[str, Verdict]],
) -> ConditionState:
    for name in ("KafkaReady", "StreamingReady", "ServingReady", "ReleasePropagated"):
        if not states[name].status:
            return ConditionState(False, f"Not{name}", states[name].message)
    for what, verdict in others:
        late = what == LAKE_SINK.title and facts.storage.ready is False  # StorageReady tells of it
        if not verdict.usable and not late:
            return ConditionState(False, "ChildNotReady", f"{what}: {verdict.message}")
    url, stable = detector.decision_url, facts.state.stable
    if stable is None or (facts.release is not None and facts.release.stable is None):
        hint = "" if detector.spec.model.none is not None else "; ModelLive tells of the first model"
        hint = hint if stable is None else "; ModelLive tells of the model"
        return ConditionState(True, "RulesOnly", f"rules alone answer at {url}{hint}")
    if readiness.predictor_gone(detector, facts, stable.slot):
        message = f"policy.fallback.onModelLoss answers at {url}; ModelLive tells of the model"
        return ConditionState(True, "ModelLost", message)
    return ConditionState(True, "Serving", f"model version {stable.version} answers at {url}")
