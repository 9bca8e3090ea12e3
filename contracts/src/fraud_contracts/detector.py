"""The FraudDetector's types. The CRD's YAML is generated from them (``crd.py``), so this file is the API.

Rules across fields are CEL, beside the type that they belong to; what CEL can't say, the operator shows as the
condition ``ValidationFailed``. Defaults live here and never change within an API version.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from fraud_contracts import names
from fraud_contracts.detector_base import BY_NAME, Duration, FieldName, Name, Spec, rule, rules, text
from fraud_contracts.detector_event import (
    Aggregate as Aggregate,
)
from fraud_contracts.detector_event import (
    AmountField as AmountField,
)
from fraud_contracts.detector_event import (
    Entity as Entity,
)
from fraud_contracts.detector_event import (
    Event as Event,
)
from fraud_contracts.detector_event import (
    EventField as EventField,
)
from fraud_contracts.detector_event import (
    Feature as Feature,
)
from fraud_contracts.detector_event import (
    Features as Features,
)
from fraud_contracts.detector_event import (
    FieldType as FieldType,
)
from fraud_contracts.detector_event import (
    IdField as IdField,
)
from fraud_contracts.detector_event import (
    Labels as Labels,
)
from fraud_contracts.detector_event import (
    LabelSource as LabelSource,
)
from fraud_contracts.detector_event import (
    Preset as Preset,
)
from fraud_contracts.detector_event import (
    TimeField as TimeField,
)
from fraud_contracts.detector_event import (
    TimeUnit as TimeUnit,
)
from fraud_contracts.detector_event import (
    Transform as Transform,
)
from fraud_contracts.detector_event import (
    Where as Where,
)
from fraud_contracts.detector_policy import (
    Action as Action,
)
from fraud_contracts.detector_policy import (
    Bands as Bands,
)
from fraud_contracts.detector_policy import (
    Fallback as Fallback,
)
from fraud_contracts.detector_policy import (
    Limits as Limits,
)
from fraud_contracts.detector_policy import (
    ListEntry as ListEntry,
)
from fraud_contracts.detector_policy import (
    OnKafkaLoss as OnKafkaLoss,
)
from fraud_contracts.detector_policy import (
    OnModelLoss as OnModelLoss,
)
from fraud_contracts.detector_policy import (
    OnProfileLoss as OnProfileLoss,
)
from fraud_contracts.detector_policy import (
    Policy as Policy,
)
from fraud_contracts.detector_policy import (
    PolicyList as PolicyList,
)
from fraud_contracts.detector_policy import (
    Rule as Rule,
)
from fraud_contracts.detector_policy import (
    RuleMode as RuleMode,
)


class Algorithm(StrEnum):
    LIGHTGBM = "LightGBM"


class Objective(StrEnum):
    AVERAGE_PRECISION = "AveragePrecision"


class History(Spec):
    path: Annotated[str, text(r"^[^/].*$", "write a folder below storage.uri, with no / in front", 200)] = (
        Field(
            "history/",
            description="Folder of CSV or Parquet files, below storage.uri, with the event's field names.",
        )
    )
    label_field: FieldName = Field(
        "is_fraud", description="Field of the history that is 1 or true for fraud."
    )
    label_source: Name = Field("chargeback", description="Source that the history's labels count as.")


class Train(Spec):
    history: History = Field(default_factory=History)
    algorithm: Algorithm = Algorithm.LIGHTGBM
    objective: Objective = Objective.AVERAGE_PRECISION
    trials: int = Field(20, ge=1, le=200)
    schedule: (
        Annotated[
            str, text(r"^\S+ \S+ \S+ \S+ \S+$", "write minute hour day month weekday, as in 0 3 * * *", 100)
        ]
        | None
    ) = Field(None, description="Cron, UTC: minute hour day month weekday.")
    min_labels: int = Field(500, ge=1, description="Training waits for as many matured fraud labels.")


class Registered(Spec):
    name: Annotated[str, Field(min_length=1, max_length=200)]
    alias: Annotated[str, Field(min_length=1, max_length=100)] = "challenger"


class Nothing(Spec):
    """An empty object."""


class Model(Spec):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "[has(self.train), has(self.registered), has(self.none)].filter(x, x).size() == 1",
                "give exactly one of train, registered, none",
            )
        )
    )
    train: Train | None = None
    registered: Registered | None = None
    none: Nothing | None = None
    pin: Annotated[str, text(r"^[1-9][0-9]*$", 'write a model version, as in "3"', 10)] | None = Field(
        None, description="Hold this version."
    )


class RolloutMode(StrEnum):
    AUTOMATIC = "Automatic"
    MANUAL = "Manual"


class Rollout(Spec):
    mode: RolloutMode = RolloutMode.AUTOMATIC
    steps: list[Annotated[int, Field(ge=1, le=99)]] = Field(
        default_factory=lambda: [1, 5, 25, 50], min_length=1, max_length=10
    )
    step_duration: Duration = "1h"
    min_entities: int = Field(5000, ge=1)
    keep_previous: Duration = "24h"
    paused: bool = False


class SecretRef(Spec):
    name: Annotated[str, Field(min_length=1, max_length=253)]


class ManagedKafka(Spec):
    replicas: int = Field(3, ge=1, le=9)
    storage: Annotated[
        str, text(r"^[1-9][0-9]*(Mi|Gi|Ti)$", "write a number and Mi, Gi or Ti, as in 20Gi", 20)
    ] = "20Gi"


class ExternalKafka(Spec):
    bootstrap_servers: Annotated[str, Field(min_length=1, max_length=1000)]
    secret_ref: SecretRef | None = None


class Kafka(Spec):
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
    partitions: int = Field(12, ge=1, le=120)


class Storage(Spec):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.uri == oldSelf.uri",
                "storage.uri is immutable: the lake, the history and the stream's state lie there; make a new detector",
            ),
        )
    )
    uri: Annotated[str, text(r"^(s3|file)://.+$", "write s3://bucket/folder or file:///folder", 500)]
    secret_ref: SecretRef | None = None


class StoreRef(Spec):
    secret_ref: SecretRef


class MlflowRef(Spec):
    uri: Annotated[str, text(r"^https?://.+$", "write http:// or https:// and a host", 500)]
    secret_ref: SecretRef | None = None


class Stores(Spec):
    """Each optional: the chart's platform default is used where one is absent."""

    redis: StoreRef | None = None
    postgres: StoreRef | None = None
    mlflow: MlflowRef | None = None


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
    requests: dict[str, int | str] = Field(default_factory=dict)
    limits: dict[str, int | str] = Field(default_factory=dict)


class ComponentOverride(Spec):
    name: Component
    replicas: int | None = Field(None, ge=0, le=100)
    resources: Resources | None = None
    node_selector: dict[str, str] | None = None


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
                "!has(self.features) || !has(self.features.extra) || !has(self.event.sensitive) || self.features.extra.all(f, !has(f.of) || f.aggregate == 'Distinct' || !(f.of in self.event.sensitive))",
                "features.extra: of is sensitive; only its token leaves the door, so it can't be added up; write amount or another field",
            ),
            rule(
                "!has(self.model) || !has(self.model.train) || !has(self.labels) || !has(self.labels.sources) || self.labels.sources.exists(s, s.name == self.model.train.history.labelSource)",
                "model.train.history.labelSource names a source that labels.sources doesn't list; add it there or name a listed one",
            ),
        )
    )
    event: Event
    entities: list[Entity] = Field(min_length=1, max_length=4, json_schema_extra=BY_NAME)
    features: Features = Field(default_factory=Features)
    labels: Labels = Field(default_factory=Labels)
    model: Model = Field(default_factory=lambda: Model(train=Train()))
    policy: Policy = Field(default_factory=Policy)
    rollout: Rollout = Field(default_factory=Rollout)
    kafka: Kafka = Field(default_factory=lambda: Kafka(managed=ManagedKafka()))
    storage: Storage | None = None
    stores: Stores = Field(default_factory=Stores)
    components: list[ComponentOverride] = Field(default_factory=list, max_length=9, json_schema_extra=BY_NAME)
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN
    paused: bool = Field(
        False, description="While true nothing is changed but a model version taken back; status goes on."
    )


class ReleaseStatus(Spec):
    name: str | None = None
    model: str | None = None
    digest: str | None = None
    feature_set: str | None = None
    policy_revision: int | None = None
    propagated: str | None = None


class GateStatus(Spec):
    name: str
    result: str
    value: str | None = None
    bound: str | None = None


class RolloutStatus(Spec):
    phase: str = "Idle"
    candidate: str | None = None
    share: int | None = None
    since: str | None = None
    gates: list[GateStatus] = Field(default_factory=list)


class TrainingStatus(Spec):
    revision: str | None = None
    job: str | None = None
    version: str | None = None
    phase: str | None = None


class Condition(Spec):
    type: str
    status: str
    reason: str
    message: str
    last_transition_time: str
    observed_generation: int


class DetectorStatus(Spec):
    """A mirror: rebuilt from the release ConfigMap and the children."""

    observed_generation: int | None = None
    release: ReleaseStatus | None = None
    rollout: RolloutStatus | None = None
    training: TrainingStatus | None = None
    feature_set: str | None = None
    decision_url: str | None = Field(None, alias="decisionURL")
    conditions: list[Condition] = Field(
        default_factory=list,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
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
