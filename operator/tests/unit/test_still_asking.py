"""An operator that has just started says of a store what was said before, until the store has answered it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fraud_operator import status
from fraud_operator.conditions import Trouble
from fraud_operator.facts import Facts, KafkaFact, Lacking, StorageFact, StoresFact
from fraud_operator.kafka_checks import CHECKING
from fraud_operator.still_asking import as_last_known
from fraud_testing.healthy import healthy_facts, make_detector

DETECTOR = make_detector(kafka={"external": {"bootstrapServers": "b:9092"}, "partitions": 1})
ASKING: dict[str, Any] = {
    "storage": StorageFact(None, "Checking", "the bucket is being asked"),
    "kafka": CHECKING,
    "stores": StoresFact(),
}


def conditions(facts: Facts, previous: dict[str, Any]) -> dict[str, Any]:
    return status.compute(DETECTOR, facts, Trouble(), previous)


@pytest.mark.parametrize(
    "known",
    [
        {
            "storage": StorageFact(True, "Checked", "it will do"),
            "kafka": KafkaFact(True, "External", "with all topics"),
            "stores": StoresFact(ready=True),
        },
        {
            "storage": StorageFact(False, "NotWritable", "field: remedy"),
            "kafka": KafkaFact(True, "TopicSettings", "a topic is compacted", flawed=True),
            "stores": StoresFact(problems=(Lacking("StoreUnreachable", "no answer"),)),
        },
        {
            "storage": StorageFact(False, "NotWritable", "field: remedy"),
            "kafka": KafkaFact(False, "Unreachable", "no answer"),
            "stores": StoresFact(ready=True),
        },
    ],
)
def test_the_status_stays_while_stores_are_asked_anew(known: dict[str, Any]) -> None:
    """Each of them was right or wrong: whoever leads now writes nothing before it knows better."""
    before = conditions(replace(healthy_facts(DETECTOR), **known), {})
    asking = as_last_known(replace(healthy_facts(DETECTOR), **ASKING), before, DETECTOR.generation)
    assert not status.changed(conditions(asking, before), before)


def test_what_was_said_of_another_spec_is_not_said_again() -> None:
    """A changed spec may name other stores: they are being asked."""
    before = conditions(healthy_facts(DETECTOR), {})
    asking = replace(healthy_facts(DETECTOR), **ASKING)
    assert as_last_known(asking, before, DETECTOR.generation + 1) == asking
    assert as_last_known(asking, {}, DETECTOR.generation) == asking
