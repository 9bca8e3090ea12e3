"""Who may call a detector's API: its clients, what each may ask for, and how often."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field

from fraud_contracts.detector_base import SecretRef, Spec, rule, rules, text

# Of <detector>-client-<name>, which would otherwise be the Secret of a detector that is named <detector>-client.
RESERVED: Final = ("clients", "keys", "pull", "stores")
_SET: Final[dict[str, Any]] = {"x-kubernetes-list-type": "set"}


class Scope(StrEnum):
    """What a key opens. Admin opens all that the others do."""

    DECIDE = "Decide"
    LABEL = "Label"
    READ = "Read"
    ADMIN = "Admin"


class Client(Spec):
    """A caller of the decision service and the console, with keys of its own."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                f"!(self.name in {list(RESERVED)})",
                f"{', '.join(RESERVED)} are names of the operator's own Secrets; give the client another one",
            ),
        )
    )
    name: Annotated[
        str,
        text(
            r"^([a-z]|[a-z][a-z0-9-]*[a-z0-9])$",
            "start with a lower-case letter and end with a letter or digit; dashes between, as in web-shop",
            30,
        ),
    ] = Field(description="Name of the client; metrics carry it.")
    scopes: list[Scope] = Field(
        min_length=1,
        max_length=4,
        description="What its keys open: Decide is POST /v1/decisions, Label is POST /v1/labels, Read is every GET of the decision service and the console, Admin is all.",
        json_schema_extra=_SET,
    )
    requests_per_second: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Further requests get 429. Counted for each key, by each replica by itself; a second's worth may come at once. No limit where absent.",
    )
    secret_ref: SecretRef | None = Field(
        None,
        description="Secret each entry of which is a key, of 16 characters at least; where absent the operator makes one: the detector's name, -client- and this one.",
    )


def default_clients() -> list[Client]:
    return [
        Client(name="payments", scopes=[Scope.DECIDE]),
        Client(name="labels", scopes=[Scope.LABEL]),
        Client(name="analysts", scopes=[Scope.READ]),
        Client(name="admin", scopes=[Scope.ADMIN]),
    ]
