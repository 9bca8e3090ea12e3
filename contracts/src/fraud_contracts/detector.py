"""The FraudDetector's types. The CRD's YAML is generated from them (``crd.py``), so this file is the API.

Rules across fields are CEL, beside the type that they belong to; what CEL can't say, the operator shows as the
condition ``ValidationFailed``. Defaults live here and never change within an API version.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from fraud_contracts import names
from fraud_contracts.detector_base import BY_NAME, SecretRef, Spec, rule, rules, text
from fraud_contracts.detector_clients import Client, default_clients
from fraud_contracts.detector_event import Entity, EventSpec, Features, Labels
from fraud_contracts.detector_model import Model, Rollout, Train
from fraud_contracts.detector_policy import Policy
from fraud_contracts.feature_kinds import OF_ANY_VALUE, cel_is_one_of


class ManagedKafka(Spec):
    """Kafka of the detector's own, made by Strimzi."""

    replicas: int = Field(3, ge=1, le=9, description="Brokers; each record is kept on up to three.")
    storage: Annotated[
        str, text(r"^[1-9][0-9]*(Mi|Gi|Ti)$", "write a number and Mi, Gi or Ti, as in 20Gi", 20)
    ] = Field("20Gi", description="Size of each broker's volume.")


class ExternalKafka(Spec):
    """Kafka that is there already. The operator makes the topics that lack where it may, and nothing else."""

    bootstrap_servers: Annotated[str, Field(min_length=1, max_length=1000)] = Field(
        description="Host and port of one or more brokers, with commas between."
    )
    secret_ref: SecretRef | None = Field(
        None,
        description="Secret with KAFKA_USERNAME, KAFKA_PASSWORD and KAFKA_SASL_MECHANISM (SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN), "
        "and KAFKA_CA_CERT (PEM) unless a public authority vouches for the brokers. With it every client logs in, over TLS.",
    )


class Kafka(Spec):
    """Where the topics lie: exactly one of managed and external."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule("has(self.managed) != has(self.external)", "give exactly one of managed, external"),
            rule(
                "self.partitions == oldSelf.partitions",
                "kafka.partitions is immutable: an entity's order depends on it; make a new detector",
            ),
            rule(
                "has(self.managed) == has(oldSelf.managed)",
                "kafka.managed can't become kafka.external, nor back: the topics hold the detector's data; make a new detector",
            ),
            rule(
                "!has(self.managed) || !has(oldSelf.managed) || self.managed.replicas >= oldSelf.managed.replicas",
                "kafka.managed.replicas can't be lowered: a broker that goes takes its copies along; make a new detector",
            ),
        )
    )
    managed: ManagedKafka | None = None
    external: ExternalKafka | None = None
    partitions: int = Field(
        12, ge=1, le=120, description="Partitions of the topics that carry transactions; can't be changed."
    )


class Storage(Spec):
    """Where history, lake, checkpoints and savepoints lie; the platform's default where absent."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.uri == oldSelf.uri",
                "storage.uri is immutable: the lake, the history and the stream's state lie there; make a new detector",
            ),
        )
    )
    uri: Annotated[str, text(r"^(s3|file)://.+$", "write s3://bucket/folder or file:///folder", 500)] = Field(
        description="Folder of an object store; or of one node, where the platform allows that. Can't be changed."
    )
    secret_ref: SecretRef | None = Field(
        None,
        description="Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, where they are needed, AWS_REGION and AWS_ENDPOINT_URL.",
    )


class StoreRef(Spec):
    secret_ref: SecretRef = Field(
        description="Secret that holds the store's address, under REDIS_URL or POSTGRES_DSN, and maybe CA_CERT, by whose authority TLS is verified."
    )


class MlflowRef(Spec):
    uri: Annotated[
        str,
        text(
            r"^https?://[^@]+$", "write http:// or https:// and a host; a login belongs into the Secret", 500
        ),
    ] = Field(description="Address of the MLflow server.")
    secret_ref: SecretRef | None = Field(
        None,
        description="Secret with MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.",
    )


class Stores(Spec):
    """Each optional: the chart's platform default is used where one is absent."""

    redis: StoreRef | None = Field(None, description="Redis, for claims, profiles and events on their way.")
    postgres: StoreRef | None = Field(None, description="PostgreSQL, for the ledger.")
    mlflow: MlflowRef | None = Field(None, description="MLflow, for models.")


class Component(StrEnum):
    DECISION_SERVICE = "DecisionService"
    WORKER = "Worker"
    FEATURES = "Features"
    PREDICTOR = "Predictor"
    TRAINING = "Training"
    PROFILE_SINK = "ProfileSink"
    LEDGER_SINK = "LedgerSink"
    LAKE_SINK = "LakeSink"
    CONSOLE = "Console"


class Resources(Spec):
    """Of each of the component's containers, as Kubernetes writes them. Of Features only requests.cpu and limits.memory count, for its TaskManagers."""

    requests: dict[str, int | str] = Field(
        default_factory=dict, description="What the scheduler sets aside, as cpu and memory."
    )
    limits: dict[str, int | str] = Field(
        default_factory=dict, description="What the container may use at most, as cpu and memory."
    )


class ComponentOverride(Spec):
    name: Component = Field(description="The component that this is about.")
    replicas: int | None = Field(
        None,
        ge=0,
        le=100,
        description="Pods of it; the component's default where absent. Training has one; Features at least one, and no more than kafka.partitions.",
    )
    resources: Resources | None = None
    node_selector: dict[str, str] | None = Field(None, description="Labels that a node must have to run it.")


class DeletionPolicy(StrEnum):
    RETAIN = "Retain"
    DELETE = "Delete"


class DetectorSpec(Spec):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.entities.size() == oldSelf.entities.size() && self.entities.all(e, oldSelf.entities.exists(o, o.name == e.name && o.field == e.field))",
                "entities' names and fields are immutable: profiles and topics are keyed by them; make a new detector",
            ),
            rule(
                "self.entities.all(e, (has(self.event.sensitive) && e.field in self.event.sensitive) == (has(oldSelf.event.sensitive) && e.field in oldSelf.event.sensitive))",
                "whether an entity's field is in event.sensitive is immutable: profiles are keyed by its token, or by its value; make a new detector",
            ),
            rule(
                "!has(self.features) || !has(self.features.extra) || self.features.extra.all(f, !has(f.entity) || self.entities.exists(e, e.name == f.entity))",
                "features.extra: entity is none of entities; name a listed one",
            ),
            rule(
                "!has(self.features) || !has(self.features.extra) || !has(self.event.sensitive) || self.features.extra.all(f, !has(f.where) || !(f.where.field in self.event.sensitive))",
                "features.extra: where.field is sensitive; only its token leaves the door, so it can't be compared; leave where out",
            ),
            rule(
                f"!has(self.features) || !has(self.features.extra) || !has(self.event.sensitive) || self.features.extra.all(f, !has(f.of) || {cel_is_one_of('f.aggregate', OF_ANY_VALUE)} || !(f.of in self.event.sensitive))",
                "features.extra: of is sensitive; only its token leaves the door, so it can't be added up; write amount or another field",
            ),
            rule(
                "!has(self.model) || !has(self.model.train) || !has(self.labels) || !has(self.labels.sources) || self.labels.sources.exists(s, s.name == self.model.train.history.labelSource)",
                "model.train.history.labelSource names a source that labels.sources doesn't list; add it there or name a listed one",
            ),
        )
    )
    event: EventSpec
    entities: list[Entity] = Field(
        min_length=1,
        max_length=4,
        description="Whom a transaction is about; each event must name the first one, the customer as a rule.",
        json_schema_extra=BY_NAME,
    )
    features: Features = Field(default_factory=Features)
    labels: Labels = Field(default_factory=Labels)
    model: Model = Field(default_factory=lambda: Model(train=Train()))
    policy: Policy = Field(default_factory=Policy)
    rollout: Rollout = Field(default_factory=Rollout)
    kafka: Kafka = Field(default_factory=lambda: Kafka(managed=ManagedKafka()))
    storage: Storage | None = None
    stores: Stores = Field(default_factory=Stores)
    clients: list[Client] = Field(
        default_factory=default_clients,
        max_length=20,
        description="Who may call the decision service and the console; nobody where the list is empty.",
        json_schema_extra=BY_NAME,
    )
    components: list[ComponentOverride] = Field(
        default_factory=list,
        max_length=9,
        description="Size and place of single components, where the default doesn't fit.",
        json_schema_extra=BY_NAME,
    )
    deletion_policy: DeletionPolicy = Field(
        DeletionPolicy.RETAIN,
        description="Whether managed Kafka, the keys, the clients' Secrets and the releases stay when the detector is deleted (Retain) or go (Delete).",
    )
    paused: bool = Field(
        False, description="While true nothing is changed but a model version taken back; status goes on."
    )


def parse_spec(spec: dict[str, Any]) -> DetectorSpec:
    """The typed spec of a stored object; ValidationError where the schema would have refused it."""
    return DetectorSpec.model_validate(spec)


def dump(part: Spec) -> dict[str, Any]:
    """JSON form with the resource's own names; absent optional fields stay absent."""
    return part.model_dump(mode="json", by_alias=True, exclude_none=True)


NAME_RULES = [
    rule(
        f"size(self.metadata.name) <= {names.MAX_NAME}",
        f"metadata.name is too long: at most {names.MAX_NAME} characters, since children's names are derived from it",
    ),
    rule(
        "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "metadata.name must start with a letter and hold lower-case letters, digits and dashes only",
    ),
]
