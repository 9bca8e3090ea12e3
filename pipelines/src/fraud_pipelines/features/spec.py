"""What a feature set is, as plain frozen types, and the checks that make a declared one safe to compile.

The custom resource's own types are in contracts; these are what the engine needs of them, with durations in
milliseconds and the preset written out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from pydantic import ValidationError

from fraud_contracts import durations
from fraud_contracts.detector import DetectorSpec
from fraud_contracts.detector_event import Entity, EventField, Feature, Features, FieldType, Preset
from fraud_contracts.errors import SpecError
from fraud_contracts.feature_set import ENGINE_VERSION, identity_of
from fraud_pipelines.features.grid import DAY, LATENESS, K
from fraud_pipelines.features.plan import AMOUNT

LONGEST: Final = 400 * DAY
SUMMED: Final = ("Sum", "Mean", "Min", "Max")
FRAUD: Final = ("FraudCount", "FraudRate")
AGGREGATES: Final = ("Count", *SUMMED, "Distinct", "SecondsSinceLast", *FRAUD)
TIMED: Final = ("Hour", "Night", "Weekend")
TRANSFORMS: Final = ("Amount", "Ratio", "Difference", *TIMED, "Equals")


class FeatureSpecError(SpecError):
    """A feature that can't be computed; ``path`` names the field, ``message`` says what to write instead."""


@dataclass(frozen=True)
class EntitySpec:
    """``label_delay_ms``: how long after the event a fraud label of this entity counts; None where labels aren't used."""

    name: str
    label_delay_ms: int | None = None


@dataclass(frozen=True)
class FeatureSpec:
    """One value of the vector: an ``aggregate`` of an entity, or a ``transform`` of the event and other features.

    Aggregates are read over the window ``(t - window, t]``, the event itself included, of one entity's events, those
    where ``where`` (field, value) holds. All are float64, null is NaN. Past K events of a key a value is the exact one
    of a window longer by less than a thirtieth: so counts of busy keys are bounded in time, not exact.

    ============================  ================================  ==========================================
    Count                         events                            never null; at least 1 without ``where``
    Sum of amount, integer        minor units, the field's unit     never null; a null field adds nothing; exact,
                                                                    up to 64 bits, where it stands still
    Mean of amount, integer       minor units, the field's unit     NaN without a value
    Min, Max of amount, integer   minor units, the field's unit     NaN without a value
    Distinct of field, entity     values                            never null; nulls don't count; a lower bound
                                                                    past K values in the retained time, and for
                                                                    late events
    SecondsSinceLast              seconds since the event before    NaN without one within ``window``, else within
                                                                    the entity's longest window
    FraudCount                    fraud labels of events in         never null; labels known by ``t`` alone
                                  ``(t - delay - window,
                                  t - delay]``
    FraudRate                     FraudCount / Count of the same    NaN without an event in it
                                  delayed window
    Amount                        minor units                       never null
    Ratio, Difference of args     a / b, a - b                      NaN where either is, and for b = 0
    Hour, Night, Weekend          0-23 UTC; 1 before 06:00; 1 on    never null
                                  Saturday and Sunday
    Equals of where               1 or 0                            NaN where the field is null
    ============================  ================================  ==========================================

    All aggregates of an event without that entity are NaN.
    """

    name: str
    entity: str | None = None
    aggregate: str | None = None
    transform: str | None = None
    of: str | None = None
    window_ms: int | None = None
    where: tuple[str, Any] | None = None
    args: tuple[str, ...] = ()


@dataclass(frozen=True)
class FeatureSetSpec:
    """``features`` in the vector's order, preset first. ``identity`` is the hash that contracts gives to the declaration.

    ``k`` and ``lateness_ms`` belong to the engine's version; other values are for tests.
    """

    preset: str
    entities: tuple[EntitySpec, ...]
    features: tuple[FeatureSpec, ...]
    fields: tuple[tuple[str, str], ...] = ()
    identity: str | None = None
    k: int = K
    lateness_ms: int = LATENESS

    def hash(self) -> str:
        """64 hex characters: the declaration's identity, or one over the canonical form where there is no declaration."""
        if self.identity is not None and (self.k, self.lateness_ms) == (K, LATENESS):
            return self.identity
        text = json.dumps({"engine": ENGINE_VERSION, **asdict(self)}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def check(spec: FeatureSetSpec, paths: Mapping[str, str] | None = None) -> None:
    """FeatureSpecError for the first feature that can't be computed. ``paths``: where each feature was declared, by name."""
    entities = {entity.name: entity for entity in spec.entities}
    if not 1 <= len(entities) == len(spec.entities) <= 4:
        raise FeatureSpecError("spec.entities", "give one to four entities, each with a name of its own")
    if spec.k < 1 or spec.lateness_ms < 0:
        raise FeatureSpecError("spec.features", "k must be at least 1 and lateness at least 0")
    fields, names = dict(spec.fields), {AMOUNT}
    for feature in spec.features:
        path = (paths or {}).get(feature.name, f"spec.features.{feature.name}")
        if feature.name in names and not (feature.name == AMOUNT and feature.transform == "Amount"):
            raise FeatureSpecError(
                f"{path}.name",
                f"{feature.name!r} is taken, by the preset or an earlier feature; choose another",
            )
        if (feature.aggregate is None) == (feature.transform is None):
            raise FeatureSpecError(path, "give aggregate or transform, exactly one")
        if feature.where is not None and feature.where[0] not in fields:
            raise FeatureSpecError(
                f"{path}.where.field", f"{feature.where[0]!r} is not declared; add it to spec.event.fields"
            )
        if feature.aggregate is not None:
            _check_aggregate(feature, path, entities, fields)
        else:
            _check_transform(feature, path, names)
        names.add(feature.name)


def _check_aggregate(
    feature: FeatureSpec, path: str, entities: dict[str, EntitySpec], fields: dict[str, str]
) -> None:
    aggregate, of, window = feature.aggregate, feature.of, feature.window_ms
    if aggregate not in AGGREGATES:
        raise FeatureSpecError(f"{path}.aggregate", f"{aggregate!r} is not one of {', '.join(AGGREGATES)}")
    if feature.entity not in entities:
        raise FeatureSpecError(f"{path}.entity", f"{feature.entity!r} is not one of {', '.join(entities)}")
    if feature.args:
        raise FeatureSpecError(f"{path}.args", "an aggregate takes no args; write them in a transform")
    if window is None and aggregate != "SecondsSinceLast":
        raise FeatureSpecError(f"{path}.window", f"{aggregate} needs a window, as in 7d")
    if window is not None and not 0 < window <= LONGEST:
        raise FeatureSpecError(f"{path}.window", "a window must be longer than 0 and at most 400d")
    if aggregate in SUMMED:
        if of != AMOUNT and fields.get(of or "") != FieldType.INTEGER:
            raise FeatureSpecError(
                f"{path}.of", f"{of!r} can't be added up exactly: write amount or a declared integer field"
            )
    elif aggregate == "Distinct":
        if of not in fields and of not in entities:
            raise FeatureSpecError(
                f"{path}.of", f"{of!r} is no declared field or entity; add it to spec.event.fields"
            )
    elif of is not None:
        raise FeatureSpecError(f"{path}.of", f"{aggregate} takes no of; leave it out")
    if aggregate in FRAUD:
        if entities[feature.entity].label_delay_ms is None:
            raise FeatureSpecError(
                f"{path}.aggregate", f"{aggregate} needs labelDelay on the entity {feature.entity!r}"
            )
        if feature.where is not None:
            raise FeatureSpecError(f"{path}.where", "labels carry no fields; leave where out")


def _check_transform(feature: FeatureSpec, path: str, names: set[str]) -> None:
    transform = feature.transform
    if transform not in TRANSFORMS:
        raise FeatureSpecError(
            f"{path}.transform", f"{transform!r} is not one of {', '.join(TRANSFORMS[1:])}"
        )
    for key, given in (("entity", feature.entity), ("of", feature.of), ("window", feature.window_ms)):
        if given is not None:
            raise FeatureSpecError(f"{path}.{key}", f"a transform takes no {key}; leave it out")
    if transform in ("Ratio", "Difference"):
        if len(feature.args) != 2:
            raise FeatureSpecError(f"{path}.args", f"{transform} needs two args")
        for arg in feature.args:
            if arg not in names:
                raise FeatureSpecError(
                    f"{path}.args", f"{arg!r} is neither amount nor a feature declared before this one"
                )
    elif feature.args:
        raise FeatureSpecError(f"{path}.args", f"{transform} takes no args; leave them out")
    if (transform == "Equals") != (feature.where is not None):
        raise FeatureSpecError(f"{path}.where", "Equals needs where, and no other transform takes it")


def payments_v1(entities: tuple[EntitySpec, ...] | list[EntitySpec]) -> list[FeatureSpec]:
    """The features of preset ``payments/v1``, frozen for ever. Names follow the entities' names."""
    found: list[FeatureSpec] = []

    def add(entity: EntitySpec, measure: str, aggregate: str, window: str, of: str | None = None) -> None:
        name = f"{entity.name}_{measure}_{window}"
        found.append(FeatureSpec(name, entity.name, aggregate, of=of, window_ms=durations.to_ms(window)))

    for i, entity in enumerate(entities):
        if i == 0:
            for window in ("1h", "1d", "7d", "30d"):
                add(entity, "count", "Count", window)
                add(entity, "amount_sum", "Sum", window, AMOUNT)
                add(entity, "amount_mean", "Mean", window, AMOUNT)
            found.append(FeatureSpec(f"{entity.name}_seconds_since_last", entity.name, "SecondsSinceLast"))
            mean = f"{entity.name}_amount_mean_30d"
            found.append(
                FeatureSpec(f"{entity.name}_amount_ratio_30d", transform="Ratio", args=(AMOUNT, mean))
            )
        else:
            for window in ("1d", "7d", "30d"):
                add(entity, "count", "Count", window)
                if entity.label_delay_ms is None:
                    add(entity, "amount_sum", "Sum", window, AMOUNT)
        if entity.label_delay_ms is not None:
            for window in ("7d", "30d"):
                add(entity, "fraud_count", "FraudCount", window)
                add(entity, "fraud_rate", "FraudRate", window)
    found.append(FeatureSpec(AMOUNT, transform="Amount"))
    found.extend(FeatureSpec(name.lower(), transform=name) for name in TIMED)
    return found


def from_parts(
    features: Features, entities: list[Entity], fields: list[EventField], scale: int
) -> FeatureSetSpec:
    """From the custom resource's types, checked."""
    plain = tuple(
        EntitySpec(e.name, None if e.label_delay is None else durations.to_ms(e.label_delay))
        for e in entities
    )
    kinds = {field.name: field.type for field in fields}
    preset = payments_v1(plain) if features.preset is Preset.PAYMENTS_V1 else []
    paths = {feature.name: f"spec.features.extra[{i}]" for i, feature in enumerate(features.extra)}
    extra = [_plain(feature, kinds, paths[feature.name]) for feature in features.extra]
    spec = FeatureSetSpec(
        preset=str(features.preset),
        entities=plain,
        features=(*preset, *extra),
        fields=tuple((name, str(kind)) for name, kind in kinds.items()),
        identity=identity_of(features, entities, fields, scale),
    )
    check(spec, paths)
    return spec


def from_detector(spec: DetectorSpec) -> FeatureSetSpec:
    """The feature set of a detector; its hash is ``feature_set_hash`` of the same spec."""
    return from_parts(spec.features, spec.entities, spec.event.fields, spec.event.amount.scale)


def spec_from_detector(
    features: dict[str, Any], entities: list[dict[str, Any]], fields: list[dict[str, Any]], scale: int = 2
) -> FeatureSetSpec:
    """From the custom resource's JSON. ``scale`` is the amount's: it decides the hash, for it decides what a unit is."""
    try:
        path = "spec.features"
        typed = Features.model_validate(features)
        path = "spec.entities"
        typed_entities = [Entity.model_validate(entity) for entity in entities]
        path = "spec.event.fields"
        typed_fields = [EventField.model_validate(field) for field in fields]
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        raise FeatureSpecError(path + where, first["msg"]) from error
    return from_parts(typed, typed_entities, typed_fields, scale)


def _plain(feature: Feature, kinds: dict[str, FieldType], path: str) -> FeatureSpec:
    where = None
    if feature.where is not None:
        kind = kinds.get(feature.where.field, FieldType.STRING)
        where = (feature.where.field, _typed(feature.where.equals, kind, f"{path}.where.equals"))
    return FeatureSpec(
        name=feature.name,
        entity=feature.entity,
        aggregate=None if feature.aggregate is None else str(feature.aggregate),
        transform=None if feature.transform is None else str(feature.transform),
        of=feature.of,
        window_ms=None if feature.window is None else durations.to_ms(feature.window),
        where=where,
        args=tuple(feature.args or ()),
    )


def _typed(text: str, kind: FieldType, path: str) -> str | int | float | bool:
    """``equals`` is text in the resource; it is compared as a value of the field's type."""
    try:
        if kind is FieldType.INTEGER:
            return int(text)
        if kind is FieldType.NUMBER:
            return float(text)
    except ValueError:
        raise FeatureSpecError(path, f"{text!r} is no {kind}, which the field is; write a number") from None
    if kind is FieldType.BOOLEAN:
        if text not in ("true", "false"):
            raise FeatureSpecError(path, f"{text!r} is no boolean, which the field is; write true or false")
        return text == "true"
    return text
