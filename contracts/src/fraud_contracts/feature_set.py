"""The identity of a feature set, and the checks on it that CEL can't make.

The operator names children after the hash and the engine stamps it into every vector and profile, so it is made here,
from the resource's own JSON, and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from fraud_contracts import durations
from fraud_contracts.detector import (
    Aggregate,
    DetectorSpec,
    Entity,
    EventField,
    Features,
    FieldType,
    Transform,
    dump,
)
from fraud_contracts.errors import SpecError

# Raise it whenever the same declaration would give other bits: another grid, another K, another rule for late events.
ENGINE_VERSION: Final = 1


def feature_set_hash(spec: DetectorSpec) -> str:
    """64 hex characters over what decides a vector: entities, declared fields, amount's scale, features, engine version."""
    return identity_of(spec.features, spec.entities, spec.event.fields, spec.event.amount.scale)


def identity_of(features: Features, entities: list[Entity], fields: list[EventField], scale: int) -> str:
    """``feature_set_hash`` of a spec's parts, for callers that hold no whole spec."""
    whole: dict[str, Any] = {
        "engine": ENGINE_VERSION,
        "scale": scale,
        "entities": [{"name": e.name, "labelDelay": e.label_delay} for e in entities],
        "fields": [{"name": f.name, "type": f.type} for f in fields],
        "preset": features.preset,
        "extra": [dump(feature) for feature in features.extra],
    }
    return hashlib.sha256(json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def hash6(feature_set: str) -> str:
    """The short form that names of children and profile keys carry."""
    return feature_set[:6]


def check(spec: DetectorSpec) -> list[SpecError]:
    """What is wrong with the features: unknown or unfit fields, entities and operands. Empty where all is well."""
    found: list[SpecError] = []
    fields = {field.name: field.type for field in spec.event.fields}
    entities = {entity.name: entity for entity in spec.entities}
    used = {spec.event.id.field, spec.event.time.field}
    for i, field in enumerate(spec.event.fields):
        if field.name in used:
            found.append(
                SpecError(
                    f"spec.event.fields[{i}].name",
                    f"{field.name!r} is the event's id or time already; leave it out",
                )
            )
    entity_fields = [entity.field for entity in spec.entities]
    for i, entity in enumerate(spec.entities):
        if entity_fields.count(entity.field) > 1:
            found.append(
                SpecError(
                    f"spec.entities[{i}].field",
                    f"{entity.field!r} is another entity's field too; give each its own",
                )
            )
    numeric = {"amount"} | {name for name, kind in fields.items() if kind is FieldType.INTEGER}
    for i, feature in enumerate(spec.features.extra):
        path = f"spec.features.extra[{i}]"
        if feature.entity is not None and feature.entity not in entities:
            found.append(
                SpecError(f"{path}.entity", f"{feature.entity!r} is not one of {', '.join(entities)}")
            )
        if feature.of is not None:
            if feature.aggregate is Aggregate.DISTINCT:
                if feature.of not in fields and feature.of not in entities:
                    found.append(
                        SpecError(
                            f"{path}.of",
                            f"{feature.of!r} is no declared field or entity; add it to spec.event.fields",
                        )
                    )
            elif feature.of not in numeric:
                found.append(
                    SpecError(
                        f"{path}.of",
                        f"{feature.of!r} can't be added up: write amount or a declared integer field",
                    )
                )
        if feature.where is not None and feature.where.field not in fields:
            found.append(
                SpecError(
                    f"{path}.where.field",
                    f"{feature.where.field!r} is not declared; add it to spec.event.fields",
                )
            )
        if feature.window is not None and durations.to_ms(feature.window) > durations.to_ms("400d"):
            found.append(SpecError(f"{path}.window", "a window can't be longer than 400d"))
        if feature.aggregate in (Aggregate.FRAUD_COUNT, Aggregate.FRAUD_RATE):
            labelled = entities.get(feature.entity or "")
            if labelled is not None and labelled.label_delay is None:
                found.append(
                    SpecError(
                        f"{path}.aggregate",
                        f"{feature.aggregate} needs labelDelay on the entity {labelled.name!r}",
                    )
                )
        if feature.transform in (Transform.HOUR, Transform.NIGHT, Transform.WEEKEND) and feature.args:
            found.append(
                SpecError(f"{path}.args", f"{feature.transform} takes no args; it reads the event's time")
            )
    return found
