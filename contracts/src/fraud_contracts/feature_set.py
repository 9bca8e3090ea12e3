"""The identity of a feature set, and the checks on it that CEL can't make.

The operator names children after the hash and the engine stamps it into every vector and profile, so it is made here,
from the resource's own JSON, and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from fraud_contracts import durations
from fraud_contracts.detector import DetectorSpec, dump
from fraud_contracts.detector_event import (
    Aggregate,
    Entity,
    EventField,
    Feature,
    Features,
    FieldType,
    Preset,
    Transform,
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


def preset_names(features: Features, entities: list[Entity]) -> list[str]:
    """Names that the preset gives its features. The preset is frozen for ever, so this list of it can't go stale."""
    if features.preset is Preset.NONE:
        return []
    found = ["hour", "night", "weekend"]
    for i, entity in enumerate(entities):
        windows = ("1h", "1d", "7d", "30d") if i == 0 else ("1d", "7d", "30d")
        measures = ["count"]
        if i == 0:
            measures += ["amount_sum", "amount_mean"]
            found += [f"{entity.name}_seconds_since_last", f"{entity.name}_amount_ratio_30d"]
        elif entity.label_delay is None:
            measures += ["amount_sum"]
        found += [f"{entity.name}_{measure}_{window}" for measure in measures for window in windows]
        if entity.label_delay is not None:
            found += [f"{entity.name}_{m}_{w}" for m in ("fraud_count", "fraud_rate") for w in ("7d", "30d")]
    return found


def all_names(features: Features, entities: list[Entity]) -> list[str]:
    """Names of the whole set, in no order."""
    preset = [] if features.preset is Preset.NONE else ["amount", *preset_names(features, entities)]
    return [*preset, *(feature.name for feature in features.extra)]


def truth_names(features: Features) -> frozenset[str]:
    """Features that are yes or no; a rule sees them as booleans, so that ``features.night`` stands on its own."""
    preset = [] if features.preset is Preset.NONE else ["night", "weekend"]
    truths = (Transform.NIGHT, Transform.WEEKEND, Transform.EQUALS)
    return frozenset([*preset, *(f.name for f in features.extra if f.transform in truths)])


def check(spec: DetectorSpec) -> list[SpecError]:
    """What is wrong with the features: unknown or unfit fields, entities and operands. Empty where all is well.

    It finds at least what the engine would refuse, so that no process starts with a set that it can't compute.
    """
    found: list[SpecError] = []
    fields = {field.name: field.type for field in spec.event.fields}
    entities = {entity.name: entity for entity in spec.entities}
    used = {spec.event.id.field, spec.event.time.field}
    for i, field in enumerate(spec.event.fields):
        if field.name in used:
            message = f"{field.name!r} is the event's id or time already; leave it out"
            found.append(SpecError(f"spec.event.fields[{i}].name", message))
    entity_fields = [entity.field for entity in spec.entities]
    for i, entity in enumerate(spec.entities):
        if entity_fields.count(entity.field) > 1:
            message = f"{entity.field!r} is another entity's field too; give each its own"
            found.append(SpecError(f"spec.entities[{i}].field", message))
    taken = {"amount", *preset_names(spec.features, spec.entities)}
    for i, feature in enumerate(spec.features.extra):
        faults = _of_feature(feature, taken)
        faults += (
            _of_aggregate(feature, entities, fields) if feature.aggregate else _of_transform(feature, taken)
        )
        faults += _of_where(feature, fields)
        found += [SpecError(f"spec.features.extra[{i}].{part}", message) for part, message in faults]
        taken.add(feature.name)
    return found


def _of_feature(feature: Feature, taken: set[str]) -> list[tuple[str, str]]:
    if feature.name not in taken:
        return []
    return [("name", f"{feature.name!r} is taken, by the preset or an earlier feature; choose another")]


def _of_aggregate(
    feature: Feature, entities: dict[str, Entity], fields: dict[str, FieldType]
) -> list[tuple[str, str]]:
    aggregate, of, found = feature.aggregate, feature.of, []
    entity = entities.get(feature.entity or "")
    if entity is None:
        found.append(("entity", f"{feature.entity!r} is not one of {', '.join(entities)}"))
    if aggregate is Aggregate.DISTINCT:
        if of not in fields and of not in entities:
            found.append(("of", f"{of!r} is no declared field or entity; add it to spec.event.fields"))
    elif aggregate in (Aggregate.SUM, Aggregate.MEAN, Aggregate.MIN, Aggregate.MAX):
        if of != "amount" and fields.get(of or "") is not FieldType.INTEGER:
            found.append(("of", f"{of!r} can't be added up: write amount or a declared integer field"))
    elif of is not None:
        found.append(("of", f"{aggregate} takes no of; leave it out"))
    if feature.args:
        found.append(("args", "an aggregate takes no args; write them in a transform"))
    if feature.window is not None and durations.to_ms(feature.window) > durations.to_ms("400d"):
        found.append(("window", "a window can't be longer than 400d"))
    if aggregate in (Aggregate.FRAUD_COUNT, Aggregate.FRAUD_RATE):
        if entity is not None and entity.label_delay is None:
            found.append(("aggregate", f"{aggregate} needs labelDelay on the entity {entity.name!r}"))
        if feature.where is not None:
            found.append(("where", "labels carry no fields; leave where out"))
    return found


def _of_transform(feature: Feature, taken: set[str]) -> list[tuple[str, str]]:
    transform, found = feature.transform, []
    for part, given in (("entity", feature.entity), ("of", feature.of), ("window", feature.window)):
        if given is not None:
            found.append((part, f"a transform takes no {part}; leave it out"))
    if transform in (Transform.RATIO, Transform.DIFFERENCE):
        for arg in feature.args or []:
            if arg not in taken:
                found.append(("args", f"{arg!r} is neither amount nor a feature declared before this one"))
    elif feature.args:
        found.append(("args", f"{transform} takes no args; leave them out"))
    if transform is not Transform.EQUALS and feature.where is not None:
        found.append(("where", f"{transform} takes no where; leave it out"))
    return found


def _of_where(feature: Feature, fields: dict[str, FieldType]) -> list[tuple[str, str]]:
    if feature.where is None:
        return []
    field, value = feature.where.field, feature.where.equals
    kind = fields.get(field)
    if kind is None:
        return [("where.field", f"{field!r} is not declared; add it to spec.event.fields")]
    if kind is FieldType.BOOLEAN and value not in ("true", "false"):
        return [("where.equals", f"{value!r} is no boolean, which the field is; write true or false")]
    try:
        if kind is FieldType.INTEGER:
            int(value)
        elif kind is FieldType.NUMBER:
            float(value)
    except ValueError:
        return [("where.equals", f"{value!r} is no {kind}, which the field is; write a number")]
    return []
