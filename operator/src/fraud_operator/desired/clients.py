"""The Secrets of the API's clients: their keys, which people read, and the document of hashes, which Pods mount."""

from __future__ import annotations

from fraud_contracts import names
from fraud_contracts.clients import CLIENTS_KEY
from fraud_operator.desired.child import Child, Wanted, child, metadata
from fraud_operator.desired.documents import secret_data
from fraud_operator.detector import Detector


def build_client_secrets(detector: Detector, wanted: Wanted) -> list[Child]:
    """Made once and never rewritten: the keys in them are changed by whoever rotates them."""
    return [
        child(
            "v1",
            "Secret",
            metadata(detector, names.client(detector.name, client), "client", owned=not detector.retained),
            once=True,
            type="Opaque",
            data=dict(data),
        )
        for client, data in wanted.clients.made.items()
    ]


def build_clients(detector: Detector, wanted: Wanted) -> list[Child]:
    """What the doors are told of all keys: hashes, scopes and limits."""
    meta = metadata(detector, names.clients(detector.name), "clients")
    data = secret_data({CLIENTS_KEY: wanted.clients.document.to_json()})
    return [child("v1", "Secret", meta, type="Opaque", data=data)]
