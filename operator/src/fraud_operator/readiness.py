"""What of a detector is ready, from the facts of a pass. Pure; what one child's status means is in ``child_status``."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from fraud_contracts import names
from fraud_operator import child_status, training
from fraud_operator.child_status import Level, Verdict
from fraud_operator.desired.inference_service import kserve_url
from fraud_operator.desired.kafka_users import kafka_parts
from fraud_operator.desired.workloads import WORKLOADS
from fraud_operator.detector import Detector
from fraud_operator.facts import Facts, Lags
from fraud_operator.objects import Json
from fraud_operator.rollout import RolloutFacts
from fraud_operator.rollout_state import RolloutPhase
from fraud_operator.training import TrainingPhase

# Payments that come in meanwhile write profiles too, so with traffic the sink is never quite at the end.
PROFILES_BEHIND: Final = 500
# Records of its inputs that a job may be behind when it takes another one's place; it reads some 10,000 a second.
INPUTS_BEHIND: Final = 10_000
# A step of a hand-over waits for a savepoint, for the worker, or for a minute without records.
OVERDUE_MS: Final = 10 * 60_000


def workloads(detector: Detector, facts: Facts, *, data_path: bool) -> list[tuple[str, Verdict]]:
    """(title, verdict) of our own processes, of those that decide or of the others."""
    return [
        (w.title, child_status.workload(facts.child("Deployment", w.name(detector.name))))
        for w in WORKLOADS
        if w.data_path is data_path
    ]


def training_job(detector: Detector, facts: Facts) -> Json | None:
    if facts.revision is None:
        return None
    return facts.child("RayJob", names.ray_job(detector.name, facts.revision))


def training_outcome(detector: Detector, facts: Facts) -> training.Outcome:
    """The wanted run's, from its RayJob; from the registry where the RayJob is gone but its version is there."""
    result = training.outcome(training_job(detector, facts), facts.models.failure)
    if result.phase is TrainingPhase.NONE and facts.models.trained is not None:
        return training.Outcome(TrainingPhase.SUCCEEDED)
    return result


def predictor(detector: Detector, facts: Facts, slot: str, version: str) -> Verdict:
    """Of the predictor in a slot, for one version."""
    name = names.inference_service(detector.name, slot)
    return child_status.predictor(
        facts.child("InferenceService", name),
        facts.child("Deployment", names.predictor(name)),
        version,
        facts.now,
    )


def predictor_gone(detector: Detector, facts: Facts, slot: str) -> bool:
    """Whether no replica of the predictor in a slot is there."""
    name = names.inference_service(detector.name, slot)
    return not child_status.answers(facts.child("Deployment", names.predictor(name)))


def kafka(detector: Detector, facts: Facts) -> Verdict:
    """Of the broker, all topics and users: the first that isn't usable, else what any of them warns of."""
    ephemeral = detector.platform.kafka.ephemeral
    brokers = facts.child("Kafka", names.kafka(detector.name))
    worst = child_status.kafka(brokers, facts.now, ephemeral=ephemeral)
    if not worst.usable:
        return worst
    warnings = [worst.message] if worst.message else []
    for noun in names.TOPICS:
        verdict = child_status.kafka(
            facts.child("KafkaTopic", names.kafka_topic(detector.name, noun)), facts.now
        )
        if not verdict.usable:
            return Verdict(verdict.level, f"topic {detector.identity.topic(noun)} {verdict.message}")
        if verdict.message:
            warnings.append(f"topic {detector.identity.topic(noun)} {verdict.message}")
    for part in kafka_parts():
        name = names.kafka_user(detector.name, part)
        verdict = child_status.kafka(facts.child("KafkaUser", name), facts.now)
        if not verdict.usable:
            return Verdict(verdict.level, f"user {name} {verdict.message}")
    return Verdict(Level.DEGRADED, "; ".join(warnings)) if warnings else worst


def kafka_usable(detector: Detector, facts: Facts) -> bool:
    """Whether Kafka can be asked: a managed one is up, one of the user's own has answered."""
    return kafka(detector, facts).usable if detector.managed_kafka else bool(facts.kafka.ready)


def flink(detector: Detector, facts: Facts) -> Verdict:
    return child_status.flink(facts.child("FlinkDeployment", detector.streaming_job), facts.now)


def before_warming(detector: Detector, facts: Facts) -> tuple[str, str] | None:
    """Why the stream can't be taking in its history yet: (reason, message); None once it can."""
    streaming = flink(detector, facts)
    if not streaming.usable:
        return "StreamingNotReady", f"the streaming job {streaming.message}"
    trained = (
        detector.spec.model.train is None
        or training_outcome(detector, facts).phase is TrainingPhase.SUCCEEDED
    )
    if not trained and facts.state.stable is None:
        return "SeedsNotWritten", "training writes the seeds; it hasn't succeeded yet"
    return None


def caught_up(lags: Lags) -> bool:
    return lags.seeds == 0 and lags.profiles is not None and lags.profiles <= PROFILES_BEHIND


def features_warm(detector: Detector, facts: Facts) -> tuple[bool, str, str]:
    """Whether the stream has taken in all history: (so, reason, message)."""
    before = before_warming(detector, facts)
    if before is not None:
        return False, *before
    if facts.unseeded:
        return False, "SeedsTooOld", facts.unseeded
    lags = facts.lags
    if lags.seeds is None or lags.profiles is None:
        return False, "LagUnknown", "the lag on seeds and profiles can't be read from Kafka yet"
    if lags.seeds > 0:
        return False, "SeedsLag", f"{lags.seeds} seeds are still to be taken in by the streaming job"
    if not caught_up(lags):
        return False, "ProfilesLag", f"{lags.profiles} profiles are still to be written to Redis"
    return True, "SeedsConsumed", f"all {lags.written or 0} seeds are in the stream's state and in Redis"


def beside_warm(beside: Detector, facts: Facts) -> tuple[bool, str]:
    """Whether the job beside the one that answers may take its place: (so, message)."""
    if facts.beside.waits:
        return False, f"FlinkDeployment {beside.streaming_job} waits: {facts.beside.waits}"
    own = replace(facts, lags=facts.beside.lags, unseeded=facts.beside.unseeded)
    warm, _, message = features_warm(beside, own)
    if not warm:
        return False, message
    behind = facts.beside.behind
    if behind is None:
        return False, f"{message}; how far it is with its inputs isn't known yet"
    return behind <= INPUTS_BEHIND, f"{message}; it is {behind} records of its inputs behind"


def hand_over_waits(detector: Detector, facts: Facts) -> str:
    """Which streaming jobs a hand-over waits for to stand still, and what Flink says of them; empty where it waits for none."""
    hand_over = facts.lineages.hand_over
    stopped = hand_over.stopped if hand_over is not None else frozenset()
    notes = []
    for lineage in facts.lineages.known:
        name = names.flink_deployment(detector.name, lineage.stream)
        child = facts.child("FlinkDeployment", name)
        if lineage.generation in stopped and not child_status.flink_stopped(child):
            message = child_status.flink(child, facts.now).message
            notes.append(f"{name} doesn't stand still yet" + (f": {message}" if message else ""))
    return "; ".join(notes)


def hand_over_overdue(facts: Facts) -> bool:
    """Whether a hand-over has been in one step for so long that it hardly goes on by itself."""
    hand_over = facts.lineages.hand_over
    return hand_over is not None and facts.now - hand_over.since >= OVERDUE_MS


def worker_settled(detector: Detector, facts: Facts) -> bool:
    """Whether all replicas of the worker run with the detector's document."""
    child = facts.child("Deployment", names.worker(detector.name))
    template: Json = child["spec"]["template"]["metadata"] if child is not None else {}
    of = (template.get("annotations") or {}).get(names.CONFIG_HASH_ANNOTATION)
    return of == detector.config_hash and child_status.workload(child).level is Level.READY


def propagated(facts: Facts) -> bool:
    """Every replica says that it uses the release; nobody to ask isn't an answer."""
    if facts.release is None or not facts.replicas:
        return False
    return all(replica.release == facts.release.name for replica in facts.replicas)


def unwatched(detector: Detector, facts: Facts) -> bool:
    """Whether something is waited for that sends no events: lags, replicas, gates, time, an alias in the registry, a bucket, logins, a job's state."""
    warming = before_warming(detector, facts) is None and not features_warm(detector, facts)[0]
    following = bool(facts.replicas) and not propagated(facts)
    judged = facts.state.phase in (RolloutPhase.SHADOW, RolloutPhase.RAMP) or facts.state.gone is not None
    unnamed = facts.models.problem is not None and facts.models.problem[0] == "NoVersionYet"
    asked = not (facts.storage.ready and facts.stores.ready)
    moving = bool(facts.lineage_waits or facts.beside.waits) or facts.lineages.hand_over is not None
    return warming or following or judged or unnamed or asked or moving


def rollout_facts(
    detector: Detector, facts: Facts, declared: str = "", *, handed_over: bool = False, returns: bool = False
) -> RolloutFacts:
    """What the rollout decides from. ``declared`` is the spec's feature set, where it may be another than the detector's."""
    ready: set[str] = set()
    failed: dict[str, str] = {}
    for package in facts.state.packages():
        verdict = predictor(detector, facts, package.slot, package.version)
        if verdict.usable:
            ready.add(package.slot)
        elif verdict.level is Level.FAILED:
            failed[package.slot] = verdict.message
    resolved = facts.models.resolved
    annotations = detector.annotations
    return RolloutFacts(
        spec=detector.spec,
        model=detector.model,
        resolved=resolved.package() if resolved is not None else None,
        warm=features_warm(detector, facts)[0],
        ready=frozenset(ready),
        failed=failed,
        silent=frozenset(p.slot for p in facts.state.packages() if predictor_gone(detector, facts, p.slot)),
        propagated=propagated(facts),
        champion=facts.models.champion,
        gates=facts.gates,
        approve=annotations.get(names.APPROVE_ANNOTATION),
        abort=annotations.get(names.ABORT_ANNOTATION),
        rollback=annotations.get(names.ROLLBACK_ANNOTATION) or None,
        orders=facts.orders,
        urls={slot: kserve_url(detector, slot) for slot in names.SLOTS},
        answering=detector.feature_set if declared else "",
        declared=declared,
        handed_over=handed_over,
        returns=returns,
    )
