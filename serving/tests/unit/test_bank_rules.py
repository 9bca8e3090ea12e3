"""Rules as a bank writes them, from the raw transaction to the match: each fires where it says so and nowhere else.

Both doors parse with the same schema and match with the same compiled policy, and the operator admits with the same check.
"""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from fraud_contracts.detector_policy import Policy
from fraud_pipelines.events import EventSchema, Tokeniser
from fraud_pipelines.features import compile_detector
from fraud_serving.policy import CompiledPolicy
from fraud_testing import detectors

TYPES = {
    "category": "string", "country": "string", "home": "string", "channel": "string", "device": "string",
    "email": "string", "items": "integer", "km": "number", "online": "boolean", "card": "string", "recipient": "string",
}  # fmt: skip
FIELDS = [{"name": name, "type": kind} for name, kind in TYPES.items()]
SENSITIVE = ["card", "recipient"]
SPEC = detectors.detector(
    "none:9092", event={**detectors.SPEC["event"], "fields": FIELDS, "sensitive": SENSITIVE}
).spec
TOKENISER = Tokeniser(b"0" * 32)
SCHEMA = EventSchema(SPEC.event, SPEC.entities)
NAMES = compile_detector(SPEC).names
DAY, NIGHT = 1_700_046_000_000, 1_700_017_200_000  # 11:00 and 03:00 UTC


def fires(when: str, values: dict[str, Any]) -> bool:
    """Whether the rule matches; ``values`` are raw fields and features, of which all others are absent."""
    policy = Policy.model_validate({"rules": [{"name": "r", "when": when, "action": "Decline"}]})
    compiled = CompiledPolicy(policy, SPEC, TOKENISER)
    assert compiled.problems == []
    features = {name: value for name, value in values.items() if name in NAMES and name != "amount"}
    fields = {name: value for name, value in values.items() if name not in features}
    raw = {"id": "e1", "time": DAY, "amount": 10, "card": "4000", "merchant": "m1", **fields}
    event, _ = SCHEMA.parse(json.dumps(raw).encode(), TOKENISER, DAY)
    matches = compiled.matches(event, {**dict.fromkeys(NAMES, math.nan), **features}, DAY)
    assert matches.failed == []
    return bool(matches.enforced)


# (rule, transactions on which it fires, transactions on which it doesn't)
RULES: list[tuple[str, list[dict[str, Any]], list[dict[str, Any]]]] = [
    (
        "event.amount >= 100000 && event.amount < 500000",
        [{"amount": 1000.0}, {"amount": 4999.99}],
        [{"amount": 5000}, {"amount": 999.99}],
    ),
    (
        "event.fields.country != event.fields.home && features.night",
        [{"country": "BR", "home": "DE", "night": 1.0}, {"country": "BR", "night": 1.0}],
        [{"country": "DE", "home": "DE", "night": 1.0}],
    ),
    (
        "has(event.fields.country) && !(event.fields.country in ['DE', 'AT', 'CH'])",
        [{"country": "BR"}],
        [{"country": "AT"}, {}],
    ),
    (
        "features.customer_count_1h >= 5.0 && features.customer_amount_sum_1h > 200000.0",
        [{"customer_count_1h": 5.0, "customer_amount_sum_1h": 200001.0}],
        [{"customer_count_1h": 4.0, "customer_amount_sum_1h": 200001.0}, {"customer_count_1h": 9.0}],
    ),
    (
        "double(event.amount) > features.customer_amount_mean_30d * 8.0",
        [{"amount": 81, "customer_amount_mean_30d": 1000.0}],
        [{"amount": 80, "customer_amount_mean_30d": 1000.0}, {"amount": 81}],
    ),
    (
        "features.customer_seconds_since_last < 30.0 && event.fields.online",
        [{"customer_seconds_since_last": 29.0, "online": True}],
        [{"customer_seconds_since_last": 29.0}, {"online": True}],
    ),
    (
        "!has(features.customer_seconds_since_last) && event.amount > 30000",
        [{"amount": 301}],
        [{"amount": 301, "customer_seconds_since_last": 5.0}],
    ),
    (
        "event.fields.email.endsWith('@mailinator.com') || event.fields.email.endsWith('.xyz')",
        [{"email": "a@mailinator.com"}, {"email": "a@b.xyz"}],
        [{"email": "a@b.de"}, {}],
    ),
    (
        "['@mailinator.com', '@tempmail.org'].exists(d, event.fields.email.endsWith(d))",
        [{"email": "x@tempmail.org"}],
        [{"email": "x@gmail.com"}, {}],
    ),
    (
        "event.fields.email.matches(r'^[a-z]+\\d{4,}@')",
        [{"email": "bob12345@x.de"}],
        [{"email": "bob1@x.de"}],
    ),
    (
        "['gambling', 'crypto', 'gift'].exists(c, event.fields.category == c) && event.amount > 10000",
        [{"category": "gift", "amount": 101}],
        [{"category": "gift", "amount": 100}, {"category": "food", "amount": 101}, {"amount": 101}],
    ),
    (
        "['food', 'fuel'].all(c, event.fields.category != c) && event.amount > 80000",
        [{"category": "tv", "amount": 801}, {"amount": 801}],
        [{"category": "fuel", "amount": 801}],
    ),
    (
        "event.amount > (event.fields.category == 'travel' ? 500000 : 100000)",
        [{"category": "travel", "amount": 5001}, {"category": "tv", "amount": 1500}],
        [{"category": "travel", "amount": 1500}],
    ),
    (
        "event.fields.category in {'travel': 1, 'jewels': 1} && event.amount > {'travel': 500000, 'jewels': 200000}[event.fields.category]",
        [{"category": "jewels", "amount": 2001}],
        [{"category": "travel", "amount": 2001}, {"category": "tv", "amount": 9000}, {"amount": 9000}],
    ),
    ("event.time / 3600000 % 24 < 6", [{"time": NIGHT}], [{"time": DAY}]),
    (
        "features.weekend && event.fields.channel == 'atm' && event.amount >= 50000",
        [{"weekend": 1.0, "channel": "atm", "amount": 500}],
        [{"weekend": 0.0, "channel": "atm", "amount": 500}],
    ),
    (
        "event.fields.km / (features.customer_seconds_since_last / 3600.0) > 900.0",
        [{"km": 500, "customer_seconds_since_last": 1800.0}, {"km": 400, "customer_seconds_since_last": 0.0}],
        [{"km": 400, "customer_seconds_since_last": 1800.0}, {"km": 400}],
    ),
    (
        "event.amount % 10000 == 0 && event.amount >= 50000",
        [{"amount": 600}],
        [{"amount": 600.01}, {"amount": 400}],
    ),
    (
        "event.fields.items > 0 && event.amount / event.fields.items > 100000",
        [{"items": 2, "amount": 2002}],
        [{"items": 2, "amount": 2000}, {"items": 0, "amount": 9000}, {"amount": 9000}],
    ),
    (
        "[features.night, event.amount > 100000, event.fields.country != event.fields.home].filter(b, b).size() >= 2",
        [
            {"night": 1.0, "amount": 1001, "country": "DE", "home": "DE"},
            {"amount": 1001, "country": "BR", "home": "DE"},
        ],
        [{"night": 1.0, "amount": 1, "country": "DE", "home": "DE"}],
    ),
    ("event.entities.customer == event.fields.card", [{}], []),
    (
        "!has(event.fields.recipient) && event.fields.channel == 'transfer'",
        [{"channel": "transfer"}],
        [{"channel": "transfer", "recipient": "r"}, {}],
    ),
    (
        "event.fields.online == false && event.fields.channel in ['web', 'app']",
        [{"online": False, "channel": "web"}],
        [{"online": True, "channel": "web"}, {"channel": "web"}],
    ),
    (
        "features.customer_count_1d > 3.0 * features.customer_count_30d / 30.0 && features.customer_count_30d >= 30.0",
        [{"customer_count_1d": 4.0, "customer_count_30d": 30.0}],
        [
            {"customer_count_1d": 3.0, "customer_count_30d": 30.0},
            {"customer_count_1d": 9.0, "customer_count_30d": 29.0},
        ],
    ),
    (
        "features.night ? event.amount > 20000 : event.amount > 100000",
        [{"night": 1.0, "amount": 201}, {"night": 0.0, "amount": 1001}],
        [{"night": 0.0, "amount": 201}, {"amount": 201}],
    ),
]


@pytest.mark.parametrize(("when", "firing", "quiet"), RULES)
def test_a_rule_of_a_bank_fires_where_it_says(
    when: str, firing: list[dict[str, Any]], quiet: list[dict[str, Any]]
) -> None:
    """Amounts, night and country, velocity, habit, text, lists, choices and time, with and without what a rule reads."""
    assert [fires(when, values) for values in firing] == [True] * len(firing)
    assert [fires(when, values) for values in quiet] == [False] * len(quiet)
