"""The FraudDetector's types. The CRD's YAML is generated from them (``crd.py``), so this file is the API.

Rules across fields are CEL, beside the type that they belong to; what CEL can't say, the operator shows as the
condition ``ValidationFailed``. Defaults live here and never change within an API version.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from fraud_contracts import durations, names


def _rule(rule: str, message: str) -> dict[str, str]:
    return {"rule": rule, "message": message}


def _rules(*rules: dict[str, str], **more: Any) -> dict[str, Any]:
    return {"x-kubernetes-validations": list(rules), **more}


class Spec(BaseModel):
    """Base of all parts: camelCase outside, unknown fields refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=30)]
FieldName = Annotated[str, Field(min_length=1, max_length=100)]
Duration = Annotated[str, Field(pattern=durations.PATTERN, max_length=12)]
BY_NAME: dict[str, Any] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}


class TimeUnit(StrEnum):
    """How the event's time is written."""

    MS = "ms"
    S = "s"
    RFC3339 = "rfc3339"


class FieldType(StrEnum):
    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"


class IdField(Spec):
    field: FieldName = Field(description="Field that holds the transaction's id, unique for ever.")


class TimeField(Spec):
    field: FieldName = Field(description="Field that holds the event's time.")
    unit: TimeUnit = Field(TimeUnit.MS, description="Unit of the time: ms, s (since 1970, UTC) or rfc3339.")
    max_future_skew: Duration = Field("5m", description="An event later than its append time by more is refused.")


class AmountField(Spec):
    model_config = ConfigDict(
        json_schema_extra=_rules(_rule("!has(self.currency) || !has(self.currencyField)", "give currency or currencyField, not both"))
    )
    field: FieldName = Field(description="Field that holds the amount.")
    scale: int = Field(2, ge=0, le=4, description="Decimal places of the amount; 0 where it is minor units already.")
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] | None = Field(None, description="The one currency, ISO 4217.")
    currency_field: FieldName | None = Field(None, description="Field that must hold the detector's currency.")


class EventField(Spec):
    name: FieldName
    type: FieldType = FieldType.STRING


class Event(Spec):
    """How a transaction is written."""

    model_config = ConfigDict(
        json_schema_extra=_rules(
            _rule("self.id.field == oldSelf.id.field", "event.id.field is immutable: ids already claimed depend on it"),
            _rule("!has(self.sensitive) || !(self.time.field in self.sensitive)", "event.time.field can't be sensitive"),
            _rule("!has(self.sensitive) || !(self.amount.field in self.sensitive)", "event.amount.field can't be sensitive"),
            _rule("!has(self.sensitive) || !(self.id.field in self.sensitive)", "event.id.field can't be sensitive"),
        )
    )
    id: IdField
    time: TimeField
    amount: AmountField
    fields: list[EventField] = Field(
        default_factory=list, max_length=32, description="Further fields to carry, by name.", json_schema_extra=BY_NAME
    )
    sensitive: list[FieldName] = Field(
        default_factory=list,
        max_length=16,
        description="Fields replaced by keyed tokens in the first step of either door.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )


class Entity(Spec):
    name: Name
    field: FieldName
    label_delay: Duration | None = Field(None, description="Fraud labels of this entity count this long after the event.")


class Aggregate(StrEnum):
    COUNT = "Count"
    SUM = "Sum"
    MEAN = "Mean"
    MIN = "Min"
    MAX = "Max"
    DISTINCT = "Distinct"
    SECONDS_SINCE_LAST = "SecondsSinceLast"
    FRAUD_COUNT = "FraudCount"
    FRAUD_RATE = "FraudRate"


class Transform(StrEnum):
    RATIO = "Ratio"
    DIFFERENCE = "Difference"
    HOUR = "Hour"
    NIGHT = "Night"
    WEEKEND = "Weekend"
    EQUALS = "Equals"


class Where(Spec):
    field: FieldName
    equals: Annotated[str, Field(max_length=100)]


class Feature(Spec):
    """An aggregate of one entity, or a transform of the event and other features."""

    model_config = ConfigDict(
        json_schema_extra=_rules(
            _rule("has(self.aggregate) != has(self.transform)", "give aggregate or transform, exactly one"),
            _rule("!has(self.aggregate) || has(self.entity)", "an aggregate needs entity"),
            _rule(
                "!has(self.aggregate) || self.aggregate == 'SecondsSinceLast' || has(self.window)",
                "this aggregate needs window",
            ),
            _rule(
                "!has(self.aggregate) || !(self.aggregate in ['Sum', 'Mean', 'Min', 'Max', 'Distinct']) || has(self.of)",
                "this aggregate needs of",
            ),
            _rule("!has(self.transform) || !(self.transform in ['Ratio', 'Difference']) || (has(self.args) && size(self.args) == 2)",
                  "this transform needs two args"),
            _rule("!has(self.transform) || self.transform != 'Equals' || has(self.where)", "Equals needs where"),
        )
    )
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
    entity: Name | None = None
    aggregate: Aggregate | None = None
    transform: Transform | None = None
    of: FieldName | None = Field(None, description="`amount`, or a declared field.")
    window: Duration | None = None
    where: Where | None = None
    args: Annotated[list[Annotated[str, Field(max_length=60)]], Field(max_length=2)] | None = Field(
        None, description="The two operands of Ratio and Difference: `amount` or the names of features."
    )


class Preset(StrEnum):
    """Frozen for ever; a better set gets a new name."""

    PAYMENTS_V1 = "payments/v1"
    NONE = "none"


class Features(Spec):
    preset: Preset = Preset.PAYMENTS_V1
    extra: list[Feature] = Field(default_factory=list, max_length=64, json_schema_extra=BY_NAME)


class LabelSource(Spec):
    name: Name
    maturity: Duration = Field("90d", description="After this time without a report a transaction counts as legitimate.")


class Labels(Spec):
    sources: list[LabelSource] = Field(
        default_factory=lambda: [LabelSource(name="chargeback", maturity="90d"), LabelSource(name="analyst", maturity="1d")],
        min_length=1,
        max_length=8,
        json_schema_extra=BY_NAME,
    )


class Algorithm(StrEnum):
    LIGHTGBM = "LightGBM"


class Objective(StrEnum):
    AVERAGE_PRECISION = "AveragePrecision"


class History(Spec):
    path: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^/].*$")] = Field(
        "history/", description="Folder of CSV or Parquet files, below storage.uri, with the event's field names."
    )
    label_field: FieldName = Field("is_fraud", description="Field of the history that is 1 or true for fraud.")
    label_source: Name = Field("chargeback", description="Source that the history's labels count as.")


class Train(Spec):
    history: History = Field(default_factory=History)
    algorithm: Algorithm = Algorithm.LIGHTGBM
    objective: Objective = Objective.AVERAGE_PRECISION
    trials: int = Field(20, ge=1, le=200)
    schedule: Annotated[str, Field(max_length=100, pattern=r"^\S+ \S+ \S+ \S+ \S+$")] | None = Field(
        None, description="Cron, UTC: minute hour day month weekday."
    )
    min_labels: int = Field(500, ge=1, description="Training waits for as many matured fraud labels.")


class Registered(Spec):
    name: Annotated[str, Field(min_length=1, max_length=200)]
    alias: Annotated[str, Field(min_length=1, max_length=100)] = "challenger"


class Nothing(Spec):
    """An empty object."""


class Model(Spec):
    model_config = ConfigDict(
        json_schema_extra=_rules(
            _rule(
                "[has(self.train), has(self.registered), has(self.none)].filter(x, x).size() == 1",
                "give exactly one of train, registered, none",
            )
        )
    )
    train: Train | None = None
    registered: Registered | None = None
    none: Nothing | None = None
    pin: Annotated[str, Field(pattern=r"^[1-9][0-9]*$", max_length=10)] | None = Field(None, description="Hold this version.")


class Action(StrEnum):
    APPROVE = "Approve"
    REVIEW = "Review"
    DECLINE = "Decline"


class RuleMode(StrEnum):
    ENFORCE = "Enforce"
    SHADOW = "Shadow"


class Rule(Spec):
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$", max_length=60)]
    when: Annotated[str, Field(min_length=1, max_length=1000)] = Field(description="CEL over event and features.")
    action: Action
    mode: RuleMode = RuleMode.ENFORCE


class Bands(Spec):
    model_config = ConfigDict(json_schema_extra=_rules(_rule("self.review <= self.decline", "bands.review can't exceed bands.decline")))
    review: int = Field(700, ge=0, le=1000)
    decline: int = Field(900, ge=0, le=1000)


class Limits(Spec):
    declines_per_minute: int | None = Field(None, ge=1)
    reviews_per_day: int | None = Field(None, ge=1)


class OnModelLoss(StrEnum):
    RULES = "Rules"
    REVIEW = "Review"
    APPROVE = "Approve"
    DECLINE = "Decline"


class OnProfileLoss(StrEnum):
    DEFAULT_PROFILE = "DefaultProfile"
    RULES = "Rules"
    REVIEW = "Review"


class OnKafkaLoss(StrEnum):
    REFUSE = "Refuse"
    ANSWER = "Answer"


class Fallback(Spec):
    deadline: Duration = "50ms"
    on_no_model: Action = Action.REVIEW
    on_model_loss: OnModelLoss = OnModelLoss.RULES
    on_profile_loss: OnProfileLoss = OnProfileLoss.DEFAULT_PROFILE
    on_kafka_loss: OnKafkaLoss = OnKafkaLoss.REFUSE


class ListEntry(Spec):
    value: Annotated[str, Field(min_length=1, max_length=200)]
    expires: Annotated[str, Field(max_length=40)] | None = Field(None, description="RFC 3339; for ever where absent.")


class PolicyList(Spec):
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$", max_length=60)]
    field: FieldName = Field(description="An entity's name or a declared field.")
    action: Action
    entries: list[ListEntry] = Field(default_factory=list, max_length=200)


class Policy(Spec):
    bands: Bands = Field(default_factory=Bands)
    rules: list[Rule] = Field(default_factory=list, max_length=64, json_schema_extra=BY_NAME)
    lists: list[PolicyList] = Field(default_factory=list, max_length=16, json_schema_extra=BY_NAME)
    limits: Limits = Field(default_factory=Limits)
    fallback: Fallback = Field(default_factory=Fallback)


class RolloutMode(StrEnum):
    AUTOMATIC = "Automatic"
    MANUAL = "Manual"


class Rollout(Spec):
    mode: RolloutMode = RolloutMode.AUTOMATIC
    steps: list[Annotated[int, Field(ge=1, le=99)]] = Field(default_factory=lambda: [1, 5, 25, 50], min_length=1, max_length=10)
    step_duration: Duration = "1h"
    min_entities: int = Field(5000, ge=1)
    keep_previous: Duration = "24h"
    paused: bool = False


class SecretRef(Spec):
    name: Annotated[str, Field(min_length=1, max_length=253)]


class ManagedKafka(Spec):
    replicas: int = Field(3, ge=1, le=9)
    storage: Annotated[str, Field(pattern=r"^[1-9][0-9]*(Mi|Gi|Ti)$")] = "20Gi"


class ExternalKafka(Spec):
    bootstrap_servers: Annotated[str, Field(min_length=1, max_length=1000)]
    secret_ref: SecretRef | None = None


class Kafka(Spec):
    model_config = ConfigDict(
        json_schema_extra=_rules(
            _rule("has(self.managed) != has(self.external)", "give exactly one of managed, external"),
            _rule("self.partitions == oldSelf.partitions", "kafka.partitions is immutable: an entity's order depends on it"),
        )
    )
    managed: ManagedKafka | None = None
    external: ExternalKafka | None = None
    partitions: int = Field(12, ge=1, le=120)


class Storage(Spec):
    uri: Annotated[str, Field(pattern=r"^(s3|file)://.+$", max_length=500)]
    secret_ref: SecretRef | None = None


class StoreRef(Spec):
    secret_ref: SecretRef


class MlflowRef(Spec):
    uri: Annotated[str, Field(pattern=r"^https?://.+$", max_length=500)]
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
        json_schema_extra=_rules(
            _rule(
                "self.entities.size() == oldSelf.entities.size() && self.entities.all(e, oldSelf.entities.exists(o, o.name == e.name && o.field == e.field))",
                "entities' names and fields are immutable: profiles and topics are keyed by them",
            ),
            _rule(
                "!has(self.features) || !has(self.features.extra) || self.features.extra.all(f, !has(f.entity) || self.entities.exists(e, e.name == f.entity))",
                "features.extra names an entity that entities doesn't list",
            ),
            _rule(
                "!has(self.features) || !has(self.features.extra) || !has(self.event.sensitive) || self.features.extra.all(f, !has(f.where) || !(f.where.field in self.event.sensitive))",
                "features.extra: where.field is sensitive; only its token leaves the door, so it can't be compared",
            ),
            _rule(
                "!has(self.features) || !has(self.features.extra) || !has(self.event.sensitive) || self.features.extra.all(f, !has(f.of) || f.aggregate == 'Distinct' || !(f.of in self.event.sensitive))",
                "features.extra: of is sensitive; only its token leaves the door, so it can't be added up",
            ),
            _rule(
                "!has(self.model) || !has(self.model.train) || !has(self.labels) || !has(self.labels.sources) || self.labels.sources.exists(s, s.name == self.model.train.history.labelSource)",
                "model.train.history.labelSource names a source that labels.sources doesn't list",
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
    paused: bool = Field(False, description="The operator changes nothing while true; status goes on.")


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
        default_factory=list, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    )


def parse_spec(spec: dict[str, Any]) -> DetectorSpec:
    """The typed spec of a stored object; ValidationError where the schema would have refused it."""
    return DetectorSpec.model_validate(spec)


def dump(part: Spec) -> dict[str, Any]:
    """JSON form with the resource's own names; absent optional fields stay absent."""
    return part.model_dump(mode="json", by_alias=True, exclude_none=True)


NAME_RULES = [
    _rule(
        f"size(self.metadata.name) <= {names.MAX_NAME}",
        f"metadata.name is too long: at most {names.MAX_NAME} characters, since children's names are derived from it",
    ),
    _rule(
        "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "metadata.name must start with a letter and hold lower-case letters, digits and dashes only",
    ),
]
