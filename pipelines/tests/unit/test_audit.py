"""The audit of decided vectors by replay, on decisions made by the engine itself."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from fraud_contracts.detector import parse_spec
from fraud_contracts.names import profile_key
from fraud_pipelines.audit import audit
from fraud_pipelines.features import compile_detector

SPEC = parse_spec(
    {
        "event": {"id": {"field": "id"}, "time": {"field": "t"}, "amount": {"field": "a"}},
        "entities": [
            {"name": "customer", "field": "c"},
            {"name": "counterparty", "field": "m", "labelDelay": "7d"},
        ],
    }
)
START = 1_700_000_000_000


def event(number: int, customer: str, counterparty: str) -> dict[str, Any]:
    return {
        "id": f"e{number}",
        "time": START + number * 60_000,
        "amount": 100 + number,
        "currency": None,
        "entities": {"customer": customer, "counterparty": counterparty},
        "fields": {},
    }


def decided() -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """Seeds of two customers and two counterparties, then 30 decisions over them and one new customer."""
    features = compile_detector(SPEC)
    states: dict[str, bytes] = {}
    seeds: dict[str, bytes] = {}
    decisions = []
    for number in range(60):
        made = event(number, f"c{number % 2}" if number != 55 else "new", f"m{number % 3 % 2}")
        values, saw = {}, {}
        for stage in features.stages:
            key = profile_key(features.hash6, stage.entity, made["entities"][stage.entity])
            values[stage.entity], states[key], seen = stage.observe(states.get(key), made)
            saw[stage.entity] = [seen[0], seen[1], f"{seen[2]:016x}"]
        vector = features.vector(made, values)
        if number >= 30:
            decisions.append(
                {
                    "id": made["id"],
                    "event": made,
                    "vector": [v if v == v else None for v in vector],
                    "saw": saw,
                }
            )
        if number == 29:
            seeds = dict(states)
    return seeds, decisions


def test_decisions_made_by_the_engine_agree_with_the_replay() -> None:
    """Every known event's vector is made again, bit for bit, whatever order the decisions lie in."""
    seeds, decisions = decided()
    result = audit(compile_detector(SPEC), seeds, decisions[::-1])
    assert (result["share"], result["differing"], result["known"]) == (1.0, 0, 29)


def test_one_changed_value_is_found() -> None:
    """A vector that differs in one number counts, and its id is shown."""
    seeds, decisions = decided()
    decisions = deepcopy(decisions)
    decisions[3]["vector"][0] += 1.0
    result = audit(compile_detector(SPEC), seeds, decisions)
    assert result["examples"] == [decisions[3]["id"]]
    assert result["share"] < 1.0
