"""The FraudDetector's policy: bands, rules, lists, limits and the declared ladder of fallbacks."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from fraud_contracts.detector_base import BY_NAME, Duration, FieldName, PolicyName, Spec, rule, rules, text

_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$"


class Action(StrEnum):
    APPROVE = "Approve"
    REVIEW = "Review"
    DECLINE = "Decline"


class RuleMode(StrEnum):
    ENFORCE = "Enforce"
    SHADOW = "Shadow"


class Rule(Spec):
    name: PolicyName
    when: Annotated[str, Field(min_length=1, max_length=1000)] = Field(
        description="CEL over event and features; a comparison with a null is false."
    )
    action: Action
    mode: RuleMode = RuleMode.ENFORCE


class Bands(Spec):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.review <= self.decline",
                "bands.review can't exceed bands.decline; lower review or raise decline",
            )
        )
    )
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
    expires: Annotated[str, text(_TIME, "write RFC 3339, as in 2027-01-31T00:00:00Z", 40)] | None = Field(
        None, description="RFC 3339; for ever where absent."
    )


class PolicyList(Spec):
    name: PolicyName
    field: FieldName = Field(description="An entity's name or a declared field.")
    action: Action
    entries: list[ListEntry] = Field(default_factory=list, max_length=200)


class Policy(Spec):
    bands: Bands = Field(default_factory=Bands)
    rules: list[Rule] = Field(default_factory=list, max_length=64, json_schema_extra=BY_NAME)
    lists: list[PolicyList] = Field(default_factory=list, max_length=16, json_schema_extra=BY_NAME)
    limits: Limits = Field(default_factory=Limits)
    fallback: Fallback = Field(default_factory=Fallback)
