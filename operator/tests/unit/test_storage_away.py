"""An object store that goes away under a detector at work: what the conditions say, and what they leave as it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fraud_operator.condition_state import ConditionState
from fraud_operator.conditions import Trouble, conditions
from fraud_operator.facts import Facts, StorageFact
from fraud_testing.healthy import healthy_facts, make_detector

AWAY = StorageFact(False, "Unreachable", "no answer")
REFUSED = StorageFact(False, "AccessDenied", "keys")
DETECTOR = make_detector()
WELL = healthy_facts(DETECTOR)
SINK = ("Deployment", "d-lake-sink")
WAITING = {**WELL.children[SINK], "status": {"availableReplicas": 0, "replicas": 1}}
WITHOUT_SINK = replace(WELL, children={**WELL.children, SINK: WAITING})


def told(facts: Facts, storage: StorageFact = WELL.storage) -> dict[str, ConditionState]:
    return conditions(DETECTOR, replace(facts, storage=storage), Trouble())


@pytest.mark.parametrize("facts", [WELL, WITHOUT_SINK], ids=["at once", "with the lake sink waiting"])
def test_a_bucket_that_is_lost_later_stops_nothing(facts: Facts) -> None:
    """With all parts there, a bad answer makes the detector Degraded and leaves it Ready."""
    states = told(facts, AWAY)
    assert states["Ready"].status is True and states["Degraded"].status is True
    assert states["StreamingReady"].reason == "JobRunning"


def test_a_store_that_is_away_is_told_from_one_that_wont_do() -> None:
    """Of what runs the message says what goes on. Refused keys, and a store that was never there, want a hand."""
    states = told(WELL, AWAY)
    state = states["StorageReady"]
    assert (state.status, state.reason) == (False, "StorageAway")
    assert state.message.startswith("no answer. ") and "without checkpoints" in state.message
    assert states["Degraded"].reason == "StorageAway"
    refused = told(WELL, REFUSED)["StorageReady"]
    assert (refused.reason, refused.message) == ("AccessDenied", "keys")
    never = told(replace(WELL, children={}), AWAY)["StorageReady"]
    assert (never.reason, never.message) == ("Unreachable", "no answer")


def test_a_lake_sink_that_waits_for_no_store_is_told() -> None:
    """Only where StorageReady says why it waits it doesn't count."""
    ready = told(WITHOUT_SINK)["Ready"]
    assert (ready.status, ready.reason) == (False, "ChildNotReady")
