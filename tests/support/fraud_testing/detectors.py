"""Detector documents for tests of the data path: a whole spec, with the feature set's real identity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fraud_contracts.config import DetectorConfig
from fraud_contracts.detector import parse_spec
from fraud_contracts.feature_set import feature_set_hash

SPEC: dict[str, Any] = {
    "event": {
        "id": {"field": "id"},
        "time": {"field": "time", "unit": "ms", "maxFutureSkew": "5m"},
        "amount": {"field": "amount", "scale": 2, "currency": "EUR"},
        "fields": [{"name": "category", "type": "string"}],
        "sensitive": ["card"],
    },
    "entities": [
        {"name": "customer", "field": "card"},
        {"name": "counterparty", "field": "merchant", "labelDelay": "7d"},
    ],
    "features": {
        "extra": [
            {
                "name": "travel_7d",
                "entity": "customer",
                "aggregate": "Sum",
                "of": "amount",
                "window": "7d",
                "where": {"field": "category", "equals": "travel"},
            }
        ]
    },
    "model": {"none": {}},
    "storage": {"uri": "file:///tmp/fraud"},
}

# Of the simulator's payments, as its files have them.
SIMULATED: dict[str, Any] = {
    "event": {
        "id": {"field": "transaction_id"},
        "time": {"field": "timestamp"},
        "amount": {"field": "amount", "currency": "EUR"},
        "fields": [{"name": "category"}, {"name": "channel"}],
        "sensitive": ["card"],
    },
    "entities": [
        {"name": "customer", "field": "card"},
        {"name": "counterparty", "field": "merchant_id", "labelDelay": "3d"},
    ],
}


def detector(
    bootstrap: str, partitions: int = 1, namespace: str = "tests", name: str = "cards", **changes: Any
) -> DetectorConfig:
    """The document that the operator would write for SPEC; ``changes`` replace top-level parts of the spec."""
    return document({**SPEC, **changes}, bootstrap, partitions, "file:///tmp/fraud", namespace, name)


def document(
    spec: dict[str, Any],
    bootstrap: str = "nowhere:9092",
    partitions: int = 1,
    storage_uri: str = "file:///tmp/fraud",
    namespace: str = "payments",
    name: str = "cards",
    **more: Any,
) -> DetectorConfig:
    """The document that the operator would write for a spec."""
    parsed = parse_spec(spec)
    return DetectorConfig.model_validate(
        {
            "namespace": namespace,
            "name": name,
            "uid": "11111111-2222-3333-4444-555555555555",
            "spec": parsed.model_dump(mode="json", by_alias=True, exclude_none=True),
            "feature_set": feature_set_hash(parsed),
            "kafka": {"bootstrap_servers": bootstrap, "partitions": partitions},
            "storage_uri": storage_uri,
            **more,
        }
    )


def write(config: DetectorConfig, folder: Path) -> Path:
    """The mounted file; FRAUD_CONFIG names it."""
    return replace_whole(folder / "detector.json", config.to_json())


def replace_whole(path: Path, text: str) -> Path:
    """Writes a file as the kubelet does: a process that reads it at this moment finds the old text or the new."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    return new.replace(path)
