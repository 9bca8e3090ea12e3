"""From a declared feature set to one that can be compiled: what is refused, and with which words."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from fraud_contracts.detector import DetectorSpec, parse_spec
from fraud_contracts.detector_event import Entity
from fraud_contracts.errors import SpecError
from fraud_contracts.feature_kinds import Aggregate, Transform
from fraud_contracts.feature_set import feature_set_hash
from fraud_contracts.preset_payments_v1 import payments_v1
from fraud_pipelines.features import (
    EntitySpec,
    FeatureSet,
    FeatureSetSpec,
    FeatureSpec,
    compile_detector,
)
from fraud_pipelines.features.aggregates import OVER_EVENTS, OVER_LABELS
from fraud_pipelines.features.transforms import EXPRESSIONS

ENTITIES: list[dict[str, Any]] = [
    {"name": "card", "field": "pan"},
    {"name": "shop", "field": "merchant", "labelDelay": "7d"},
    {"name": "device", "field": "device_id"},
]
FIELDS = [
    {"name": "category", "type": "string"},
    {"name": "items", "type": "integer"},
    {"name": "distance", "type": "number"},
    {"name": "online", "type": "boolean"},
]


def detector(features: dict[str, Any]) -> DetectorSpec:
    event = {
        "id": {"field": "id"},
        "time": {"field": "time"},
        "amount": {"field": "amount", "scale": 2},
        "fields": FIELDS,
    }
    return parse_spec({"event": event, "entities": ENTITIES, "features": features})


def declared(features: dict[str, Any]) -> FeatureSet:
    return compile_detector(detector(features))


def extra(**feature: Any) -> FeatureSet:
    return declared({"extra": [{"name": "mine", **feature}]})


@pytest.mark.parametrize(
    ("feature", "path", "remedy"),
    [
        ({"entity": "cards", "aggregate": "Count", "window": "1h"}, "entity", "card, shop, device"),
        ({"entity": "card", "aggregate": "Count"}, "window", "as in 7d"),
        ({"entity": "card", "aggregate": "Count", "window": "401d"}, "window", "longer than 400d"),
        ({"entity": "card", "aggregate": "Count", "window": "1d", "of": "amount"}, "of", "leave it out"),
        ({"entity": "card", "aggregate": "Sum", "window": "1d", "of": "distance"}, "of", "integer field"),
        ({"entity": "card", "aggregate": "Sum", "window": "1d"}, "of", "write amount"),
        ({"entity": "card", "aggregate": "Distinct", "window": "1d", "of": "ip"}, "of", "spec.event.fields"),
        ({"entity": "card", "aggregate": "FraudRate", "window": "7d"}, "aggregate", "labelDelay"),
        (
            {
                "entity": "shop",
                "aggregate": "FraudRate",
                "window": "7d",
                "where": {"field": "online", "equals": "true"},
            },
            "where",
            "leave where out",
        ),
        (
            {
                "entity": "card",
                "aggregate": "Count",
                "window": "1d",
                "where": {"field": "channel", "equals": "x"},
            },
            "where.field",
            "add it to spec.event.fields",
        ),
        (
            {
                "entity": "card",
                "aggregate": "Count",
                "window": "1d",
                "where": {"field": "items", "equals": "two"},
            },
            "where.equals",
            "write a number",
        ),
        (
            {
                "entity": "card",
                "aggregate": "Count",
                "window": "1d",
                "where": {"field": "online", "equals": "yes"},
            },
            "where.equals",
            "true or false",
        ),
        ({"transform": "Ratio", "args": ["amount", "unknown"]}, "args", "declared before"),
        ({"transform": "Ratio", "args": ["amount", "mine"]}, "args", "declared before"),
        ({"transform": "Ratio", "args": ["amount"]}, "args", "two args"),
        ({"transform": "Hour", "args": ["amount"]}, "args", "leave them out"),
        ({"transform": "Hour", "window": "1h"}, "window", "leave it out"),
        ({"transform": "Equals"}, "where", "Equals needs where"),
        ({"entity": "card"}, None, "exactly one"),
    ],
)
def test_a_feature_that_cant_be_computed_is_refused_with_its_path_and_the_remedy(
    feature: dict[str, Any], path: str | None, remedy: str
) -> None:
    """The error names the field of the resource and says what to write."""
    with pytest.raises(SpecError, match=r".") as caught:
        extra(**feature)
    assert caught.value.path == "spec.features.extra[0]" + (f".{path}" if path else "")
    assert remedy in str(caught.value)


@pytest.mark.parametrize(
    ("feature", "path", "remedy"),
    [
        ({"entity": "card", "aggregate": "Count", "window": "0d"}, "window", "pattern"),
        ({"transform": "Cube"}, "transform", "'Ratio'"),
    ],
)
def test_what_the_schema_refuses_is_no_set(feature: dict[str, Any], path: str, remedy: str) -> None:
    """A window that is none and a kind that isn't in the table get no further than the types."""
    with pytest.raises(ValidationError) as caught:
        extra(**feature)
    assert caught.value.errors()[0]["loc"] == ("features", "extra", 0, path)
    assert remedy in str(caught.value)


def test_every_kind_in_the_table_has_its_code() -> None:
    """An aggregate or a transform that can be declared can be computed, and nothing else is."""
    over_labels = {kind for kind in Aggregate if kind.entry.needs_labels}
    assert set(OVER_LABELS) == over_labels
    assert OVER_EVENTS.keys() == set(Aggregate) - over_labels
    assert EXPRESSIONS.keys() == set(Transform)


@pytest.mark.parametrize("name", ["card_count_1h", "night", "amount"])
def test_a_name_of_the_preset_cant_be_used_again(name: str) -> None:
    """Two features of one name would make the vector ambiguous."""
    with pytest.raises(SpecError, match="choose another"):
        declared({"extra": [{"name": name, "entity": "card", "aggregate": "Count", "window": "2h"}]})


def test_names_follow_the_entities() -> None:
    """Nothing in the preset knows of cards: entities give the names, label delays the fraud features."""
    names = declared({}).names
    assert names[0] == "card_count_1h"
    assert "shop_fraud_rate_7d" in names
    assert "shop_amount_sum_7d" not in names
    assert "device_amount_sum_30d" in names
    assert names[-4:] == ("amount", "hour", "night", "weekend")


def test_a_first_entity_with_labels_has_each_count_once() -> None:
    """One entity alone, labelled: its counts come from the first entity's block."""
    names = [feature.name for feature in payments_v1([Entity(name="account", field="a", label_delay="1ms")])]
    assert len(names) == len(set(names))
    assert "account_fraud_count_7d" in names


def test_the_hash_is_the_one_that_the_operator_names_children_by() -> None:
    """Contracts and engine agree on the identity of a set, whichever way the spec came."""
    spec = detector(
        {
            "extra": [
                {
                    "name": "n",
                    "entity": "card",
                    "aggregate": "Count",
                    "window": "2h",
                    "where": {"field": "online", "equals": "true"},
                }
            ]
        }
    )
    features = compile_detector(spec)
    assert features.hash == feature_set_hash(spec)
    assert features.hash6 == features.hash[:6]
    assert features.hash == "f5213d544939f34add7e46d402cf8c31ccc683cb699e548fcc66dd129589a458"


def test_the_identity_of_the_preset_never_changes() -> None:
    """Children, topics' groups, profile keys and models carry this hash: another one starts every detector anew."""
    assert declared({}).hash == "6c584ca431835c12927bf9e639202f83047dd8a38308c61ff94e5c66bbd33d79"


def test_another_engine_setting_is_another_set() -> None:
    """K and lateness decide bits, so a set with others never passes for the declared one."""
    default = declared({}).spec
    other = FeatureSetSpec(
        default.preset, default.entities, default.features, default.fields, default.identity, k=64
    )
    assert FeatureSet(other).hash != FeatureSet(default).hash


def test_a_set_without_features_still_keeps_states() -> None:
    """Preset none without extras: an empty vector, and stages that count and find repeats."""
    features = declared({"preset": "none"})
    event = {"id": "1", "time": 1_700_000_000_000, "amount": 1, "entities": {"card": "a"}, "fields": {}}
    vector, states, _ = features.observe({}, event)
    assert vector == []
    assert features.stages[0].observe(states["card"], event)[0] is None


def test_a_filter_compares_by_the_fields_type() -> None:
    """An integer's filter 1 and a boolean's filter true are different filters, though Python calls them equal."""
    features = declared(
        {
            "preset": "none",
            "extra": [
                {
                    "name": "one",
                    "entity": "card",
                    "aggregate": "Count",
                    "window": "1d",
                    "where": {"field": "items", "equals": "1"},
                },
                {
                    "name": "online_count",
                    "entity": "card",
                    "aggregate": "Count",
                    "window": "1d",
                    "where": {"field": "online", "equals": "true"},
                },
            ],
        },
    )
    event = {
        "id": "1",
        "time": 1_700_000_000_000,
        "amount": 1,
        "entities": {"card": "a"},
        "fields": {"items": 1, "online": False, "category": None, "distance": None},
    }
    assert features.observe({}, event)[0] == [1.0, 0.0]


def test_a_single_feature_is_a_vector_of_one() -> None:
    """One feature is no special case."""
    one = FeatureSpec("n", "a", "Count", window_ms=1_000)
    features = FeatureSet(FeatureSetSpec("none", (EntitySpec("a"),), (one,)))
    event = {"id": "1", "time": 1, "amount": 1, "entities": {"a": "x"}, "fields": {}}
    assert features.observe({}, event)[0] == [1.0]
