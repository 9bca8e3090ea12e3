"""What a feature set is, as plain frozen types: the resource's declaration with the preset written out and durations in
milliseconds. The engine needs no more of it, and computes what ``fraud_contracts.feature_set.check`` lets pass.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

from fraud_contracts import durations
from fraud_contracts.detector import DetectorSpec
from fraud_contracts.detector_event import Feature, FieldType
from fraud_contracts.feature_kinds import Aggregate, Transform
from fraud_contracts.feature_set import ENGINE_VERSION, all_features, feature_set_hash, where_value
from fraud_contracts.lifetimes import LATENESS
from fraud_pipelines.features.grid import K
from fraud_pipelines.features.plan import AMOUNT, Where

EVENT_AMOUNT: Final = (
    "Amount"  # stands for a transform in the vector's place that holds the event's own amount
)


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
    of a window longer by less than a thirtieth: so counts of busy keys are bounded in time, not exact. All aggregates of
    an event without that entity are NaN.
    """

    name: str
    entity: str | None = None
    aggregate: Aggregate | None = None
    transform: Transform | str | None = None
    of: str | None = None
    window_ms: int | None = None
    where: Where | None = None
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


def from_detector(spec: DetectorSpec) -> FeatureSetSpec:
    """The feature set of a detector in which ``feature_set.check`` finds no fault."""
    kinds = {field.name: field.type for field in spec.event.fields}
    return FeatureSetSpec(
        preset=str(spec.features.preset),
        entities=tuple(
            EntitySpec(e.name, None if e.label_delay is None else durations.to_ms(e.label_delay))
            for e in spec.entities
        ),
        features=tuple(_plain(feature, kinds) for feature in all_features(spec.features, spec.entities)),
        fields=tuple((name, str(kind)) for name, kind in kinds.items()),
        identity=feature_set_hash(spec),
    )


def _plain(feature: Feature, kinds: Mapping[str, FieldType]) -> FeatureSpec:
    where = None
    if feature.where is not None:
        where = (feature.where.field, where_value(feature.where, kinds[feature.where.field]))
    return FeatureSpec(
        name=feature.name,
        entity=feature.entity,
        aggregate=feature.aggregate,
        transform=EVENT_AMOUNT if feature.name == AMOUNT else feature.transform,
        of=feature.of,
        window_ms=None if feature.window is None else durations.to_ms(feature.window),
        where=where,
        args=tuple(feature.args or ()),
    )
