"""What every part of the FraudDetector's types shares: the base class, names, durations, CEL rules."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from fraud_contracts import durations


def rule(rule: str, message: str) -> dict[str, str]:
    return {"rule": rule, "message": message}


def rules(*rules: dict[str, str]) -> dict[str, Any]:
    return {"x-kubernetes-validations": list(rules)}


def text(pattern: str, remedy: str, max_length: int | None = None) -> Any:
    """A string's Field. The rule repeats the pattern: the API server answers a pattern with the bare expression."""
    return Field(
        pattern=pattern,
        max_length=max_length,
        json_schema_extra=rules(rule(f"self.matches(r'{pattern}')", remedy)),
    )


class Spec(BaseModel):
    """Base of all parts: camelCase outside, unknown fields refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


_WORD = "start with a lower-case letter; then lower-case letters, digits and"
Name = Annotated[str, text(r"^[a-z][a-z0-9_]*$", f"{_WORD} _, as in customer", 30)]
FeatureName = Annotated[str, text(r"^[a-z][a-z0-9_]*$", f"{_WORD} _, as in customer_count_2h", 60)]
PolicyName = Annotated[str, text(r"^[a-z][a-z0-9-]*$", f"{_WORD} dashes, as in big-night", 60)]
FieldName = Annotated[str, Field(min_length=1, max_length=100)]
Duration = Annotated[
    str, text(durations.PATTERN, "write a positive number and ms, s, m, h or d, as in 5m", 12)
]
BY_NAME: dict[str, Any] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}


class SecretRef(Spec):
    """A Secret in the detector's namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)] = Field(description="Name of the Secret.")
