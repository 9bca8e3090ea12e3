"""A FraudDetector as the operator works with it: the typed spec and what follows from it. No client, no clock."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Final

import cel
from pydantic import ValidationError

from fraud_contracts import feature_set, names, rules
from fraud_contracts.config import KAFKA_LOGIN_PATH, DetectorConfig, KafkaAddress
from fraud_contracts.detector import (
    Component,
    ComponentOverride,
    DeletionPolicy,
    DetectorSpec,
    parse_spec,
)
from fraud_contracts.detector_base import SecretRef
from fraud_contracts.detector_clients import Client
from fraud_contracts.detector_policy import Policy
from fraud_contracts.errors import SpecError
from fraud_contracts.lineage import Lineage, Lineages
from fraud_contracts.names import Identity
from fraud_contracts.rule_names import RuleError
from fraud_operator import storage, training
from fraud_operator.objects import to_ms
from fraud_operator.settings import Platform
from fraud_process.store_address import split_login

# (namespace, name): what the operator's queue and memory are keyed by.
DetectorKey = tuple[str, str]

# Parts of the spec that reach no data-path process through its document: a change in them must restart nothing.
_NOT_IN_HASH: Final = ("policy", "rollout", "model", "clients", "components", "deletion_policy", "paused")


@dataclass(frozen=True)
class Detector:
    """``annotations`` hold the one-off commands; ``created`` is in milliseconds.

    ``lineage`` is that of its streaming job; None before it has one, and then it is taken for the first. ``decided`` is the stream that
    answers, where this is the detector with the feature set of another one beside it.
    """

    namespace: str
    name: str
    uid: str
    generation: int
    created: int
    annotations: Mapping[str, str]
    spec: DetectorSpec
    platform: Platform
    lineage: Lineage | None = None
    decided: str | None = None

    @classmethod
    def parse(cls, body: Mapping[str, Any], platform: Platform) -> Detector:
        """From a stored object; pydantic's ValidationError where the schema would have refused its spec."""
        meta = body["metadata"]
        created = meta.get("creationTimestamp", "1970-01-01T00:00:00Z")
        return cls(
            namespace=meta["namespace"],
            name=meta["name"],
            uid=meta.get("uid", ""),
            generation=meta.get("generation", 1),
            created=to_ms(created),
            annotations=meta.get("annotations") or {},
            spec=parse_spec(dict(body["spec"])),
            platform=platform,
        )

    @property
    def identity(self) -> Identity:
        return Identity(self.namespace, self.name)

    @property
    def model(self) -> str:
        """The name of its registered model."""
        registered = self.spec.model.registered
        return registered.name if registered is not None else self.identity.model

    @cached_property
    def feature_set(self) -> str:
        return feature_set.feature_set_hash(self.spec)

    @property
    def hash6(self) -> str:
        return feature_set.hash6(self.feature_set)

    def with_lineage(self, lineages: Lineages) -> Detector:
        """The same with the newest one of its feature set."""
        lineage = lineages.of(self.feature_set)
        return self if lineage == self.lineage else replace(self, lineage=lineage)

    @property
    def epoch(self) -> int:
        """The generation of its lineage."""
        return 1 if self.lineage is None else self.lineage.generation

    @property
    def stream(self) -> str:
        return names.stream(self.hash6, self.epoch)

    @property
    def features_group(self) -> str:
        """Consumer group of its streaming job."""
        silent = self.lineage is not None and self.lineage.beginning.silent
        return self.identity.features_group(self.stream, silent=silent)

    @property
    def streaming_job(self) -> str:
        """Its FlinkDeployment."""
        return names.flink_deployment(self.name, self.stream)

    @property
    def config_name(self) -> str:
        """The ConfigMap with ``config``."""
        if self.decided is None:
            return names.config(self.name)
        return names.stream_config(self.name, self.stream)

    @property
    def managed_kafka(self) -> bool:
        return self.spec.kafka.external is None

    @property
    def retained(self) -> bool:
        """Whether Kafka and the keys outlive the object."""
        return self.spec.deletion_policy is DeletionPolicy.RETAIN

    @property
    def bootstrap(self) -> str:
        if self.spec.kafka.external is not None:
            return self.spec.kafka.external.bootstrap_servers
        return names.kafka_bootstrap(self.name, self.namespace)

    @property
    def kafka_login(self) -> bool:
        """Whether clients log in at its Kafka: always at a managed one."""
        return self.managed_kafka or self.kafka_secret is not None

    @property
    def kafka_secret(self) -> str | None:
        """The Secret that the spec names for its own Kafka's login; None where its listener asks for none."""
        external = self.spec.kafka.external
        return external.secret_ref.name if external is not None and external.secret_ref is not None else None

    @property
    def storage_uri(self) -> str:
        """The spec's, else a folder of the platform's; empty where there is neither."""
        if self.spec.storage is not None:
            return self.spec.storage.uri.rstrip("/")
        return storage.default_uri(str(self.identity), self.platform.storage)

    @property
    def storage_faults(self) -> list[SpecError]:
        """What is wrong with the URI; empty where all is well."""
        return storage.faults(
            self.storage_uri,
            str(self.identity),
            self.platform.storage,
            default=self.spec.storage is None,
            with_keys=self.storage_reference is not None,
        )

    @property
    def storage_reference(self) -> SecretRef | None:
        """The Secret that the spec names for its storage; without one the platform's keys or role open it."""
        return self.spec.storage.secret_ref if self.spec.storage is not None else None

    @property
    def storage_path(self) -> str | None:
        """The folder on the node, for ``file://`` storage."""
        uri = self.storage_uri
        return uri.removeprefix(storage.NODE_SCHEME) if uri.startswith(storage.NODE_SCHEME) else None

    @property
    def storage_secret(self) -> str | None:
        """The Secret in its namespace with the object store's keys: the spec's own, else the copy of the platform's.

        None for ``file://``, and where a service account's role opens the store.
        """
        if self.storage_path is not None:
            return None
        if self.storage_reference is not None:
            return self.storage_reference.name
        settings = self.platform.storage
        return names.stores(self.name) if settings.credentials or settings.secret else None

    def client_secret(self, client: Client) -> str:
        """The Secret with a client's keys: the one that the spec names, else the operator's own."""
        return names.client(self.name, client.name) if client.secret_ref is None else client.secret_ref.name

    @property
    def mlflow_uri(self) -> str:
        """Without a login."""
        if self.spec.stores.mlflow is not None:
            return self.spec.stores.mlflow.uri
        return split_login(self.platform.stores.mlflow_tracking_uri)[0]

    @property
    def decision_url(self) -> str:
        return f"http://{names.decision_service(self.name)}.{self.namespace}.svc:8080"

    @property
    def config(self) -> DetectorConfig:
        """The document that every data-path process mounts. The policy's lists reach them in the release, with tokens."""
        managed = self.spec.kafka.managed
        policy = self.spec.policy.model_copy(update={"lists": []})
        return DetectorConfig(
            namespace=self.namespace,
            name=self.name,
            uid=self.uid,
            spec=self.spec.model_copy(update={"policy": policy}),
            feature_set=self.feature_set,
            epoch=self.epoch,
            decided=self.decided,
            kafka=KafkaAddress(
                bootstrap_servers=self.bootstrap,
                partitions=self.spec.kafka.partitions,
                replicas=min(3, managed.replicas) if managed is not None else 1,
                login=KAFKA_LOGIN_PATH if self.kafka_login else None,
            ),
            storage_uri=self.storage_uri,
        )

    @cached_property
    def config_hash(self) -> str:
        """Over what a running process reads once at start; policy and rollout reach it through the release."""
        document = self.config.model_dump(mode="json", by_alias=False, exclude_none=True)
        for part in _NOT_IN_HASH:
            document["spec"].pop(part, None)
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]

    def override(self, component: Component) -> ComponentOverride | None:
        return next((o for o in self.spec.components if o.name is component), None)

    def replicas(self, component: Component, default: int) -> int:
        override = self.override(component)
        return default if override is None or override.replicas is None else override.replicas


def read(body: Mapping[str, Any], platform: Platform) -> tuple[Detector | None, list[SpecError]]:
    """A stored object's detector, None where its schema would refuse it now, and what is wrong with its spec."""
    try:
        detector = Detector.parse(body, platform)
    except ValidationError as error:
        return None, [SpecError(".".join(["spec", *map(str, e["loc"])]), e["msg"]) for e in error.errors()]
    return detector, check(detector)


def unreadable(spec: DetectorSpec, policy: Policy | None = None) -> list[SpecError]:
    """Which rules and lists of its policy, or of another one, name what the spec doesn't declare, or can't be compiled."""
    policy, errors = policy or spec.policy, []
    readable = rules.names(spec)
    for i, rule in enumerate(policy.rules):
        try:
            rules.compile_rule(rule.when, readable, cel.compile)
        except RuleError as error:
            errors.append(SpecError(f"spec.policy.rules[{i}].when", f"rule {rule.name!r} {error}"))
    fields = {e.name for e in spec.entities} | {f.name for f in spec.event.fields}
    for i, listed in enumerate(policy.lists):
        if listed.field not in fields:
            message = (
                f"{listed.field!r} is no entity or declared field; name one, or add it to spec.event.fields"
            )
            errors.append(SpecError(f"spec.policy.lists[{i}].field", message))
    return errors


def check(detector: Detector) -> list[SpecError]:
    """What is wrong with a spec that its schema let pass. Empty where all is well."""
    spec, errors = detector.spec, [*feature_set.check(detector.spec), *unreadable(detector.spec)]
    if spec.event.amount.currency_field is not None and spec.event.amount.currency is None:
        # The schema says it, too; an object may have been stored before it did.
        errors.append(
            SpecError("spec.event.amount.currency", "currencyField is checked against it; give it too")
        )
    for i, listed in enumerate(spec.policy.lists):
        for j, entry in enumerate(listed.entries):
            try:
                zone = entry.expires is None or datetime.fromisoformat(entry.expires).tzinfo
            except ValueError:
                zone = None
            if not zone:
                path = f"spec.policy.lists[{i}].entries[{j}].expires"
                errors.append(SpecError(path, "is no time; write RFC 3339, as in 2027-01-31T00:00:00Z"))
    for i, override in enumerate(spec.components):
        if override.name is Component.PREDICTOR and override.replicas == 0 and spec.model.none is None:
            path = f"spec.components[{i}].replicas"
            message = "a predictor without replicas answers nothing; write at least 1, or spec.model.none for rules alone"
            errors.append(SpecError(path, message))
    train = spec.model.train
    if train is not None and train.schedule is not None:
        try:
            training.last_tick(train.schedule, detector.created, detector.created)
        except ValueError as error:
            errors.append(SpecError("spec.model.train.schedule", str(error)))
    steps = spec.rollout.steps
    if any(later <= earlier for earlier, later in itertools.pairwise(steps)):
        errors.append(SpecError("spec.rollout.steps", "each step must be larger than the one before"))
    errors += detector.storage_faults
    for store, configured in (
        ("redis", spec.stores.redis is not None or detector.platform.stores.redis_url),
        ("postgres", spec.stores.postgres is not None or detector.platform.stores.postgres_dsn),
        ("mlflow", detector.mlflow_uri),
    ):
        if not configured:
            errors.append(SpecError(f"spec.stores.{store}", "the platform has no default for it; give one"))
    return errors
