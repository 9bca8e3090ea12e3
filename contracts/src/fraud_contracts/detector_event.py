"""The FraudDetector's parts that say how a transaction is written and what is computed from it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from fraud_contracts.detector_base import (
    BY_NAME,
    Duration,
    FeatureName,
    FieldName,
    Name,
    Spec,
    rule,
    rules,
    text,
)
from fraud_contracts.feature_kinds import (
    WITH_ARGS,
    WITH_OF,
    WITH_WHERE,
    WITHOUT_WINDOW,
    Aggregate,
    Transform,
    cel_is_none_of,
    cel_is_one_of,
)


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
    """The transaction's id."""

    field: FieldName = Field(description="Field that holds the transaction's id, unique for ever.")


class TimeField(Spec):
    """When the transaction happened."""

    field: FieldName = Field(description="Field that holds the event's time.")
    unit: TimeUnit = Field(TimeUnit.MS, description="Unit of the time: ms, s (since 1970, UTC) or rfc3339.")
    max_future_skew: Duration = Field(
        "5m", description="An event later than its append time by more is refused."
    )


class AmountField(Spec):
    """How much it was about."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.currencyField) || has(self.currency)",
                "currencyField is checked against the detector's one currency; give event.amount.currency too",
            )
        )
    )
    field: FieldName = Field(description="Field that holds the amount.")
    scale: int = Field(
        2, ge=0, le=4, description="Decimal places of the amount; 0 where it is minor units already."
    )
    currency: Annotated[str, text(r"^[A-Z]{3}$", "write three capital letters, as in EUR", 3)] | None = Field(
        None, description="The one currency of all amounts, ISO 4217."
    )
    currency_field: FieldName | None = Field(
        None,
        description="Field that must hold `currency`; where absent, transactions don't say their currency.",
    )


class EventField(Spec):
    name: FieldName = Field(description="Name of the field in the transaction.")
    type: FieldType = Field(FieldType.STRING, description="Type of its value; any other type is refused.")


class EventSpec(Spec):
    """How a transaction is written."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.id.field == oldSelf.id.field",
                "event.id.field is immutable: ids already claimed depend on it; make a new detector",
            ),
            rule(
                "self.amount.scale == oldSelf.amount.scale && (!has(oldSelf.amount.currency) || has(self.amount.currency) && self.amount.currency == oldSelf.amount.currency)",
                "event.amount.scale and currency are immutable: sums of both kinds would mix in the profiles; make a new detector",
            ),
            rule(
                "!has(self.sensitive) || !(self.time.field in self.sensitive)",
                "event.time.field can't be sensitive; take it out of event.sensitive",
            ),
            rule(
                "!has(self.sensitive) || !(self.amount.field in self.sensitive)",
                "event.amount.field can't be sensitive; take it out of event.sensitive",
            ),
            rule(
                "!has(self.sensitive) || !(self.id.field in self.sensitive)",
                "event.id.field can't be sensitive; take it out of event.sensitive",
            ),
            rule(
                "!has(self.sensitive) || !has(self.amount.currencyField) || !(self.amount.currencyField in self.sensitive)",
                "event.amount.currencyField can't be sensitive; take it out of event.sensitive",
            ),
        )
    )
    id: IdField
    time: TimeField
    amount: AmountField
    fields: list[EventField] = Field(
        default_factory=list,
        max_length=32,
        description="Further fields to carry, by name.",
        json_schema_extra=BY_NAME,
    )
    sensitive: list[FieldName] = Field(
        default_factory=list,
        max_length=16,
        description="Fields replaced by keyed tokens in the first step of either door.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )


class Entity(Spec):
    name: Name = Field(description="What the entity is called, as in customer.")
    field: FieldName = Field(description="Field of the transaction that holds it.")
    label_delay: Duration | None = Field(
        None,
        description="How long after an event its fraud label counts in features of this entity; without it there are none.",
    )


class Where(Spec):
    """Only events whose field has this value."""

    field: FieldName = Field(description="A declared field that isn't sensitive.")
    equals: Annotated[str, Field(max_length=100)] = Field(description="The value, as text.")


class Feature(Spec):
    """An aggregate of one entity, or a transform of the event and other features."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule("has(self.aggregate) != has(self.transform)", "give aggregate or transform, exactly one"),
            rule(
                "!has(self.aggregate) || has(self.entity)", "an aggregate needs entity: name one of entities"
            ),
            rule(
                f"!has(self.aggregate) || {cel_is_one_of('self.aggregate', WITHOUT_WINDOW)} || has(self.window)",
                "this aggregate needs window, as in 7d",
            ),
            rule(
                f"!has(self.aggregate) || {cel_is_none_of('self.aggregate', WITH_OF)} || has(self.of)",
                "this aggregate needs of: write amount or a declared field",
            ),
            rule(
                f"!has(self.transform) || {cel_is_none_of('self.transform', WITH_ARGS)} || (has(self.args) && size(self.args) == 2)",
                "this transform needs two args: amount or names of features",
            ),
            rule(
                f"!has(self.transform) || {cel_is_none_of('self.transform', WITH_WHERE)} || has(self.where)",
                f"{' and '.join(WITH_WHERE)} needs where: write field and equals",
            ),
        )
    )
    name: FeatureName = Field(description="Name of the feature.")
    entity: Name | None = Field(None, description="Entity whose events are counted; an aggregate needs it.")
    aggregate: Aggregate | None = Field(None, description="What is made of the entity's events.")
    transform: Transform | None = Field(None, description="What is made of this event and of other features.")
    of: FieldName | None = Field(None, description="`amount`, or a declared field.")
    window: Duration | None = Field(
        None,
        description=f"How far back the aggregate looks, by the events' time; all but {' and '.join(WITHOUT_WINDOW)} need it.",
    )
    where: Where | None = None
    args: Annotated[list[Annotated[str, Field(max_length=60)]], Field(max_length=2)] | None = Field(
        None, description=f"The two operands of {' and '.join(WITH_ARGS)}: `amount` or the names of features."
    )


class Preset(StrEnum):
    """Frozen for ever; a better set gets a new name."""

    PAYMENTS_V1 = "payments/v1"
    NONE = "none"


class Features(Spec):
    """What is computed of each event for the model and the rules."""

    preset: Preset = Field(
        Preset.PAYMENTS_V1, description="A ready-made set of features, frozen for ever; or none."
    )
    extra: list[Feature] = Field(
        default_factory=list,
        max_length=64,
        description="Features beside the preset's.",
        json_schema_extra=BY_NAME,
    )


class LabelKind(StrEnum):
    """Whether labels come of themselves, or because somebody looked at a payment that was picked."""

    PASSIVE = "Passive"
    ANALYST = "Analyst"


class LabelSource(Spec):
    name: Name = Field(description="Name that its reports carry as source.")
    maturity: Duration = Field(
        "90d",
        description="How long after a transaction this source may still report it; only older ones are learned from.",
    )
    kind: LabelKind | None = Field(
        None,
        description="How its labels come about: Passive, by themselves as a chargeback does, or Analyst, where somebody "
        "looked at a payment that was picked. Where absent, a source named analyst is Analyst and any other Passive.",
    )

    @property
    def kind_or_default(self) -> LabelKind:
        """As stated, else by the name."""
        return self.kind or (LabelKind.ANALYST if self.name == "analyst" else LabelKind.PASSIVE)


class Labels(Spec):
    """Who reports what a transaction turned out to be."""

    sources: list[LabelSource] = Field(
        default_factory=lambda: [
            LabelSource(name="chargeback", maturity="90d"),
            LabelSource(name="analyst", maturity="1d"),
        ],
        min_length=1,
        max_length=8,
        description="The sources; a report from any other is refused.",
        json_schema_extra=BY_NAME,
    )
