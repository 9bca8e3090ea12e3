"""The FraudDetector's policy: bands, rules, lists, limits and the declared ladder of fallbacks."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from fraud_contracts.detector_base import BY_NAME, Duration, FieldName, PolicyName, Spec, rule, rules, text

_STALENESS = text(r"^([2-9]|[1-9][0-9]|[12][0-9][0-9]|300)s$|^[1-5]m$", "write 2s to 300s, or 1m to 5m", 5)
_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$"


class Action(StrEnum):
    APPROVE = "Approve"
    REVIEW = "Review"
    DECLINE = "Decline"


class RuleMode(StrEnum):
    ENFORCE = "Enforce"
    SHADOW = "Shadow"


class Rule(Spec):
    name: PolicyName = Field(description="Name of the rule; a decision's reasons say rule:<name>.")
    when: Annotated[str, Field(min_length=1, max_length=1000)] = Field(
        description="CEL that is true or false, over event and features; a null fails no rule."
    )
    action: Action = Field(description="What it asks for; of several actions the strictest holds.")
    mode: RuleMode = Field(
        RuleMode.ENFORCE, description="Enforce: it decides; Shadow: it is only noted in the decision."
    )


class Bands(Spec):
    """Which action a model's score asks for."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.review <= self.decline",
                "bands.review can't exceed bands.decline; lower review or raise decline",
            )
        )
    )
    review: int = Field(700, ge=0, le=1000, description="From this score on a transaction is reviewed.")
    decline: int = Field(900, ge=0, le=1000, description="From this score on a transaction is declined.")


class Limits(Spec):
    """Circuit breakers, counted by each replica by itself; what a list decides passes them."""

    declines_per_minute: int | None = Field(
        None, ge=1, description="Further declines within a minute become reviews."
    )
    reviews_per_day: int | None = Field(
        None, ge=1, description="Further reviews within a day become approvals."
    )


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
    """What is decided when something is missing or late."""

    deadline: Duration = Field(
        "100ms",
        description="Time that an inline decision has from its last byte to its answer: for waiting, profiles, score, claim and append.",
    )
    staleness: Annotated[str, _STALENESS] = Field(
        "10s",
        description="How far profiles may be behind the payments that were accepted; past it onProfileLoss holds.",
    )
    on_no_model: Action = Field(
        Action.REVIEW, description="Action where rules alone decide and no rule or list matches."
    )
    on_model_loss: OnModelLoss = Field(
        OnModelLoss.RULES,
        description="What stands in for a model that gives no score: rules alone, or an action.",
    )
    on_profile_loss: OnProfileLoss = Field(
        OnProfileLoss.DEFAULT_PROFILE,
        description="What stands in for profiles that are lost or behind: what there is of them, rules alone, or review.",
    )
    on_kafka_loss: OnKafkaLoss = Field(
        OnKafkaLoss.REFUSE,
        description="Refuse: answer 503 where a decision isn't appended within the deadline; Answer: answer all the same.",
    )

    @model_serializer(mode="wrap")
    def _declared(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a bound that is as ever: the version before it knew the field refuses it in a release, and is to be gone back to."""
        whole: dict[str, Any] = dump(self)
        if self.staleness == type(self).model_fields["staleness"].default:
            whole.pop("staleness", None)
        return whole


class ListEntry(Spec):
    value: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        description="The value, or its token where the field is sensitive."
    )
    expires: Annotated[str, text(_TIME, "write RFC 3339, as in 2027-01-31T00:00:00Z", 40)] | None = Field(
        None, description="RFC 3339; for ever where absent."
    )


class PolicyList(Spec):
    name: PolicyName = Field(description="Name of the list; a decision's reasons say list:<name>.")
    field: FieldName = Field(description="An entity's name or a declared field.")
    action: Action = Field(description="What it asks for where a value is on it.")
    entries: list[ListEntry] = Field(default_factory=list, max_length=200, description="Values on the list.")


class Policy(Spec):
    """How a score, rules and lists become an action."""

    bands: Bands = Field(default_factory=Bands)
    rules: list[Rule] = Field(
        default_factory=list,
        max_length=64,
        description="Rules, all of which are evaluated.",
        json_schema_extra=BY_NAME,
    )
    lists: list[PolicyList] = Field(
        default_factory=list,
        max_length=16,
        description="Lists of values, as of known cards or counterparties.",
        json_schema_extra=BY_NAME,
    )
    limits: Limits = Field(default_factory=Limits)
    fallback: Fallback = Field(default_factory=Fallback)
