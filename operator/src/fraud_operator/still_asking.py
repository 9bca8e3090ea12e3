"""What the status says of a store that an operator that has just started is still asking: what it said before. Pure.

Else each change of the leader would turn conditions over and back, for every detector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fraud_operator.capacity import CapacityFact
from fraud_operator.conditions import HELD
from fraud_operator.facts import Facts, KafkaFact, Lacking, StorageFact

_ASKING = "Checking"


def as_last_known(facts: Facts, previous: Mapping[str, Any], generation: int) -> Facts:
    """For the status only. ``previous`` is the status of before, which counts where it is of this ``generation`` of the detector."""
    told = {
        condition["type"]: condition
        for condition in previous.get("conditions") or []
        if condition["reason"] != _ASKING and condition.get("observedGeneration") == generation
    }
    storage, kafka, stores = told.get("StorageReady"), told.get("KafkaReady"), told.get("StoresReady")
    if storage is not None and facts.storage.ready is None:
        ready = storage["status"] == "True"
        message = storage["message"].partition(HELD)[0]  # which is added anew
        fact = StorageFact(ready, storage["reason"], message, facts.storage.keys)
        facts = replace(facts, storage=fact)
    if kafka is not None and facts.kafka.ready is None:
        ready, reason = kafka["status"] == "True", kafka["reason"]
        facts = replace(facts, kafka=KafkaFact(ready, reason, kafka["message"], reason == "TopicSettings"))
    if stores is not None and not facts.stores.ready and not facts.stores.problems:
        ready = stores["status"] == "True"
        problems = () if ready else (Lacking(stores["reason"], stores["message"]),)
        facts = replace(facts, stores=replace(facts.stores, ready=ready, problems=problems))
    return replace(facts, capacity=_capacity(facts.capacity, told.get("CapacityLeft")))


def _capacity(fact: CapacityFact, told: Mapping[str, Any] | None) -> CapacityFact:
    """A warning also stands until growth is measured again, unless there is one already."""
    if told is None or any(room.warned for room in fact.rooms):
        return fact
    warns = told["reason"] == "FillingUp" and not all(room.measured for room in fact.rooms)
    if not (fact.asking or warns):
        return fact
    status = {"True": True, "False": False}.get(told["status"])
    return replace(fact, before=(status, told["reason"], told["message"]))
