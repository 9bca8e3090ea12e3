"""Edits that would destroy what a live detector holds, or leave it behind. The CRD's transition rules refuse most of them.

This is the operator's own check against the live children: for an object that was stored past the rules (under
an older CRD, or by a restore), and for what no rule can see, as a default of the platform's.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fraud_contracts import names
from fraud_contracts.config import CONFIG_KEY
from fraud_contracts.errors import SpecError
from fraud_operator import storage
from fraud_operator.detector import Detector
from fraud_operator.objects import ChildKey, Json
from fraud_operator.ownership import wrote


def check(detector: Detector, children: Mapping[ChildKey, Json]) -> list[SpecError]:
    """What the spec may not change any more; ``children`` are the live ones. Empty where all is well."""
    before = _document(detector, children)
    spec, errors = detector.spec, []
    old_spec = before.get("spec") or {}
    old_kafka, old_event = old_spec.get("kafka") or {}, old_spec.get("event") or {}
    old_amount = old_event.get("amount") or {}
    was_managed = ("Kafka", names.kafka(detector.name)) in children or "managed" in old_kafka
    if not detector.managed_kafka and was_managed:
        message = "the detector has a managed Kafka, whose topics hold its data: write managed again, or make a new detector"
        errors.append(SpecError("spec.kafka.external", message))
    if detector.managed_kafka and "external" in old_kafka:
        address = old_kafka["external"].get("bootstrapServers")
        message = (
            f"the detector's data is in the Kafka at {address}: write external again, or make a new detector"
        )
        errors.append(SpecError("spec.kafka.managed", message))
    fixed: list[tuple[str, Any, Any]] = [
        ("spec.kafka.partitions", old_kafka.get("partitions"), spec.kafka.partitions),
        ("spec.event.id.field", old_event.get("id", {}).get("field"), spec.event.id.field),
        ("spec.event.amount.scale", old_amount.get("scale"), spec.event.amount.scale),
        ("spec.event.amount.currency", old_amount.get("currency"), spec.event.amount.currency),
        (
            "spec.entities",
            _keys(old_spec.get("entities") or [], old_event.get("sensitive") or []),
            _keys([{"name": e.name, "field": e.field} for e in spec.entities], spec.event.sensitive),
        ),
        ("spec.storage.uri", before.get("storage_uri"), detector.storage_uri),
    ]  # fmt: skip
    for path, old, new in fixed:
        if old not in (None, "") and old != new:
            message = f"is {old} for the data that is there: write that again{_keys_for(detector, path, old)} or make a new detector"
            errors.append(SpecError(path, message))
    return errors


def _keys_for(detector: Detector, path: str, uri: str) -> str:
    """What an earlier URI wants beside it, once the platform's default, whose keys or role opened it, was moved."""
    if path != storage.FIELD:
        return ","
    faults = storage.faults(uri, str(detector.identity), detector.platform.storage)
    return ", with a secretRef that opens it," if storage.SECRET_FIELD in {f.path for f in faults} else ","


def _keys(entities: Sequence[Mapping[str, Any]], sensitive: Collection[str]) -> str:
    """What profiles are keyed by, in words."""
    kinds = {True: "the token of", False: "the value of"}
    return ", ".join(
        sorted(f"{e.get('name')} by {kinds[e.get('field') in sensitive]} {e.get('field')}" for e in entities)
    )


def _document(detector: Detector, children: Mapping[ChildKey, Json]) -> Mapping[str, Any]:
    """The detector document as we wrote it last; nothing where there is none, or where a hand has changed it since."""
    body = children.get(("ConfigMap", names.config(detector.name)))
    if body is None or not wrote(body, "f:data", f"f:{CONFIG_KEY}"):
        return {}
    try:
        document = json.loads(body["data"][CONFIG_KEY])
    except (KeyError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
