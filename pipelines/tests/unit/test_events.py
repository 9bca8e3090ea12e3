"""The canonical event: what is accepted, what is refused under which reason, and that no error tells a value."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_contracts.config import MAX_EVENT_BYTES
from fraud_contracts.detector import parse_spec
from fraud_contracts.errors import EventError, Reason
from fraud_contracts.records import body_hash
from fraud_contracts.tokens import key_digest
from fraud_pipelines.dead_letter_cipher import CipherError, DeadLetterCipher
from fraud_pipelines.events import MAX_AMOUNT, EventSchema, Tokeniser

NOW = 1_800_000_000_000
KEY = bytes(range(32))


def schema(**event: Any) -> EventSchema:
    spec = parse_spec(
        {
            "event": {
                "id": {"field": "id"},
                "time": {"field": "time"},
                "amount": {"field": "amount", "currency": "EUR"},
                "fields": [
                    {"name": "category", "type": "string"},
                    {"name": "pin", "type": "string"},
                    {"name": "items", "type": "integer"},
                    {"name": "lat", "type": "number"},
                    {"name": "online", "type": "boolean"},
                ],
                "sensitive": ["card", "pin"],
                **event,
            },
            "entities": [{"name": "customer", "field": "card"}, {"name": "counterparty", "field": "shop"}],
        }
    )
    return EventSchema(spec.event, spec.entities)


SCHEMA = schema()
TOKENS = Tokeniser(KEY)


def row(**changes: Any) -> dict[str, Any]:
    whole = {"id": "a1", "time": NOW, "amount": 8.27, "card": "4000123412341234", "shop": "corner", **changes}
    return {key: value for key, value in whole.items() if value is not ...}


def parse(raw: bytes | dict[str, Any], by: EventSchema = SCHEMA) -> Any:
    return by.parse(raw if isinstance(raw, bytes) else orjson.dumps(raw), TOKENS, NOW)[0]


def refused(raw: bytes | dict[str, Any], by: EventSchema = SCHEMA) -> EventError:
    with pytest.raises(EventError) as caught:
        parse(raw, by)
    return caught.value


def test_a_whole_event_becomes_canonical() -> None:
    """Declared fields survive, sensitive ones as tokens, absent ones as null, others not at all."""
    event, digest = SCHEMA.parse(
        orjson.dumps(row(category="food", pin="123", items=2, lat=5, online=True, extra="gone")), TOKENS, NOW
    )
    assert event == {
        "id": "a1",
        "time": NOW,
        "amount": 827,
        "currency": "EUR",
        "entities": {"customer": TOKENS.token("card", "4000123412341234"), "counterparty": "corner"},
        "fields": {
            "category": "food",
            "pin": TOKENS.token("pin", "123"),
            "items": 2,
            "lat": 5.0,
            "online": True,
        },
    }
    assert digest == body_hash(event)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", Reason.INVALID_JSON),
        (b"{", Reason.INVALID_JSON),
        (b'{"id":"\xff"}', Reason.INVALID_JSON),
        (b'{"id":"a","amount":NaN}', Reason.INVALID_JSON),
        (b"\xef\xbb\xbf{}", Reason.INVALID_JSON),
        (b'{"id":"a:b\\u003a","x":' + b"9" * 6000 + b"}", Reason.INVALID_JSON),
        (b"[]", Reason.NOT_AN_OBJECT),
        (b"7", Reason.NOT_AN_OBJECT),
        (b'{"id":"a","id":"a"}', Reason.DUPLICATE_KEY),
        (b'{"id":"a","t":"1:2","id":"a:b"}', Reason.DUPLICATE_KEY),
        (b'{"id":"a","\\u0069d":"b"}', Reason.DUPLICATE_KEY),
        (b'{"id":"a","x":{"y":1,"y":2}}', Reason.DUPLICATE_KEY),
        (b'{"x":' + b"[" * 8 + b"]" * 8 + b"}", Reason.TOO_DEEP),
        (b'{"x":' + b"[" * 2000 + b"]" * 2000 + b"}", Reason.TOO_DEEP),
        (b'{"x":"' + b"y" * MAX_EVENT_BYTES + b'"}', Reason.TOO_LARGE),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bytes_that_are_no_event(raw: bytes, reason: Reason) -> None:
    """Each way in which bytes fail to be one JSON object has its own reason."""
    assert refused(raw).reason is reason


@pytest.mark.parametrize(
    ("changes", "reason", "field"),
    [
        ({"id": ...}, Reason.MISSING_FIELD, "id"),
        ({"id": None}, Reason.MISSING_FIELD, "id"),
        ({"id": ""}, Reason.INVALID_ID, "id"),
        ({"id": "x" * 201}, Reason.INVALID_ID, "id"),
        ({"id": " x"}, Reason.INVALID_ID, "id"),
        ({"id": "x\u00a0"}, Reason.INVALID_ID, "id"),
        ({"id": "x\ny"}, Reason.INVALID_ID, "id"),
        ({"id": "x\u200by"}, Reason.INVALID_ID, "id"),
        ({"id": "e\u0301"}, Reason.INVALID_ID, "id"),
        ({"id": True}, Reason.WRONG_TYPE, "id"),
        ({"id": 1.5}, Reason.WRONG_TYPE, "id"),
        ({"id": {"a": 1}}, Reason.WRONG_TYPE, "id"),
        ({"time": ...}, Reason.MISSING_FIELD, "time"),
        ({"time": str(NOW)}, Reason.WRONG_TYPE, "time"),
        ({"time": True}, Reason.WRONG_TYPE, "time"),
        ({"time": NOW / 1000}, Reason.WRONG_TYPE, "time"),
        ({"time": NOW // 1000}, Reason.INVALID_TIME, "time"),
        ({"time": -NOW}, Reason.INVALID_TIME, "time"),
        ({"time": NOW + 300_001}, Reason.TIME_IN_FUTURE, "time"),
        ({"amount": ...}, Reason.MISSING_FIELD, "amount"),
        ({"amount": "8.27"}, Reason.WRONG_TYPE, "amount"),
        ({"amount": False}, Reason.WRONG_TYPE, "amount"),
        ({"amount": [1]}, Reason.WRONG_TYPE, "amount"),
        ({"amount": 8.275}, Reason.INVALID_AMOUNT, "amount"),
        ({"amount": -0.01}, Reason.INVALID_AMOUNT, "amount"),
        ({"amount": -1}, Reason.INVALID_AMOUNT, "amount"),
        ({"amount": 1e300}, Reason.INVALID_AMOUNT, "amount"),
        ({"amount": MAX_AMOUNT // 100 + 0.01}, Reason.INVALID_AMOUNT, "amount"),
        ({"card": ...}, Reason.MISSING_FIELD, "card"),
        ({"card": ""}, Reason.INVALID_ENTITY, "card"),
        ({"card": 1.0}, Reason.WRONG_TYPE, "card"),
        ({"card": True}, Reason.WRONG_TYPE, "card"),
        ({"shop": "a\tb"}, Reason.INVALID_ENTITY, "shop"),
        ({"category": 5}, Reason.WRONG_TYPE, "category"),
        ({"items": 5.0}, Reason.WRONG_TYPE, "items"),
        ({"items": True}, Reason.WRONG_TYPE, "items"),
        ({"items": 2**53}, Reason.WRONG_TYPE, "items"),
        ({"lat": "5"}, Reason.WRONG_TYPE, "lat"),
        ({"online": 1}, Reason.WRONG_TYPE, "online"),
        ({"decision": {"action": "approve"}}, Reason.CARRIES_DECISION, "decision"),
    ],
)
def test_a_wrong_field(changes: dict[str, Any], reason: Reason, field: str) -> None:
    """A wrong value is refused under its reason, and the error names the field, not the value."""
    error = refused(row(**changes))
    assert (error.reason, error.field) == (reason, field)
    assert field in error.message
    value = changes[field]
    if isinstance(value, str) and len(value) > 4:
        assert value not in error.message


def test_an_error_past_the_id_carries_it() -> None:
    """A dead letter can name its transaction as soon as the id itself is sound."""
    assert refused(row(amount="x")).event_id == "a1"
    assert refused(row(id="")).event_id is None
    assert refused(row(decision={})).event_id == "a1"


def test_integer_identifiers_are_text() -> None:
    """An identifier sent as an integer and as its digits is the same identifier."""
    assert parse(row(id=7, card=12, shop=9)) == parse(row(id="7", card="12", shop="9"))


def test_an_absent_counterparty_is_null() -> None:
    """Only the first entity is required; an event without a later one skips that entity's features."""
    assert parse(row(shop=...))["entities"]["counterparty"] is None
    assert parse(row(shop=None))["entities"]["counterparty"] is None


@given(st.integers(0, MAX_AMOUNT))
def test_every_decimal_amount_is_exact(minor: int) -> None:
    """Any amount of two decimal places arrives as the very minor units it was written from."""
    text = f"{minor // 100}.{minor % 100:02d}"
    assert parse(orjson.dumps(row(amount=...))[:-1] + b',"amount":' + text.encode() + b"}")["amount"] == minor
    assert SCHEMA.canonical(row(amount=text, time=str(NOW)), TOKENS, NOW)["amount"] == minor


@pytest.mark.parametrize(
    "text", [b"8.270000000000000001", b"8.27e-1", b"99999999999.999", b"0.005", b"1e-30"]
)
def test_digits_beyond_the_scale_are_refused(text: bytes) -> None:
    """An amount that isn't a whole number of minor units is refused, even where a double would hide it."""
    error = refused(orjson.dumps(row(amount=...))[:-1] + b',"amount":' + text + b"}")
    assert error.reason is Reason.INVALID_AMOUNT


def test_trailing_zeros_and_exponents_are_fine() -> None:
    """The decimal's value counts, not how it is written."""
    base = orjson.dumps(row(amount=...))[:-1]
    for text in (b"8.2700000000000000000000", b"0.0827e2", b"827E-2"):
        assert parse(base + b',"amount":' + text + b"}")["amount"] == 827


def test_scale_zero_takes_minor_units() -> None:
    """With scale 0 the amount is minor units already, and a fraction is refused."""
    plain = schema(amount={"field": "amount", "scale": 0})
    assert parse(row(amount=827), plain)["amount"] == 827
    assert refused(row(amount=8.5), plain).reason is Reason.INVALID_AMOUNT


def test_a_currency_field_must_hold_the_detectors_currency() -> None:
    """Only the declared currency passes; the refusal names the field and the currency that it must hold."""
    field = schema(amount={"field": "amount", "currency": "USD", "currencyField": "cur"})
    assert parse(row(cur="USD"), field)["currency"] == "USD"
    for wrong in ("EUR", "JPY", "KWD", "ZZZ", "usd", "USD ", "", None, 978, ["USD"]):
        error = refused(row(cur=wrong), field)
        assert (error.reason, error.field) == (Reason.WRONG_CURRENCY, "cur")
        assert error.message == "cur must hold USD, the detector's currency"
    assert refused(row(), field).reason is Reason.WRONG_CURRENCY


def test_a_currency_field_without_a_currency_takes_nothing() -> None:
    """A spec stored before both were asked for lets no mixed currencies through."""
    field = schema(amount={"field": "amount", "currencyField": "cur"})
    for code in ("USD", "EUR", None):
        assert refused(row(cur=code), field).reason is Reason.WRONG_CURRENCY


@pytest.mark.parametrize(
    ("unit", "text", "ms"),
    [
        ("s", b"1735689622", 1_735_689_622_000),
        ("s", b"1735689622.5", 1_735_689_622_500),
        ("s", b"1735689622.001", 1_735_689_622_001),
        ("s", b"1735689622.001999999999999", 1_735_689_622_001),
        ("rfc3339", b'"2025-01-01T00:00:22Z"', 1_735_689_622_000),
        ("rfc3339", b'"2025-01-01T01:00:22.1234567+01:00"', 1_735_689_622_123),
        ("rfc3339", b'"2025-01-01t00:00:22.5z"', 1_735_689_622_500),
    ],
)
def test_units_of_time(unit: str, text: bytes, ms: int) -> None:
    """Each unit reads to the millisecond; finer digits are cut."""
    by = schema(time={"field": "time", "unit": unit})
    assert parse(orjson.dumps(row(time=...))[:-1] + b',"time":' + text + b"}", by)["time"] == ms


@pytest.mark.parametrize(
    "text",
    [
        "2025-01-01T00:00:22",
        "2025-02-30T00:00:22Z",
        "2025-01-01",
        "2025-01-01T24:00:60Z",
        "soon",
        "2025-01-01T00:00:22+99:00",
    ],
)
def test_a_time_without_a_zone_or_outside_the_calendar(text: str) -> None:
    """RFC 3339 needs a zone and a real date."""
    assert (
        refused(row(time=text), schema(time={"field": "time", "unit": "rfc3339"})).reason
        is Reason.INVALID_TIME
    )


def test_history_rows_read_as_events_do() -> None:
    """A CSV row, a Parquet row and the JSON event of one transaction have one canonical form."""
    by = schema(time={"field": "time", "unit": "s"})
    event = parse(row(time=1735689622, items=2, lat=1.5, online=True), by)
    text = row(time="1735689622", amount="8.27", items="2", lat="1.5", online="true", category="", pin="")
    assert by.canonical(text, TOKENS, NOW) == event
    typed = row(
        time=datetime(2025, 1, 1, 0, 0, 22, tzinfo=UTC), amount=Decimal("8.27"), items=2, lat=1.5, online=True
    )
    assert by.canonical(typed, TOKENS, NOW) == event


@pytest.mark.parametrize("text", ["1,5", "0x10", "1_000", "nan", "inf", " 1", "٣", "1.2.3"])
def test_history_text_that_is_no_number(text: str) -> None:
    """Only plain decimals count as numbers; what Python would tolerate beyond them is refused."""
    with pytest.raises(EventError) as caught:
        SCHEMA.canonical(row(amount=text), TOKENS, NOW)
    assert caught.value.reason is Reason.WRONG_TYPE


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["id", "time", "amount", "card", "shop", "category", "items", "lat", "x:y", "é"]),
        values,
    )
)
def test_anything_is_judged(whole: dict[str, Any]) -> None:
    """Whatever JSON comes in, the answer is an event or an EventError, and an event keeps its hash through orjson."""
    raw = json.dumps(whole).encode("utf-8", "surrogatepass")
    try:
        event, digest = SCHEMA.parse(raw, TOKENS, NOW)
    except EventError:
        return
    assert digest == body_hash(orjson.loads(orjson.dumps(event)))


@given(st.text(max_size=30), st.text(max_size=30))
def test_both_writers_give_one_hash(category: str, shop: str) -> None:
    """The fast hash of a schema without floats is the documented one, for any text."""
    by = schema(fields=[{"name": "category"}])
    try:
        event, digest = by.parse(orjson.dumps(row(category=category, shop=shop)), TOKENS, NOW)
    except (EventError, orjson.JSONEncodeError):
        return
    assert digest == body_hash(event)


def test_tokens_depend_on_field_key_and_value() -> None:
    """A token tells its field, key and value apart, is stable, and has a fixed form."""
    tokens = {
        TOKENS.token("a", "x"),
        TOKENS.token("b", "x"),
        TOKENS.token("a", "y"),
        Tokeniser(bytes(32)).token("a", "x"),
        TOKENS.token("a", "x"),
    }
    assert len(tokens) == 4
    assert all(len(token) == 34 and token.startswith("t_") for token in tokens)
    with pytest.raises(ValueError, match="short"):
        Tokeniser(b"short")
    with pytest.raises(ValueError, match="hexadecimal"):
        Tokeniser.from_hex("zz")


def test_another_key_than_the_detectors_makes_no_tokens() -> None:
    """A process whose TOKEN_KEY isn't the one that stored tokens were made with ends with a message that says what to do."""
    assert Tokeniser.from_hex(KEY.hex(), key_digest(KEY)).token("a", "x") == TOKENS.token("a", "x")
    with pytest.raises(ValueError, match="put the former one back"):
        Tokeniser.from_hex(bytes(32).hex(), key_digest(KEY))


@given(st.binary(max_size=200))
def test_a_sealed_payload_opens_only_with_its_key(payload: bytes) -> None:
    """What is sealed comes back whole under its key and not at all under another or after a change."""
    cipher = DeadLetterCipher(DeadLetterCipher.new_key())
    sealed = cipher.encrypt(payload)
    assert cipher.decrypt(sealed) == payload
    with pytest.raises(CipherError):
        DeadLetterCipher(DeadLetterCipher.new_key()).decrypt(sealed)
    with pytest.raises(CipherError):
        cipher.decrypt(sealed[:-8] + "AAAAAAAA")
