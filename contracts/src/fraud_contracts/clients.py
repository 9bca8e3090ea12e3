"""The clients document: who may call a detector's API, as one mounted JSON file that changes while a process runs.

The operator writes it into the Secret ``names.clients``. It holds the keys' hashes only, so a door that is broken into gives
no key away.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Final

from pydantic import Field

from fraud_contracts.config import Mounted
from fraud_contracts.detector_clients import Scope

CLIENTS_ENV: Final = "FRAUD_CLIENTS"
CLIENTS_PATH: Final = "/etc/fraud/clients/clients.json"
CLIENTS_KEY: Final = "clients.json"
# The entry of a client's Secret that the operator makes; whoever rotates adds others.
API_KEY: Final = "API_KEY"
MIN_KEY_CHARACTERS: Final = 16

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class ClientAccess(Mounted):
    """What each key of one client opens; ``requests_per_second`` is of each key, None without a limit."""

    name: str
    scopes: tuple[Scope, ...]
    hashes: tuple[Sha256, ...]
    requests_per_second: Annotated[int, Field(ge=1)] | None = None

    def opens(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.ADMIN in self.scopes


class ClientsDocument(Mounted):
    clients: tuple[ClientAccess, ...] = ()

    def to_json(self) -> str:
        return self.model_dump_json(exclude_none=True, indent=1)


def hash_key(key: bytes) -> str:
    """SHA-256 in hex. Plain, since it is computed for each request: the keys are random and long, so nobody guesses them."""
    return hashlib.sha256(key).hexdigest()
