"""The clients of a detector's API: their keys, read from their Secrets, and what decision service and console are told of them.

A Secret that the spec names no other for is made once, with one random key, and never rewritten: whoever rotates adds an entry,
moves the client over, and takes the old entry out.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from fraud_contracts.child_kinds import SECRET
from fraud_contracts.clients import (
    API_KEY,
    MIN_KEY_CHARACTERS,
    ClientAccess,
    ClientsDocument,
    hash_key,
)
from fraud_contracts.detector_clients import Client, default_clients
from fraud_operator.desired.child import ClientKeys
from fraud_operator.desired.documents import secret_data
from fraud_operator.detector import Detector, DetectorKey
from fraud_operator.facts import Facts, Lacking
from fraud_operator.kube import Kube
from fraud_operator.ownership import is_of_another
from fraud_operator.references import NOT_IN_A_HEADER

# The entry that holds the one key which opened everything before there were clients.
OLD_API_KEY: Final = "API_KEY_BEFORE_CLIENTS"
_BY_DEFAULT: Final = tuple((client.name, client.scopes) for client in default_clients())
# A Secret's ``data``: entry to value in base64.
Data = Mapping[str, str]


def new_client_key() -> str:
    """192 random bits that a header may hold."""
    return secrets.token_urlsafe(24)


def usable_keys(where: str, data: Data) -> tuple[tuple[str, ...], list[Lacking]]:
    """The hashes of all keys that may be used, and what is wrong with the others. ``where`` names field and Secret."""
    hashes, lacking = [], []
    for entry, encoded in sorted(data.items()):
        key = base64.b64decode(encoded)
        remedy = "it is refused; put in another, as openssl rand -hex 24 writes it"
        if len(key) < MIN_KEY_CHARACTERS:
            what = f"{where}: {entry} has fewer than {MIN_KEY_CHARACTERS} characters: {remedy}"
            lacking.append(Lacking("ClientKeyTooShort", what))
        elif NOT_IN_A_HEADER.search(key.decode("latin-1")):
            what = f"{where}: {entry} has a line break, a space or another character that no header holds: {remedy}"
            lacking.append(Lacking("SecretKeyBroken", what))
        else:
            hashes.append(hash_key(key))
    if not data:
        lacking.append(
            Lacking("ClientKeyMissing", f"{where} holds no key, so the client is refused; put one in")
        )
    return tuple(hashes), lacking


@dataclass
class Clients:
    """``_made`` holds by detector, with its UID, the Secrets' data by client, so that a deleted one comes back as it was."""

    kube: Kube
    _made: dict[DetectorKey, tuple[str, dict[str, Data]]] = field(default_factory=dict)

    def add(self, detector: Detector, facts: Facts, keys: Mapping[str, str] | None) -> Facts:
        """The facts with the clients' keys and with what lacks. ``keys`` are the detector's, maybe with an old API key."""
        key = (detector.namespace, detector.name)
        uid, before = self._made.get(key, ("", {}))
        made: dict[str, Data] = {}
        access, lacking = [], list(facts.lacking)
        for i, client in enumerate(detector.spec.clients):
            secret = self.kube.get(SECRET, detector.namespace, detector.client_secret(client))
            where = f"spec.clients[{i}]: Secret {detector.client_secret(client)} in {detector.namespace}"
            data = None if secret is None else secret.get("data") or {}
            if client.secret_ref is None:
                if secret is not None and is_of_another(secret, detector.name):
                    made[client.name] = {}  # applying it tells of the name that is taken
                    continue
                if data is None:
                    kept = before.get(client.name) if uid == detector.uid else None
                    data = kept or _new_data(client, keys)
                made[client.name] = data
            if data is None:
                command = (
                    f"kubectl -n {detector.namespace} create secret generic {detector.client_secret(client)}"
                )
                remedy = f"make it with a key of {MIN_KEY_CHARACTERS} characters or more: {command} --from-literal={API_KEY}=..."
                lacking.append(Lacking("SecretMissing", f"{where} isn't there; {remedy}"))
                continue
            hashes, faults = usable_keys(where, data)
            lacking += faults
            access.append(
                ClientAccess(
                    name=client.name,
                    scopes=tuple(client.scopes),
                    hashes=hashes,
                    requests_per_second=client.requests_per_second,
                )
            )
        self._made[key] = detector.uid, made
        document = ClientsDocument(clients=tuple(access))
        return replace(facts, lacking=tuple(lacking), clients=ClientKeys(document, made))

    def forget(self, namespace: str, name: str) -> None:
        self._made.pop((namespace, name), None)


def _new_data(client: Client, keys: Mapping[str, str] | None) -> Data:
    """One new key; of a detector from before there were clients also its API key, as long as its Secret has that."""
    values = {API_KEY: new_client_key()}
    old = (keys or {}).get(API_KEY)
    if old is not None and (client.name, client.scopes) in _BY_DEFAULT:
        values[OLD_API_KEY] = old
    return secret_data(values)
