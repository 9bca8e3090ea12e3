"""The FraudDetector's types, the CRD made from them, and the identity of a feature set."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fraud_contracts import crd, durations
from fraud_contracts.detector import dump, parse_spec
from fraud_contracts.feature_set import check, feature_set_hash

ROOT = Path(__file__).parents[3]
SMALLEST: dict[str, Any] = {
    "event": {
        "id": {"field": "transaction_id"},
        "time": {"field": "timestamp"},
        "amount": {"field": "amount"},
    },
    "entities": [
        {"name": "customer", "field": "customer_id"},
        {"name": "counterparty", "field": "merchant_id"},
    ],
}


def changed(**parts: Any) -> dict[str, Any]:
    return {**deepcopy(SMALLEST), **parts}


def test_the_charts_crd_is_the_generated_one() -> None:
    """The CRD in the chart never differs from the types: run `make crd` after a change."""
    stored = (ROOT / "charts/fraud-platform/files/frauddetectors.yaml").read_text()
    assert json.loads(stored.split("\n", 1)[1]) == json.loads(json.dumps(crd.custom_resource_definition()))


def test_the_smallest_spec_is_valid_and_takes_the_defaults() -> None:
    """Id, time, amount and the entities are enough; everything else has a default."""
    spec = parse_spec(SMALLEST)
    assert (spec.kafka.partitions, spec.policy.bands.decline, spec.event.time.unit) == (12, 900, "ms")
    assert spec.model.train is not None and spec.kafka.managed is not None


def test_a_spec_survives_its_json_form() -> None:
    """What is written to a ConfigMap reads back as the same spec."""
    spec = parse_spec(SMALLEST)
    assert parse_spec(dump(spec)) == spec


@pytest.mark.parametrize(
    ("parts", "where"),
    [
        ({"entities": []}, "entities"),
        ({"entities": [{"name": "Customer", "field": "x"}]}, "name"),
        ({"kafka": {"managed": {}, "partitions": 0}}, "partitions"),
        (
            {
                "features": {
                    "extra": [{"name": "x", "entity": "customer", "aggregate": "Count", "window": "-5m"}]
                }
            },
            "window",
        ),
        (
            {
                "features": {
                    "extra": [{"name": "x", "entity": "customer", "aggregate": "Median", "window": "5m"}]
                }
            },
            "aggregate",
        ),
        ({"model": {"train": {"algorithm": "Guess"}}}, "algorithm"),
        ({"policy": {"bands": {"review": 1001}}}, "review"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_wrong_spec_is_refused_by_field(parts: dict[str, Any], where: str) -> None:
    """The error names the field that is wrong."""
    with pytest.raises(ValidationError, match=where):
        parse_spec(changed(**parts))


@pytest.mark.parametrize(
    ("extra", "path"),
    [
        ({"name": "x", "entity": "shop", "aggregate": "Count", "window": "1h"}, "entity"),
        ({"name": "x", "entity": "customer", "aggregate": "Sum", "of": "category", "window": "1h"}, "of"),
        ({"name": "x", "entity": "customer", "aggregate": "FraudRate", "window": "1h"}, "aggregate"),
        ({"name": "x", "entity": "customer", "aggregate": "Count", "window": "500d"}, "window"),
        (
            {
                "name": "x",
                "entity": "customer",
                "aggregate": "Count",
                "window": "1h",
                "where": {"field": "a", "equals": "b"},
            },
            "where",
        ),
    ],
)
def test_a_feature_that_cannot_be_built_is_named_with_its_path(extra: dict[str, Any], path: str) -> None:
    """What CEL can't say, the check says with the path of the field."""
    spec = parse_spec(
        changed(features={"extra": [extra]}, event={**SMALLEST["event"], "fields": [{"name": "category"}]})
    )
    assert [error.path.split("[0].")[1].split(".")[0] for error in check(spec)] == [path]


COUNT = {"name": "x", "entity": "customer", "aggregate": "Count", "window": "1h"}


@pytest.mark.parametrize(
    ("extra", "path"),
    [
        ({**COUNT, "name": "customer_count_7d"}, "name"),
        ({**COUNT, "name": "amount"}, "name"),
        ({**COUNT, "of": "amount"}, "of"),
        ({**COUNT, "args": ["amount", "amount"]}, "args"),
        ({**COUNT, "where": {"field": "items", "equals": "many"}}, "where.equals"),
        ({**COUNT, "where": {"field": "online", "equals": "yes"}}, "where.equals"),
        ({"name": "x", "transform": "Ratio", "args": ["amount", "later"]}, "args"),
        ({"name": "x", "transform": "Night", "args": ["amount"]}, "args"),
        ({"name": "x", "transform": "Hour", "where": {"field": "items", "equals": "1"}}, "where"),
        ({"name": "x", "transform": "Hour", "window": "1h"}, "window"),
    ],
)
def test_what_the_engine_cannot_compute_is_found_before_it_starts(extra: dict[str, Any], path: str) -> None:
    """The operator, which has no engine, refuses a feature that would end every process of the data path."""
    event = {
        **SMALLEST["event"],
        "fields": [{"name": "items", "type": "integer"}, {"name": "online", "type": "boolean"}],
    }
    faults = check(parse_spec(changed(features={"extra": [extra]}, event=event)))
    assert [error.path for error in faults] == [f"spec.features.extra[0].{path}"]


def test_operands_may_be_the_presets_features_and_earlier_ones() -> None:
    """A transform reads amount, what the preset gives, and what stands before it."""
    extra = [
        {"name": "r", "transform": "Ratio", "args": ["amount", "customer_amount_mean_7d"]},
        {"name": "d", "transform": "Difference", "args": ["r", "counterparty_count_1d"]},
    ]
    assert check(parse_spec(changed(features={"extra": extra}))) == []


def test_a_feature_sets_identity_follows_what_decides_a_vector() -> None:
    """Another feature or delay is another set; another policy or replica count is not."""
    base = feature_set_hash(parse_spec(SMALLEST))
    assert feature_set_hash(parse_spec(changed(policy={"bands": {"review": 1}}))) == base
    delayed = [
        {"name": "customer", "field": "customer_id"},
        {"name": "counterparty", "field": "merchant_id", "labelDelay": "7d"},
    ]
    assert feature_set_hash(parse_spec(changed(entities=delayed))) != base


@pytest.mark.parametrize("text", ["0s", "-5m", "5", "m", "1.5h", "5 m", "", "1w"])
def test_a_duration_needs_a_positive_number_and_a_unit(text: str) -> None:
    """Anything else is refused, with the form that is expected."""
    with pytest.raises(ValueError, match="as in 5m"):
        durations.to_ms(text)


@pytest.mark.parametrize("text", ["50ms", "5m", "1h", "7d", "90d", "90s"])
def test_a_duration_survives_its_milliseconds(text: str) -> None:
    """Milliseconds give the shortest form back."""
    assert durations.from_ms(durations.to_ms(text)) == text


def test_every_field_of_the_crd_says_what_it_is() -> None:
    """`kubectl explain` shows a sentence for each field of spec and status."""
    schema = crd.custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    silent: list[str] = []

    def walk(path: str, node: dict[str, Any]) -> None:
        for name, child in node.get("properties", {}).items():
            if not child.get("description", "").strip().endswith("."):
                silent.append(f"{path}.{name}")
            walk(f"{path}.{name}", child)
            walk(f"{path}.{name}[]", child.get("items", {}))

    for part in ("spec", "status"):
        walk(part, schema["properties"][part])
    assert silent == []
