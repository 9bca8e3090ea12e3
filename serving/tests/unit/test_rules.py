"""What a null means to a rule: a comparison with it is false, `!=` true, and no rule fails because of one."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud_contracts import feature_set, rules
from fraud_contracts.detector_policy import Policy
from fraud_pipelines.events import Tokeniser
from fraud_pipelines.features import compile_detector
from fraud_serving.policy import CompiledPolicy
from fraud_testing import detectors

NOW = 1_700_000_000_000
FIELDS = [
    {"name": "text", "type": "string"},
    {"name": "other", "type": "string"},
    {"name": "n", "type": "integer"},
    {"name": "x", "type": "number"},
    {"name": "flag", "type": "boolean"},
]
EQUALS = {"name": "is_travel", "transform": "Equals", "where": {"field": "text", "equals": "travel"}}
CONFIG = detectors.detector(
    "none:9092",
    event={**detectors.SPEC["event"], "fields": FIELDS},
    features={"extra": [EQUALS]},
)
SPEC = CONFIG.spec
NAMES = compile_detector(SPEC).names


def fires(when: str, fields: dict[str, Any] | None = None, **features: float) -> bool:
    """Whether the rule matches an event whose other fields, second entity and features are null; it must not fail."""
    policy = Policy.model_validate({"rules": [{"name": "r", "when": when, "action": "Decline"}]})
    compiled = CompiledPolicy(policy, SPEC, Tokeniser(b"0" * 32))
    assert compiled.problems == []
    event: Any = {
        "id": "e1",
        "time": NOW,
        "amount": 1000,
        "currency": "EUR",
        "entities": {"customer": "t_" + "1" * 32, "counterparty": None},
        "fields": {**dict.fromkeys(field["name"] for field in FIELDS), **(fields or {})},
    }
    results = []
    vectors: list[dict[str, float] | None] = [{**dict.fromkeys(NAMES, math.nan), **features}]
    for vector in vectors if features else [None, *vectors]:
        matches = compiled.matches(event, vector, NOW)
        assert matches.failed == []
        results.append(bool(matches.enforced))
    assert len(set(results)) == 1
    return results[0]


# With every nullable value null: (rule, whether it matches). Vectors of nulls and no vector at all must agree.
NULLS = [
    ("event.fields.text == 'travel'", False),
    ("event.fields.text != 'travel'", True),
    ("!(event.fields.text == 'travel')", True),
    ("!(event.fields.text != 'travel')", False),
    (
        "event.fields.text < 'm' || event.fields.text > 'm' || event.fields.text <= 'm' || event.fields.text >= 'm'",
        False,
    ),
    ("event.fields.text in ['travel', 'food']", False),
    ("!(event.fields.text in ['travel'])", True),
    ("'travel' in [event.fields.text, 'travel']", True),
    ("event.fields.text == event.fields.other", False),
    ("event.fields.text == event.fields.text", False),
    ("event.fields.text != event.fields.text", True),
    ("event.fields.n > 5 || event.fields.n <= 5", False),
    ("event.fields.n + 1 > 5 || -event.fields.n < 5 || event.amount / event.fields.n > 1", False),
    ("!(event.fields.x < 5.0)", True),
    ("event.fields.x > 5.0", False),
    ("event.fields.flag", False),
    ("!event.fields.flag", True),
    ("event.fields.flag == false", False),
    ("event.fields.flag == true || event.amount > 5", True),
    ("event.fields.text.startsWith('t')", False),
    ("!event.fields.text.startsWith('t') && !event.fields.text.matches('.*')", True),
    ("size(event.fields.text) >= 0", False),
    ("has(event.fields.text)", False),
    ("!has(event.fields.text) && !has(features.customer_count_1d)", True),
    ("has(event.amount) && has(event.entities.customer)", True),
    ("event.entities.counterparty == 'm1'", False),
    ("event.entities.counterparty != 'm1'", True),
    ("features.customer_count_1d > 5.0", False),
    ("features.customer_count_1d != 5.0", True),
    ("!(features.customer_seconds_since_last < 86400.0)", True),
    ("event.amount > 500 && !(features.customer_seconds_since_last < 86400.0)", True),
    ("features.night", False),
    ("!features.night", True),
    ("features.is_travel == false", False),
    ("int(features.customer_count_1d) > 5", False),
    ("features.night ? event.fields.n > 5 : event.amount > 5", True),
    ("event.amount > 5 ? event.fields.flag : true", False),
    ("(event.amount > 5 ? event.fields.n : 3) < 100", False),
    ("(event.amount > 5 ? 3 : event.fields.n) < 100", True),
    ("(event.fields.n > 5) == false", True),
    ("[1, 2].exists(i, i > event.fields.n)", False),
    ("[1, 2].all(i, !(i > event.fields.n))", True),
    ("[event.fields.n, 2].exists(i, i > 1)", True),
    ("[event.fields.n].exists(i, i > 1)", False),
    ("[event.fields.n].map(i, i + 1).exists(i, i > 1)", False),
    ("[event.fields.n][0] > 5", False),
    ("{'a': event.fields.n}['a'] + 1 != 3", True),
    ("!(event.amount > 5000 || {'a': event.fields.x}.a < 3.0)", True),
    ("event.id.startsWith({'a': event.fields.text}['a'])", False),
    ("[event.fields.flag][0]", False),
]


@pytest.mark.parametrize(("when", "matches"), NULLS)
def test_a_comparison_with_a_null_is_false(when: str, matches: bool) -> None:
    """As IEEE's NaN: false but for !=; a value made of a null is null; where a truth is asked for, it is false."""
    assert fires(when) is matches


def test_values_are_compared_as_ever() -> None:
    """The same rules over values give CEL's own answers."""
    values = {"text": "travel", "n": 7, "x": 2.5, "flag": True}
    assert fires(
        "event.fields.text == 'travel' && event.fields.n + 1 == 8 && event.fields.x < 3.0 && event.fields.flag",
        values,
    )
    assert fires(
        "features.customer_count_1d > 5.0 && features.night", values, customer_count_1d=6.0, night=1.0
    )
    assert not fires(
        "features.customer_count_1d > 5.0 && features.night", values, customer_count_1d=6.0, night=0.0
    )
    assert fires("has(event.fields.text) && size(event.fields.text) == 6", values)


def test_the_names_are_the_engines() -> None:
    """A rule may read exactly the features that are computed; those of yes and no are booleans."""
    readable: Any = rules.names(SPEC)["features"]
    assert set(readable) == set(NAMES)
    truths = {
        f.name for f in compile_detector(SPEC).spec.features if f.transform in ("Night", "Weekend", "Equals")
    }
    assert (
        {name for name, one in readable.items() if one.kind is bool}
        == truths
        == feature_set.truth_names(SPEC.features)
    )


LEAVES = {
    "event.fields.n": st.none() | st.integers(-3, 3),
    "event.fields.x": st.none() | st.sampled_from([-1.5, 0.0, 2.0, 3.0]),
    "features.customer_count_1d": st.none() | st.sampled_from([0.0, 1.0, 2.0]),
}
OPERATORS = {
    "<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b, "!=": lambda a, b: a != b,
}  # fmt: skip
OPERANDS = st.sampled_from([*LEAVES, "1", "2.0"])
COMPARISONS = st.tuples(OPERANDS, st.sampled_from(list(OPERATORS)), OPERANDS)
TREES = st.recursive(
    COMPARISONS.map(lambda one: ("compare", *one)),
    lambda inner: (
        st.tuples(st.just("!"), inner)
        | st.tuples(st.sampled_from(["&&", "||", "=="]), inner, inner)
        | st.tuples(st.just("?"), inner, inner, inner)
    ),
    max_leaves=6,
)


def written(tree: Any) -> str:
    if tree[0] == "compare":
        return f"{tree[1]} {tree[2]} {tree[3]}"
    parts = [f"({written(part)})" for part in tree[1:]]
    if tree[0] == "!":
        return f"!{parts[0]}"
    return f"{parts[0]} ? {parts[1]} : {parts[2]}" if tree[0] == "?" else f"{parts[0]} {tree[0]} {parts[1]}"


def truth(tree: Any, values: dict[str, float]) -> bool:
    """The same over doubles with NaN for null, in Python."""
    if tree[0] == "compare":
        left, right = (values[side] if side in values else float(side) for side in (tree[1], tree[3]))
        return bool(OPERATORS[tree[2]](left, right))
    if tree[0] == "!":
        return not truth(tree[1], values)
    if tree[0] == "?":
        return truth(tree[2], values) if truth(tree[1], values) else truth(tree[3], values)
    first, second = truth(tree[1], values), truth(tree[2], values)
    return {"&&": first and second, "||": first or second, "==": first == second}[tree[0]]


@settings(max_examples=300)
@given(TREES, st.fixed_dictionaries(LEAVES))
def test_nulls_behave_as_nan(tree: Any, values: dict[str, Any]) -> None:
    """Any rule over nullable numbers matches where the same expression over doubles with NaN is true."""
    doubles = {name: math.nan if value is None else float(value) for name, value in values.items()}
    fields = {"n": values["event.fields.n"], "x": values["event.fields.x"]}
    count = doubles["features.customer_count_1d"]
    assert fires(written(tree), fields, customer_count_1d=count) is truth(tree, doubles)
