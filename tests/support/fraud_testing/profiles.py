"""Events and profiles of the preset payments/v1, for tests of a profile's bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fraud_contracts.detector import parse_spec
from fraud_pipelines.features import EntitySpec, FeatureSet, from_detector
from fraud_pipelines.features.plan import hash64
from fraud_pipelines.features.stage import event_hash

HOUR, DAY = 3_600_000, 86_400_000
START = 1_700_000_000_000
ENTITIES = (EntitySpec("customer"), EntitySpec("counterparty", 7 * DAY))
PRESET = from_detector(
    parse_spec(
        {
            "event": {"id": {"field": "id"}, "time": {"field": "time"}, "amount": {"field": "amount"}},
            "entities": [
                {"name": "customer", "field": "customer"},
                {"name": "counterparty", "field": "shop", "labelDelay": "7d"},
            ],
        }
    )
)


def payments(k: int = 128) -> FeatureSet:
    return FeatureSet(replace(PRESET, identity=None, k=k))


def event(
    n: int, time: int, amount: int = 100, customer: str = "a", counterparty: str | None = "m"
) -> dict[str, Any]:
    return {
        "id": f"tx{n}",
        "time": time,
        "amount": amount,
        "currency": "USD",
        "entities": {"customer": customer, "counterparty": counterparty},
        "fields": {},
    }


def label(of: dict[str, Any], known: int, fraud: bool = True) -> dict[str, Any]:
    return {"id": of["id"], "time": of["time"], "entities": of["entities"], "fraud": fraud, "known": known}


def busy(features: FeatureSet, n: int = 300) -> dict[str, bytes]:
    """Profiles with single events, cells and labels."""
    states: dict[str, bytes] = {}
    for i in range(n):
        body = event(i, START + i * HOUR, 100 + i)
        _, new, _ = features.observe(states, body)
        states.update(new)
        if i % 5 == 0:
            stage = features.stage("counterparty")
            states["counterparty"] = stage.label(states["counterparty"], label(body, body["time"] + DAY))
    return states


def summed(*bodies: dict[str, Any], start: int = 0) -> int:
    """The digest after these events, from one of ``start`` on."""
    return (start + sum(event_hash(body, hash64(body["id"])) for body in bodies)) % 2**64
