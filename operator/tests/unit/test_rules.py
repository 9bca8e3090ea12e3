"""Rules at admission: what silently would never fire, or would fail, is refused with the name at fault and a remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cel
import pytest
import yaml

from fraud_contracts import rule_names, rules
from fraud_contracts.detector import parse_spec
from fraud_operator.detector import Detector, check
from fraud_operator.settings import Platform, StorageSettings, StoreAddresses

ROOT = Path(__file__).resolve().parents[3]
PLATFORM = Platform(
    storage=StorageSettings(uri="s3://x-bucket"),
    stores=StoreAddresses(
        redis_url="redis://x", postgres_dsn="postgresql://x", mlflow_tracking_uri="http://x"
    ),
)
FIELDS = [
    {"name": "category", "type": "string"},
    {"name": "items", "type": "integer"},
    {"name": "km", "type": "number"},
    {"name": "online", "type": "boolean"},
    {"name": "e-mail", "type": "string"},
    {"name": "pin", "type": "integer"},
    {"name": "a.b", "type": "integer"},
]


def body(*when: str) -> dict[str, Any]:
    detector: dict[str, Any] = yaml.safe_load((ROOT / "manifests/examples/payments.yaml").read_text())
    detector["metadata"]["namespace"] = "tests"
    detector["spec"]["event"]["fields"] = FIELDS
    detector["spec"]["event"]["sensitive"].append("pin")
    detector["spec"]["policy"]["rules"] = [
        {"name": f"rule-{i}", "when": text, "action": "Decline"} for i, text in enumerate(when)
    ]
    return detector


def problems(*when: str) -> list[str]:
    """What is wrong, as the condition shows it."""
    return [str(error) for error in check(Detector.parse(body(*when), PLATFORM))]


# (rule, what its message must hold)
REFUSED = [
    # names
    (
        "features.customer_cnt_1d > 5.0",
        "features.customer_cnt_1d, which isn't there; did you mean customer_count_1d",
    ),
    ("event.fields.categroy == 'travel'", "event.fields.categroy, which isn't there; did you mean category?"),
    ("event.fields.shoe == 'travel'", "Else declare it in spec.event.fields"),
    ("event.amont > 5", "event.amont, which isn't there; did you mean amount?"),
    (
        "event.entities.costumer == event.id",
        "event.entities.costumer, which isn't there; did you mean customer?",
    ),
    ("event['fields']['categroy'] == 'x'", "did you mean category?"),
    ("has(event.fields.categroy)", "did you mean category?"),
    ("event.amount > 0 || event.amont > 5", "event.amont"),
    ("false && event.amont > 5", "event.amont"),
    ("[1].exists(x, x > event.amont)", "event.amont"),
    ("event.amount.cents > 5", "event.amount.cents, but event.amount is a number without parts"),
    ("world.ends", "reads world; it may read event and features only"),
    ("amount > 5", "reads amount; it may read event and features only"),
    ("event.fields[event.id] == 'x'", "reads event.fields as a whole; name one of its values: a.b, category"),
    ("features.exists(f, f > 1.0)", "reads features as a whole"),
    ("event == event", "reads event as a whole"),
    # functions
    ("event.fields.category.lower() == 'travel'", "calls lower, which CEL hasn't"),
    ("event.fields.category.startswith('t')", "calls startswith, which CEL hasn't; did you mean startsWith"),
    ("startsWith(event.fields.category, 't')", "can't be evaluated at startsWith"),
    ("now() > 5", "calls now, which CEL hasn't"),
    (
        "timestamp(event.time).getHours() < 6",
        "write timestamp as timestamp('2026-01-31T12:00:00Z'), of a string",
    ),
    (
        "timestamp(event.time).getHours() < 6",
        "event.time is in ms: use features.night, or event.time / 3600000 % 24",
    ),
    ("timestamp(event.fields.category).getHours('Europe/Berlin') < 6", "in UTC and without an argument"),
    ("matches(event.fields.category, 'y')", "write matches as 'text'.matches('x')"),
    ("int(event.fields.online) == 1", "write int as int(x), of a number or a string"),
    ("event.amount.contains('1')", "write contains as 'text'.contains('x')"),
    # types
    ("event.amount", "gives a number at event.amount, not true or false"),
    ("features.customer_count_1d", "gives a number at features.customer_count_1d"),
    ("features.night ? event.amount : event.time", "gives a number at event.amount"),
    ("features.night ? true : event.amount", "gives a number at event.amount"),
    ("features.night && event.amount", "gives a number at event.amount"),
    ("!event.amount", "gives a number at event.amount"),
    ("event.amount == 'x'", "event.amount is a number, 'x' is a string"),
    ("'x' != event.amount", "'x' is a string, event.amount is a number"),
    ("event.fields.category > 5.0", "event.fields.category is a string, 5.0 is a number"),
    ("event.amount < 0 && event.fields.category > 5.0", "event.fields.category is a string"),
    ("event.fields.online == 1", "event.fields.online is a boolean, 1 is a number"),
    ("features.night == 1.0", "features.night is a boolean"),
    ("event.fields.category in [1, 2]", "holds a number"),
    ("event.fields.category in 'travel'", "write a list"),
    ("event.amount + 1.5 > 5.0", "can't be evaluated at event.amount + 1.5"),
    ("['a'].exists(c, c > 5)", "c is a string, 5 is a number"),
    ("1", "gives a number at 1"),
    ("event.fields.items in [1, '7']", "event.fields.items is a number, [1, '7'] holds a string"),
    ("[event.fields.items] == ['7']", "[event.fields.items] holds a number, ['7'] holds a string"),
    ("(event.amount > 9000 ? 5 : 'a') == event.id", "chooses between 5, which is a number, and 'a'"),
    ("(event.amount < 9000 ? 5 : size(event.amount)) == 5", "can't be evaluated at size(event.amount)"),
    ("{'travel': '9'}[event.fields.category] == event.amount", "is a string, event.amount is a number"),
    # within macros
    ("['a', 'b'].exists(i, event.fields.items == i)", "event.fields.items is a number, i is a string"),
    ("['a', 'b'].all(i, event.fields.items != i)", "event.fields.items is a number, i is a string"),
    ("[1, 2].exists(i, event.fields.category == i)", "event.fields.category is a string, i is a number"),
    (
        "[1, 2].exists(i, event.fields.category in [i])",
        "event.fields.category is a string, [i] holds a number",
    ),
    ("[1].exists(i, ['a'].exists(j, i == j))", "i is a number, j is a string"),
    ("[[1], [2]].exists(i, i.exists(j, j == event.id))", "j is a number, event.id is a string"),
    ("['a'].map(c, size(c)).exists(n, n == event.id)", "n is a number, event.id is a string"),
    ("['a'].filter(c, c == 'b').exists(c, c == event.amount)", "c is a string, event.amount is a number"),
    ("['a'].filter(c, c == 'b').map(c, c).exists(c, c == event.amount)", "c is a string, event.amount"),
    ("event.amount in ['a'].filter(c, c == 'b')", "event.amount is a number"),
    (
        "[1, '7'].exists(i, event.fields.items == i)",
        "goes through [1, '7'], which holds a number and a string",
    ),
    ("event.amount.exists(i, i == 1)", "goes through event.amount, which is a number; write a list"),
    ("['a'].exists(i, i)", "gives a string at i, not true or false"),
    ("[[1]].exists(i, i.exists(i, i == 2))", "write it as list.exists(x, …), with a name of its own"),
    # what can never be true, or never be evaluated
    ("event.fields.category == null", "write has(…) or !has(…)"),
    ("event.amount / 0 > 1", "division by zero"),
    ("event.fields.category.matches('(')", "not a valid regex"),
    (
        "event.entities.customer == '4111111111111111'",
        "holds tokens, with a plain value; put the value on a list",
    ),
    ("event.fields.pin in ['1234']", "holds tokens"),
    # tokens: only equality with a token, or with a name of the same field, can ever be true
    ("event.fields.pin == event.entities.customer", "tokens of two fields, which are never equal"),
    ("event.entities.customer != event.fields.category", "holds tokens, with a plain value"),
    ("'4000' in [event.fields.pin]", "holds tokens, with a plain value"),
    ("event.fields.pin in [event.fields.category]", "holds tokens, with a plain value"),
    ("[event.fields.pin] == ['1234']", "holds tokens, with a plain value"),
    ("['4000'].exists(p, event.fields.pin == p)", "holds tokens, with a plain value"),
    ("event.entities.customer < 't_0123456789abcdef0123456789abcdef'", "holds tokens, where only ==, !="),
    ("event.entities.customer.startsWith('4000')", "put the value on a list of spec.policy.lists"),
    ("event.entities.customer.matches('^4')", "holds tokens, where only ==, !=, in and has can take it"),
    ("size(event.fields.pin) == 16", "holds tokens, where"),
    ("event.fields.pin + '' == '1234'", "holds tokens, where"),
    ("(features.night ? event.fields.pin : '0') == '1234'", "holds tokens, where"),
    ("[event.fields.pin].exists(p, p == '1234')", "holds tokens, with a plain value"),
    ("[event.fields.pin].exists(p, p.startsWith('4'))", "holds tokens, where"),
    ("{event.fields.pin: true}['1234']", "holds tokens, where"),
    # syntax
    ("event.amount > 5 and", "is no CEL expression"),
    ("event.amount = 5", "is no CEL expression"),
    ("(" * 300 + "true" + ")" * 300, "is"),
]
TAKEN = [
    "event.amount > 100000 && !(features.customer_seconds_since_last < 86400.0)",
    "event.amount > 500000 && features.night",
    "event.amount > 5.5 && event.time > 1780000000000",
    "event.currency == 'USD' && event.id.startsWith('test-')",
    "event.entities.counterparty == 'm1' || event.entities.customer == 't_0123456789abcdef0123456789abcdef'",
    "event.fields.category in ['travel', 'food'] && has(event.fields.km)",
    "event.fields['e-mail'].endsWith('@example.com')",
    "event.fields.items > 5 && event.fields.km / 2.0 < 1.0 && !event.fields.online",
    "event.fields.online == true",
    "(features.night ? features.customer_count_1d : 3.0) > 5.0",
    "features.night ? event.amount > 5 : event.fields.items == 1",
    "['a', 'b'].exists(c, event.fields.category.startsWith(c))",
    "['a', 'b'].map(c, c + event.id).exists_one(c, c == event.fields.category)",
    "size(event.fields.category) > 3 && event.fields.category.matches('^tr.*$')",
    "timestamp(event.fields.category) < timestamp('2026-01-01T00:00:00Z')",
    "int(event.id) % 10 == 3 || duration(event.fields.category) > duration('2h')",
    "event.amount / event.fields.items > 100 && event.amount / (event.fields.items - 1) > 5",
    "'event.amont > 5' == event.fields.category // event.amont",
    "type(event.amount) == int",
    "event.fields['a.b'] == 1",
    "event.entities.customer != 't_0123456789abcdef0123456789abcdef' && has(event.fields.pin)",
    "event.fields.pin in ['t_0123456789abcdef0123456789abcdef', \"t_ffffffffffffffffffffffffffffffff\"]",
    "'t_0123456789abcdef0123456789abcdef' in [event.fields.pin]",
    "['t_0123456789abcdef0123456789abcdef'].exists(p, (event.fields.pin) == p)",
    "[1, 2].exists(i, i == event.fields.items) || {'a': 1}.exists(k, k == event.fields.category)",
    "[features.night, event.amount > 5, event.fields.online].filter(b, b).size() >= 2",
    "[].exists(i, i == event.fields.items)",
    "['a'].exists(i, i == event.id && [1].exists(i, i == event.amount) && i == 'b')",
    "[[1]].exists(i, i.exists(j, j == event.amount && i == [1]))",
    "event.amount > {'travel': 100000, 'food': 20000}[event.fields.category]",
    "(event.fields.category in {'food': 1} ? {'food': 20000}[event.fields.category] : 5) < event.amount",
    r"""event.fields.category == r"\" || event.fields.category == r'\' + "' == event.amount" """,
    r"""event.fields.category.matches(r'^\d+') || bytes(event.id) == bR"\x" || event.id == R'''a'\''' """,
    "(has(event.fields.km) ? duration(event.fields.category) : duration('2h')) > duration('1h')",
    "true",
]


@pytest.mark.parametrize(("when", "message"), REFUSED)
def test_a_rule_that_would_never_fire_is_refused(when: str, message: str) -> None:
    """The path, the name or type at fault, and what to write."""
    [problem] = problems("true", when)
    assert problem.startswith("spec.policy.rules[1].when: rule 'rule-1' ")
    assert message in problem, problem


@pytest.mark.parametrize("when", TAKEN)
def test_a_sound_rule_is_taken(when: str) -> None:
    """What can be true of some event is no error, whatever else its words look like."""
    assert problems(when) == []


def test_currency_is_there_where_it_is_declared() -> None:
    """A detector without a currency has none to compare."""
    changed = body("event.currency == 'USD'")
    del changed["spec"]["event"]["amount"]["currency"]
    [problem] = check(Detector.parse(changed, PLATFORM))
    assert "where spec.event.amount.currency is" in problem.message


def test_two_names_of_one_sensitive_field_can_be_compared() -> None:
    """Tokens are made by the field: an entity and a declared field of it hold the same ones."""
    changed = body(
        "event.entities.customer == event.fields.card && event.fields.card in [event.entities.customer]"
    )
    changed["spec"]["event"]["fields"] = [*FIELDS, {"name": "card", "type": "string"}]
    assert check(Detector.parse(changed, PLATFORM)) == []


def test_a_rule_that_grows_without_bound_is_refused() -> None:
    """Choices within choices, and elements of lists, would double with each level; the check ends early."""
    when = "features.night"
    for _ in range(22):
        when = f"(({when} ? features.hour : 1.0) > 0.0)"
    deep = "[" * 10 + "event.fields.items" + "][0]" * 10 + " == 1"
    wide = " && ".join(["[" * 7 + "event.fields.items" + "][0]" * 7 + " == 1"] * 14)
    for grown in (when, deep, wide):
        [problem] = problems(grown)
        assert "make several rules of it" in problem


def test_the_functions_are_the_librarys() -> None:
    """What the check lets pass the library has: each is called here on something that it takes."""
    one = {
        "has": "has({'a': 1}.a)", "size": "size('a')", "int": "int('1')", "uint": "uint('1')", "double": "double('1')",
        "string": "string(1)", "bytes": "bytes('a')", "timestamp": "timestamp('2026-01-31T12:00:00Z')",
        "duration": "duration('1h')", "type": "type(1)", "dyn": "dyn(1)",
    }  # fmt: skip
    for name in rule_names.FUNCTIONS:
        of = "timestamp('2026-01-31T12:00:00Z')." if name.startswith("get") else "'a'."
        text = one.get(name, f"{of}{name}({'' if name.startswith('get') else repr('a')})")
        cel.compile(text).execute()


def test_every_value_can_be_read_with_its_type() -> None:
    """Declared fields and features by their types; a sensitive one is a token, a string."""
    spec = parse_spec(body("true")["spec"])
    readable: Any = rules.names(spec)
    assert {name: one.kind for name, one in readable["event"]["fields"].items()} == {
        "category": str, "items": int, "km": float, "online": bool, "e-mail": str, "pin": str, "a.b": int,
    }  # fmt: skip
    assert readable["features"]["night"].kind is bool and readable["features"]["hour"].kind is float


TEN = "[0,1,2,3,4,5,6,7,8,9]"


def nested(depth: int, macro: str = "all", inner: str = "event.amount >= 0") -> str:
    return f"{TEN}.{macro}(x, " * depth + inner + ")" * depth


@pytest.mark.parametrize(
    "when",
    [
        nested(4),
        nested(6),
        "[1].all(x, " * 40 + "true" + ")" * 40,
        " || ".join([r"event.id.matches('^\\w{90}$')"] * 20),
        f"size({nested(3, 'map', TEN)}) > 0",
        f"{nested(2, 'map', TEN)}.exists(x, x.exists(y, y.exists(z, z > 0)))",
        "['a']" + ".map(x, x + x)" * 12 + " == ['a']",
        "['a']" + ".map(x, [x, x])" * 12 + " == [['a']]",
        nested(2, inner="event.id.matches('^a.*$')"),
        r"event.id.matches('(\\w{100}){100}')",
        r"[0,1].exists(x, event.id.matches('(\\w{20}){30}'))",
    ],
)
def test_a_rule_that_multiplies_is_refused(when: str) -> None:
    """Lists within lists multiply, in steps as in memory, and so do counts in a pattern: it is refused before anything runs."""
    [problem] = problems(when)
    assert "takes more than 1,000 steps" in problem and "shorten the lists" in problem, problem


@pytest.mark.parametrize(
    "when",
    [
        nested(2),
        f"{nested(1, 'map', '[x, x + 1]')}.exists(x, x.exists(y, y == event.amount))",
        f"event.id in {['m' + str(i) for i in range(90)]}",
        f"{[str(i) for i in range(90)]}.exists(x, event.id.startsWith(x))",
        "['^a', '^b.*$', 'c$'].exists(p, event.id.matches(p))",
        r"event.id.matches('^\\d{4}-\\d{4}-\\d{4}$') || event.id.matches('^[A-Z]{2}[0-9]{2,30}$')",
        r"event.id.matches('^(\\d{4}-){3}\\d{4}$') && event.id.matches('^[0-9a-f]{64}$')",
    ],
)
def test_a_rule_with_lists_of_a_sound_length_is_taken(when: str) -> None:
    """Two levels of ten, a list of ninety, patterns with counts as account numbers have them."""
    assert problems(when) == []


@pytest.mark.parametrize(
    "when",
    ["(" * 999, "(" * 499 + "1" + ")" * 499, "!" * 996 + "true", "-" * 995 + "1 < 0", "[" * 999, "[" * 499 + "]" * 499,
     "{1:" * 200 + "1" + "}" * 200, "true ? " * 70 + "true" + " : true" * 70, "true ? true : " * 70 + "true",
     "event." * 160 + "id", "1 == (" * 140 + "1" + ")" * 140, "size(" * 160 + "'a'" + ")" * 160],
)  # fmt: skip
def test_a_rule_that_is_nested_too_deep_is_refused(when: str) -> None:
    """However deep a thousand characters nest: an answer in words, and no crash."""
    assert all("rule 'rule-0' " in problem for problem in problems(when))
