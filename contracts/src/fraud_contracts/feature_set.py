"""The identity of a feature set, and the checks on it that CEL can't make.

The operator names children after the hash and the engine stamps it into every vector and profile, so it is made here,
from the resource's own JSON, and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fraud_contracts import durations
from fraud_contracts.detector import DetectorSpec, dump
from fraud_contracts.detector_event import Entity, Feature, Features, FieldType, Preset, Where
from fraud_contracts.errors import SpecError
from fraud_contracts.feature_kinds import Aggregate, Of, Transform
from fraud_contracts.preset_payments_v1 import AMOUNT, payments_v1

# Raise it whenever the same declaration would give other bits: another grid, another K, another rule for late events.
ENGINE_VERSION: Final = 1
LONGEST_WINDOW: Final = "400d"

Fault = tuple[str, str]  # (part of the feature, remedy); the part is empty where it is the feature as a whole


def feature_set_hash(spec: DetectorSpec) -> str:
    """64 hex characters over what decides a vector: entities, declared fields, amount's scale, features, engine version."""
    whole: dict[str, Any] = {
        "engine": ENGINE_VERSION,
        "scale": spec.event.amount.scale,
        "entities": [{"name": e.name, "labelDelay": e.label_delay} for e in spec.entities],
        "fields": [{"name": f.name, "type": f.type} for f in spec.event.fields],
        "preset": spec.features.preset,
        "extra": [dump(feature) for feature in spec.features.extra],
    }
    return hashlib.sha256(json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def hash6(feature_set: str) -> str:
    """The short form that names of children and profile keys carry."""
    return feature_set[:6]


def all_features(features: Features, entities: Sequence[Entity]) -> list[Feature]:
    """The whole set, the preset first, in the vector's order."""
    preset = payments_v1(entities) if features.preset is Preset.PAYMENTS_V1 else []
    return [*preset, *features.extra]


def all_names(features: Features, entities: Sequence[Entity]) -> list[str]:
    """Names of the whole set, in the vector's order."""
    return [feature.name for feature in all_features(features, entities)]


def truth_names(features: Features) -> frozenset[str]:
    """Features that are yes or no; a rule sees them as booleans, so that ``features.night`` stands on its own."""
    return frozenset(
        feature.name
        for feature in all_features(features, entities=())  # of an entity there are numbers only
        if feature.transform is not None and feature.transform.entry.is_truth
    )


def check(spec: DetectorSpec) -> list[SpecError]:
    """What is wrong with the features: unknown or unfit fields, entities and operands. Empty where all is well.

    The one check there is: the operator shows what it says, and no process compiles a set in which it finds a fault.
    """
    errors: list[SpecError] = []
    fields = {field.name: field.type for field in spec.event.fields}
    entities = {entity.name: entity for entity in spec.entities}
    used = {spec.event.id.field, spec.event.time.field}
    for i, field in enumerate(spec.event.fields):
        if field.name in used:
            message = f"{field.name!r} is the event's id or time already; leave it out"
            errors.append(SpecError(f"spec.event.fields[{i}].name", message))
    entity_fields = [entity.field for entity in spec.entities]
    for i, entity in enumerate(spec.entities):
        if entity_fields.count(entity.field) > 1:
            message = f"{entity.field!r} is another entity's field too; give each its own"
            errors.append(SpecError(f"spec.entities[{i}].field", message))
    preset = Features(preset=spec.features.preset)
    declared = {AMOUNT, *all_names(preset, spec.entities)}
    for i, feature in enumerate(spec.features.extra):
        path = f"spec.features.extra[{i}]"
        faults = _faults(feature, declared, entities, fields)
        errors += [SpecError(f"{path}.{part}" if part else path, message) for part, message in faults]
        declared.add(feature.name)
    return errors


def _faults(
    feature: Feature, declared: set[str], entities: Mapping[str, Entity], fields: Mapping[str, FieldType]
) -> list[Fault]:
    faults: list[Fault] = []
    if feature.name in declared:
        message = f"{feature.name!r} is taken, by the preset or an earlier feature; choose another"
        faults.append(("name", message))
    if feature.aggregate is not None and feature.transform is None:
        faults += _of_aggregate(feature, feature.aggregate, entities, fields)
    elif feature.transform is not None and feature.aggregate is None:
        faults += _of_transform(feature, feature.transform, declared)
    else:
        faults.append(("", "give aggregate or transform, exactly one"))
    return faults + _of_where(feature, fields)


def _of_aggregate(
    feature: Feature, aggregate: Aggregate, entities: Mapping[str, Entity], fields: Mapping[str, FieldType]
) -> list[Fault]:
    of, entry = feature.of, aggregate.entry
    faults: list[Fault] = []
    entity = entities.get(feature.entity or "")
    if entity is None:
        faults.append(("entity", f"{feature.entity!r} is not one of {', '.join(entities)}"))
    if entry.of is Of.VALUE and of not in fields and of not in entities:
        faults.append(("of", f"{of!r} is no declared field or entity; add it to spec.event.fields"))
    if entry.of is Of.NUMBER and of != AMOUNT and fields.get(of or "") is not FieldType.INTEGER:
        faults.append(("of", f"{of!r} can't be added up: write amount or a declared integer field"))
    if entry.of is None and of is not None:
        faults.append(("of", f"{aggregate} takes no of; leave it out"))
    if feature.args:
        faults.append(("args", "an aggregate takes no args; write them in a transform"))
    if feature.window is None and entry.needs_window:
        faults.append(("window", f"{aggregate} needs a window, as in 7d"))
    if feature.window is not None and durations.to_ms(feature.window) > durations.to_ms(LONGEST_WINDOW):
        faults.append(("window", f"a window can't be longer than {LONGEST_WINDOW}"))
    if entry.needs_labels and entity is not None and entity.label_delay is None:
        faults.append(("aggregate", f"{aggregate} needs labelDelay on the entity {entity.name!r}"))
    if entry.needs_labels and feature.where is not None:
        faults.append(("where", "labels carry no fields; leave where out"))
    return faults


def _of_transform(feature: Feature, transform: Transform, declared: set[str]) -> list[Fault]:
    entry, args = transform.entry, feature.args or []
    faults: list[Fault] = []
    for part, value in (("entity", feature.entity), ("of", feature.of), ("window", feature.window)):
        if value is not None:
            faults.append((part, f"a transform takes no {part}; leave it out"))
    if args and not entry.args:
        faults.append(("args", f"{transform} takes no args; leave them out"))
    elif len(args) != entry.args:
        faults.append(("args", f"{transform} needs two args"))
    for arg in args if entry.args else []:
        if arg not in declared:
            faults.append(("args", f"{arg!r} is neither amount nor a feature declared before this one"))
    if entry.needs_where and feature.where is None:
        faults.append(("where", f"{transform} needs where: write field and equals"))
    if feature.where is not None and not entry.needs_where:
        faults.append(("where", f"{transform} takes no where; leave it out"))
    return faults


def _of_where(feature: Feature, fields: Mapping[str, FieldType]) -> list[Fault]:
    if feature.where is None:
        return []
    kind = fields.get(feature.where.field)
    if kind is None:
        message = f"{feature.where.field!r} is not declared; add it to spec.event.fields"
        return [("where.field", message)]
    try:
        where_value(feature.where, kind)
    except ValueError as error:
        return [("where.equals", str(error))]
    return []


def where_value(where: Where, kind: FieldType) -> str | int | float | bool:
    """What the field is compared with: ``equals`` is text, the value is of the field's type. ValueError where it isn't."""
    text = where.equals
    if kind is FieldType.BOOLEAN:
        if text not in ("true", "false"):
            raise ValueError(f"{text!r} is no boolean, which the field is; write true or false")
        return text == "true"
    try:
        if kind is FieldType.INTEGER:
            return int(text)
        if kind is FieldType.NUMBER:
            return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no {kind}, which the field is; write a number") from None
    return text
