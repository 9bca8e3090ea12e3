"""Gathers the facts of one pass: children, the release pointer, the registry, Kafka's lags, what the replicas say.

A store that gives no answer is a fact too: it becomes the reason of a condition and ends no pass.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final

import requests
from prometheus_client.parser import text_string_to_metric_families

from fraud_contracts import metrics, names
from fraud_contracts.child_kinds import BY_KIND, SECRET
from fraud_contracts.config import RELEASE_KEY
from fraud_contracts.errors import StoreError
from fraud_contracts.feature_set import hash6
from fraud_contracts.model_package import PackageError
from fraud_contracts.model_version import CHALLENGER, CHAMPION
from fraud_contracts.release import Release, parse_release
from fraud_contracts.training_end import TrainingFailure
from fraud_operator import readiness, training
from fraud_operator.buckets import Bucket, Buckets, bucket_of
from fraud_operator.capacities import Capacities
from fraud_operator.desired.documents import decoded
from fraud_operator.desired.workloads import WORKLOADS
from fraud_operator.detector import Detector
from fraud_operator.detector_keys import TOKEN_KEY_DIGEST
from fraud_operator.facts import Beside, Facts, KafkaFact, Lags, Models, Replica, StorageFact, StoresFact
from fraud_operator.feature_sets import FeatureSets
from fraud_operator.gates import Gates
from fraud_operator.kafka_authority import kafka_authority
from fraud_operator.kafka_checks import KafkaChecks
from fraud_operator.kafka_questions import WantedTopics
from fraud_operator.kafka_target import KafkaTarget, kafka_secrets, kafka_target
from fraud_operator.kube import Kube
from fraud_operator.lags import Warming
from fraud_operator.objects import Json, to_ms
from fraud_operator.ownership import snapshot, wrote
from fraud_operator.registry import ModelNotFoundError, Registry, RegistryLoginError, Version
from fraud_operator.registry_login import registry_login
from fraud_operator.rollout import Gate
from fraud_operator.rollout_state import ROLLOUT_KEY, RolloutState
from fraud_operator.store_logins import StoreLogins
from fraud_operator.stored_states import StoredStates
from fraud_operator.stream_sources import StreamSources
from fraud_operator.training import TrainingPhase

LOG: Final = logging.getLogger(__name__)
DATA_PATH: Final = {workload.label: workload for workload in WORKLOADS if workload.data_path}
REPLICA_TIMEOUT: Final = (0.5, 1.0)


@dataclass
class Observer:
    kube: Kube
    warming: Warming = field(default_factory=Warming)
    # Of the streaming job beside the one that answers.
    beside: Warming = field(default_factory=Warming)
    buckets: Buckets = field(default_factory=Buckets)
    logins: StoreLogins = field(default_factory=StoreLogins)
    kafkas: KafkaChecks = field(default_factory=KafkaChecks)
    states: StoredStates = field(default_factory=StoredStates)
    sources: StreamSources = field(default_factory=StreamSources)
    capacities: Capacities = field(default_factory=Capacities)
    _gates: Gates | None = None
    _registries: dict[tuple[str, str], Registry] = field(default_factory=dict)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(8, "ask"))

    def observe(self, detector: Detector, now: int) -> Facts:
        children, missing = snapshot(self.kube, detector.namespace, detector.uid, self._pool)
        self._add_predictor_deployments(detector, children, missing)
        release, state, token_key = self._pointer(detector)
        revision = training.wanted_revision(
            detector.spec,
            detector.feature_set,
            detector.annotations.get(names.TRAIN_ANNOTATION),
            detector.created,
            now,
        )
        target, kafka = self.kafka(detector)
        base = Facts(
            now=now,
            children=children,
            missing=frozenset(missing),
            release=release,
            state=state,
            token_key=token_key,
            copies=self._copies(detector, children, missing),
            revision=revision,
            storage=self._storage(detector),
            stores=self._stores(detector),
            kafka=kafka,
            kafka_authority=kafka_authority(detector, target, children),
            replicas=self._replicas(detector, children),
            gates=self._measure_gates(detector, state),
            capacity=self.capacities.look(detector, target),
        )
        return replace(base, models=self._models(detector, base))

    def measure(self, sets: FeatureSets, facts: Facts) -> Facts:
        """The facts with how far the streaming jobs are."""
        answering, beside, key = sets.answering, sets.built, (sets.declared.namespace, sets.declared.name)
        target, _ = self.kafka(answering)
        facts = replace(facts, lags=self._lags(answering, facts, target))
        if beside is None:
            self.beside.forget(key)
            return facts
        behind = None
        runs = readiness.kafka_usable(beside, facts) and readiness.flink(beside, facts).usable
        if target is not None and runs:
            behind = self.sources.behind(beside, target, self.beside.reader)
        lags = self._lags_beside(beside, facts, target)
        return replace(facts, beside=Beside(lags=lags, behind=behind))

    def _add_predictor_deployments(
        self, detector: Detector, children: dict[tuple[str, str], Json], missing: set[str]
    ) -> None:
        """KServe's own children are none of ours, so they are asked for by name; each belongs to its InferenceService."""
        if "InferenceService" in missing:
            return
        for _, name in [key for key in children if key[0] == "InferenceService"]:
            deployment = self.kube.get(BY_KIND["Deployment"], detector.namespace, names.predictor(name))
            if deployment is not None and _controller(deployment).get("uid") == _uid(
                children["InferenceService", name]
            ):
                children["Deployment", names.predictor(name)] = deployment

    def _pointer(self, detector: Detector) -> tuple[Release | None, RolloutState, str | None]:
        """By name, not by label: a pointer that outlived an earlier detector of this name is continued from."""
        pointer = self.kube.get(
            BY_KIND["ConfigMap"], detector.namespace, names.release_pointer(detector.name)
        )
        data: Mapping[str, str] = (pointer or {}).get("data") or {}
        try:
            release = parse_release(data[RELEASE_KEY]) if RELEASE_KEY in data else None
            state = (
                RolloutState.model_validate_json(data[ROLLOUT_KEY]) if ROLLOUT_KEY in data else RolloutState()
            )
        except ValueError:
            LOG.warning("release pointer is unreadable", extra={"data": {"detector": str(detector.identity)}})
            return None, RolloutState(), data.get(TOKEN_KEY_DIGEST)
        return release, state, data.get(TOKEN_KEY_DIGEST)

    def _copies(
        self, detector: Detector, children: Mapping[tuple[str, str], Json], missing: set[str]
    ) -> int | None:
        """How many of each record the topics were made with, as we wrote it; a Kafka of an earlier detector is asked by name."""
        if not detector.managed_kafka or "Kafka" in missing:
            return None
        name = names.kafka(detector.name)
        kafka = children.get(("Kafka", name)) or self.kube.get(BY_KIND["Kafka"], detector.namespace, name)
        topics = [child for (kind, _), child in children.items() if kind == "KafkaTopic"]
        setting = ("spec", "kafka", "config", "default.replication.factor")
        for child, path in ((kafka, setting), *((topic, ("spec", "replicas")) for topic in topics)):
            if child is not None and wrote(child, *(f"f:{part}" for part in path)):
                value: Any = child
                for part in path:
                    value = value[part]
                return int(value)
        return None

    def bucket(self, detector: Detector) -> Bucket | StorageFact:
        """What of its storage can be asked, or said without asking."""
        own = detector.storage_secret if detector.storage_reference is not None else None
        secret = self.kube.get(SECRET, detector.namespace, own) if own is not None else None
        return bucket_of(detector, secret)

    def _storage(self, detector: Detector) -> StorageFact:
        bucket, key = self.bucket(detector), (detector.namespace, detector.name)
        if not isinstance(bucket, Bucket):
            self.buckets.forget(key)
            return bucket
        return replace(self.buckets.look(key, bucket), keys=bucket.keys_digest(detector.uid))

    def _stores(self, detector: Detector) -> StoresFact:
        secret = self.kube.get(SECRET, detector.namespace, names.stores(detector.name))
        return self.logins.look(detector, decoded((secret or {}).get("data") or {}))

    def _measure_gates(self, detector: Detector, state: RolloutState) -> tuple[Gate, ...]:
        if self._gates is None:
            self._gates = Gates(detector.platform.prometheus_url)
        return self._gates.measure(detector, state)

    def registry(self, detector: Detector) -> Registry:
        """One for each server and Secret, by name; a session keeps its connection and what it has checked. Another login, another one."""
        ref = detector.spec.stores.mlflow
        secret = ref.secret_ref.name if ref is not None and ref.secret_ref is not None else ""
        key = (detector.mlflow_uri, f"{detector.namespace}/{secret}" if secret else "")
        body = self.kube.get(SECRET, detector.namespace, secret) if secret else None
        login = registry_login(detector, decoded((body or {}).get("data") or {}))
        if key not in self._registries or self._registries[key].login != login:
            self._registries[key] = Registry(detector.mlflow_uri, login=login)
        return self._registries[key]

    def _models(self, detector: Detector, facts: Facts) -> Models:
        model = detector.spec.model
        if model.none is not None:
            return Models()
        name = detector.model
        try:
            registry = self.registry(detector)
            made = registry.trained(name, facts.revision) if facts.revision is not None else None
            trained, seeds = made or (None, None)
            failure = _failure(registry, detector, facts)
            champion = registry.alias(name, CHAMPION)
            wanted = model.pin or registry.alias(
                name, model.registered.alias if model.registered else CHALLENGER
            )
            if wanted is None:
                return Models(None, _no_version_yet(detector, name), champion, trained, seeds, failure)
            version = registry.version(name, wanted)
        except RegistryLoginError as error:
            return Models(problem=("LoginRefused", f"{error.message}. What is live goes on unchanged"))
        except StoreError as error:
            return Models(problem=("RegistryUnavailable", f"{error}. What is live goes on unchanged"))
        except (ModelNotFoundError, PackageError) as error:
            reason = "VersionNotFound" if isinstance(error, ModelNotFoundError) else "PackageRefused"
            return Models(None, (reason, str(error)), champion, trained, seeds, failure)
        problem = _feature_set_problem(detector, version, facts.state)
        return Models(None if problem else version, problem, champion, trained, seeds, failure)

    def kafka(self, detector: Detector) -> tuple[KafkaTarget | None, KafkaFact]:
        """Where its Kafka is asked, None where it can't be, and what is so of one of the user's own."""
        key = (detector.namespace, detector.name)
        secrets = {one: self.kube.get(SECRET, detector.namespace, one) for one in kafka_secrets(detector)}
        target = kafka_target(detector, secrets)
        if isinstance(target, KafkaFact) or detector.managed_kafka:
            self.kafkas.forget(key)
            return (None, target) if isinstance(target, KafkaFact) else (target, Facts.kafka)
        wanted = WantedTopics(
            detector.identity, detector.spec.kafka.partitions, make=not detector.spec.paused
        )
        return target, self.kafkas.look(key, target, wanted)

    def _lags(self, detector: Detector, facts: Facts, target: KafkaTarget | None) -> Lags:
        return self.warming.lags(detector, facts, target)

    def _lags_beside(self, detector: Detector, facts: Facts, target: KafkaTarget | None) -> Lags:
        return self.beside.lags(detector, facts, target)

    def turned(self, namespace: str, name: str) -> bool:
        """Whether a store that sends no events isn't as the detector's last pass found it: its bucket, a Kafka of the user's own."""
        key = (namespace, name)
        answers = [self.kafkas.turned(key), self.buckets.turned(key)]  # each asks again where it is time
        return any(answers)

    def forget(self, namespace: str, name: str) -> None:
        """Drops what is remembered of a detector that is gone."""
        self.buckets.forget((namespace, name))
        self.warming.forget((namespace, name))
        self.beside.forget((namespace, name))
        self.logins.forget(namespace, name)
        self.kafkas.forget((namespace, name))
        self.states.forget((namespace, name))

    def _replicas(self, detector: Detector, children: Mapping[tuple[str, str], Json]) -> tuple[Replica, ...]:
        """Every running replica of the data path, asked directly: a Service would hide the one that lags."""
        pods = self.kube.pods(detector.namespace, detector.name, DATA_PATH)
        asked = [pod for pod in pods if _alive(pod) and _of_the_data_path(pod, detector)]
        return tuple(self._pool.map(_ask, asked))


def _failure(registry: Registry, detector: Detector, facts: Facts) -> TrainingFailure | None:
    """The wanted run's own record of why it made no model, where its RayJob failed; never an earlier try's."""
    job = readiness.training_job(detector, facts)
    if job is None or facts.revision is None or training.outcome(job).phase is not TrainingPhase.FAILED:
        return None
    stamp = job["metadata"].get("creationTimestamp")
    return registry.failure(detector.identity.experiment, facts.revision, to_ms(stamp) if stamp else 0)


def _controller(body: Json) -> Json:
    owners = body["metadata"].get("ownerReferences") or []
    return next((owner for owner in owners if owner.get("controller")), {})


def _uid(body: Json) -> str:
    return str(body["metadata"].get("uid"))


def _of_the_data_path(pod: Json, detector: Detector) -> bool:
    """Whether our Deployment made the Pod: a copy for debugging has its labels and takes no part.

    A ReplicaSet, which we have no right to read, is named after its Deployment and the hash in its Pods' labels.
    """
    owner, labels = _controller(pod), pod["metadata"]["labels"]
    name = DATA_PATH[labels[names.COMPONENT_LABEL]].name(detector.name)
    replica_set = f"{name}-{labels.get('pod-template-hash')}"
    return (owner.get("kind"), owner.get("name")) == ("ReplicaSet", replica_set)


def _alive(pod: Json) -> bool:
    return not pod["metadata"].get("deletionTimestamp") and pod.get("status", {}).get("phase") not in (
        "Succeeded",
        "Failed",
    )


def _ask(pod: Json) -> Replica:
    name, address = pod["metadata"]["name"], pod.get("status", {}).get("podIP")
    if not address:
        return Replica(name, None)
    port = DATA_PATH[pod["metadata"]["labels"][names.COMPONENT_LABEL]].port.number
    host = f"[{address}]" if ":" in address else address
    try:
        answer = requests.get(f"http://{host}:{port}/metrics", timeout=REPLICA_TIMEOUT)
        answer.raise_for_status()
        return Replica(name, release_in(answer.text))
    except requests.RequestException:
        return Replica(name, None)


def release_in(text: str) -> str | None:
    """The release that a replica's metrics name."""
    for family in text_string_to_metric_families(text):
        if family.name == metrics.RELEASE_INFO.name:
            for sample in family.samples:
                if sample.value == 1:
                    return sample.labels.get("release")
    return None


def _no_version_yet(detector: Detector, name: str) -> tuple[str, str]:
    if detector.spec.model.registered is not None:
        alias = detector.spec.model.registered.alias
        return (
            "NoVersionYet",
            f"the registry's model {name!r} has no alias {alias!r}: set it on the version to try",
        )
    return "NoVersionYet", f"training has registered no version of {name!r} yet"


def _feature_set_problem(detector: Detector, version: Version, state: RolloutState) -> tuple[str, str] | None:
    if version.feature_set == detector.feature_set:
        return None
    sets = f"version {version.version} was trained on feature set {hash6(version.feature_set)}, the spec declares {detector.hash6}"
    if state.stable is not None and (state.stable.name, state.stable.version) == (
        version.name,
        version.version,
    ):
        return "NoVersionYet", f"{sets}: it answers until a version of this set is registered and approved"
    return "FeatureSetMismatch", f"{sets}: train again, or register a version of this set"
