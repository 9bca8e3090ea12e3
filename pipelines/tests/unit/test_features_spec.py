"""From a declared feature set to one that can be compiled: what is refused, and with which words."""

from __future__ import annotations

from typing import Any

import pytest

from fraud_contracts.detector import parse_spec
from fraud_contracts.detector_event import Entity, Features
from fraud_contracts.feature_set import feature_set_hash, preset_names
from fraud_pipelines.features import (
    EntitySpec,
    FeatureSetSpec,
    FeatureSpec,
    FeatureSpecError,
    compile_detector,
    compile_set,
    payments_v1,
    spec_from_detector,
)

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


def extra(**feature: Any) -> FeatureSetSpec:
    return spec_from_detector({"extra": [{"name": "mine", **feature}]}, ENTITIES, FIELDS)


@pytest.mark.parametrize(
    ("feature", "path", "remedy"),
    [
        ({"entity": "cards", "aggregate": "Count", "window": "1h"}, "entity", "card, shop, device"),
        ({"entity": "card", "aggregate": "Count"}, "window", "as in 7d"),
        ({"entity": "card", "aggregate": "Count", "window": "0d"}, "window", "pattern"),
        ({"entity": "card", "aggregate": "Count", "window": "401d"}, "window", "at most 400d"),
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
        ({"transform": "Cube"}, "transform", "'Ratio'"),
        ({"entity": "card"}, None, "exactly one"),
    ],
)
def test_a_feature_that_cant_be_computed_is_refused_with_its_path_and_the_remedy(
    feature: dict[str, Any], path: str | None, remedy: str
) -> None:
    """The error names the field of the resource and says what to write."""
    with pytest.raises(FeatureSpecError, match=r".") as caught:
        extra(**feature)
    assert caught.value.path == "spec.features.extra[0]" + (f".{path}" if path else "")
    assert remedy in str(caught.value)


@pytest.mark.parametrize("name", ["card_count_1h", "night", "amount"])
def test_a_name_of_the_preset_cant_be_used_again(name: str) -> None:
    """Two features of one name would make the vector ambiguous."""
    with pytest.raises(FeatureSpecError, match="choose another"):
        spec_from_detector(
            {"extra": [{"name": name, "entity": "card", "aggregate": "Count", "window": "2h"}]},
            ENTITIES,
            FIELDS,
        )


def test_names_follow_the_entities() -> None:
    """Nothing in the preset knows of cards: entities give the names, label delays the fraud features."""
    names = compile_set(spec_from_detector({}, ENTITIES, FIELDS)).names
    assert names[0] == "card_count_1h"
    assert "shop_fraud_rate_7d" in names
    assert "shop_amount_sum_7d" not in names
    assert "device_amount_sum_30d" in names
    assert names[-4:] == ("amount", "hour", "night", "weekend")


def test_a_first_entity_with_labels_has_each_count_once() -> None:
    """One entity alone, labelled: its counts come from the first entity's block."""
    names = [feature.name for feature in payments_v1([EntitySpec("account", 1)])]
    assert len(names) == len(set(names))
    assert "account_fraud_count_7d" in names


def test_the_hash_is_the_one_that_the_operator_names_children_by() -> None:
    """Contracts and engine agree on the identity of a set, whichever way the spec came."""
    spec = parse_spec(
        {
            "event": {
                "id": {"field": "id"},
                "time": {"field": "time"},
                "amount": {"field": "amount", "scale": 2},
                "fields": FIELDS,
            },
            "entities": ENTITIES,
            "features": {
                "extra": [
                    {
                        "name": "n",
                        "entity": "card",
                        "aggregate": "Count",
                        "window": "2h",
                        "where": {"field": "online", "equals": "true"},
                    }
                ]
            },
        }
    )
    features = compile_detector(spec)
    assert features.hash == feature_set_hash(spec)
    assert features.hash6 == features.hash[:6]
    raw = {"extra": [feature.model_dump(by_alias=True, exclude_none=True) for feature in spec.features.extra]}
    assert compile_set(spec_from_detector(raw, ENTITIES, FIELDS)).hash == features.hash


def test_another_engine_setting_is_another_set() -> None:
    """K and lateness decide bits, so a set with others never passes for the declared one."""
    given = spec_from_detector({}, ENTITIES, FIELDS)
    other = FeatureSetSpec(given.preset, given.entities, given.features, given.fields, given.identity, k=64)
    assert compile_set(other).hash != compile_set(given).hash


def test_a_set_without_features_still_keeps_states() -> None:
    """Preset none without extras: an empty vector, and stages that count and find repeats."""
    features = compile_set(spec_from_detector({"preset": "none"}, ENTITIES, FIELDS))
    event = {"id": "1", "time": 1_700_000_000_000, "amount": 1, "entities": {"card": "a"}, "fields": {}}
    vector, states, _ = features.observe({}, event)
    assert vector == []
    assert features.stages[0].observe(states["card"], event)[0] is None


def test_a_filter_compares_by_the_fields_type() -> None:
    """An integer's filter 1 and a boolean's filter true are different filters, though Python calls them equal."""
    spec = spec_from_detector(
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
        ENTITIES,
        FIELDS,
    )
    features = compile_set(spec)
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
    features = compile_set(FeatureSetSpec("none", (EntitySpec("a"),), (one,)))
    event = {"id": "1", "time": 1, "amount": 1, "entities": {"a": "x"}, "fields": {}}
    assert features.observe({}, event)[0] == [1.0]


@pytest.mark.parametrize("delays", [(None,), ("7d",), (None, "7d"), ("7d", None), (None, None, "7d")])
def test_contracts_know_the_presets_names(delays: tuple[str | None, ...]) -> None:
    """The operator, which has no engine, checks operands and new names against the same names as the engine."""
    entities = [Entity(name=f"e{i}", field=f"f{i}", label_delay=delay) for i, delay in enumerate(delays)]
    preset = payments_v1([EntitySpec(e.name, None if e.label_delay is None else 1) for e in entities])
    assert {*preset_names(Features(), entities), "amount"} == {feature.name for feature in preset}
