"""How far back the values of a feature set look: what contracts say of a declaration is what the engine keeps for it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from fraud_contracts import lifetimes
from fraud_contracts.detector import parse_spec
from fraud_pipelines.features import compile_detector
from fraud_testing import detectors

HOUR, DAY = 3_600_000, 86_400_000


def feature(name: str, aggregate: str, entity: str = "customer", **more: str) -> dict[str, str]:
    return {"name": name, "entity": entity, "aggregate": aggregate, **more}


@pytest.mark.parametrize(
    ("features", "delay", "days"),
    [
        # The preset's longest: fraud rates over 30 days that end 7 days before.
        ({}, "7d", 37),
        ({"preset": "none", "extra": [feature("n", "Count", window="2d")]}, "7d", 30),
        ({"preset": "none", "extra": [feature("n", "Count", window="90d")]}, "7d", 90),
        ({"preset": "none", "extra": [feature("since", "SecondsSinceLast")]}, "7d", 30),
        ({"preset": "none", "extra": [feature("f", "FraudRate", "counterparty", window="60d")]}, "45d", 105),
        ({"extra": [feature("n", "Sum", of="amount", window="400d")]}, "90d", 400),
    ],
)
def test_the_reach_is_the_longest_that_the_engine_keeps(
    features: dict[str, Any], delay: str, days: int
) -> None:
    """With the hour by which an event may be late; an entity without a window keeps thirty days."""
    entities = [{**detectors.SPEC["entities"][1], "labelDelay": delay}]
    spec = parse_spec(
        {
            **detectors.SPEC,
            "entities": [detectors.SPEC["entities"][0], *entities],
            "features": features,
        }
    )
    reach = lifetimes.reach(spec.features, spec.entities)
    assert reach == days * DAY + HOUR
    assert reach == max(stage.grid.retain for stage in compile_detector(spec).stages)


def test_redis_forgets_first_and_the_topic_last() -> None:
    """A profile that outlived its state would outrank the key's new one; one whose record is gone couldn't be made again."""
    reach = 30 * DAY
    order = [reach, lifetimes.profile_kept(reach), lifetimes.state_kept(reach), lifetimes.record_kept(reach)]
    assert [later - earlier for earlier, later in itertools.pairwise(order)] == [7 * DAY, DAY, DAY]
