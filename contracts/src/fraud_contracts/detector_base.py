"""What every part of the FraudDetector's types shares: the base class, names, durations, CEL rules."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from fraud_contracts import durations


def rule(rule: str, message: str) -> dict[str, str]:
    return {"rule": rule, "message": message}


def rules(*rules: dict[str, str], **more: Any) -> dict[str, Any]:
    return {"x-kubernetes-validations": list(rules), **more}


class Spec(BaseModel):
    """Base of all parts: camelCase outside, unknown fields refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=30)]
FieldName = Annotated[str, Field(min_length=1, max_length=100)]
Duration = Annotated[str, Field(pattern=durations.PATTERN, max_length=12)]
BY_NAME: dict[str, Any] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
