"""From what a payment system sends to the canonical event: checked, in exact integers, tokenised, only declared fields.

Both doors and the import of history run this one code, so that an event has the same body hash whichever way it came.
An error names the field at fault and never its value: messages end up in logs and dead letters.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NoReturn

import orjson

from fraud_contracts import durations, tokens
from fraud_contracts.detector_event import Entity, EventSpec, FieldType, TimeUnit
from fraud_contracts.errors import EventError, Reason
from fraud_contracts.event_values import MAX_INTEGER, MIN_TIME, identifier
from fraud_contracts.raw_json import decode, reread
from fraud_contracts.records import Event, Scalar, body_hash

MAX_FIELD_TEXT: Final = 1_000
MAX_AMOUNT: Final = 10**13  # minor units; far below 2^53, so doubles and int64 sums stay exact

# A number written with so few characters has at most 15 digits, which a double keeps.
_SHORT_NUMBER: Final = 15
_DECIMAL: Final = re.compile(r"-?(0|[1-9][0-9]{0,19})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?")
_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]{0,18})")
_RFC3339: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
TRUE_WORDS, FALSE_WORDS = ("1", "true", "t", "yes"), ("0", "false", "f", "no")


class Tokeniser:
    """Replaces a sensitive value by a keyed token: equal values of one field give equal tokens, nothing else shows."""

    def __init__(self, key: bytes) -> None:
        if len(key) < 16:
            raise ValueError("the token key is too short: give at least 16 random bytes, better 32")
        self._key = key

    @classmethod
    def from_hex(cls, text: str, digest: str | None = None) -> Tokeniser:
        """From the form that TOKEN_KEY has in the detector's Secret.

        ValueError where it is no key, or another one than that of ``digest``, which the detector's stored tokens were made with.
        """
        try:
            tokeniser = cls(bytes.fromhex(text))
        except ValueError as error:
            raise ValueError("TOKEN_KEY must be hexadecimal, 32 random bytes") from error
        if digest is not None and digest != tokens.key_digest(tokeniser._key):
            raise ValueError(
                "TOKEN_KEY isn't the key that this detector's tokens were made with: put the former one back into its Secret"
            )
        return tokeniser

    def token(self, field: str, value: str) -> str:
        return tokens.token(self._key, field, value)


def _fail(reason: Reason, field: str, problem: str, event_id: str | None = None) -> NoReturn:
    raise EventError(reason, f"{field} {problem}", field, event_id)


class EventSchema:
    """What one detector calls a transaction. Made once per process; ``parse`` is on the hot path."""

    def __init__(self, event: EventSpec, entities: list[Entity]) -> None:
        sensitive = frozenset(event.sensitive)
        self._id = event.id.field
        self._time, self._unit = event.time.field, event.time.unit
        self._skew = durations.to_ms(event.time.max_future_skew)
        self._amount, self._scale, self._power = (
            event.amount.field,
            event.amount.scale,
            10**event.amount.scale,
        )
        self._currency, self._currency_field = event.amount.currency, event.amount.currency_field
        self._entities = [(e.name, e.field, e.field in sensitive, i == 0) for i, e in enumerate(entities)]
        self._fields = [(f.name, f.type, f.name in sensitive) for f in event.fields]
        # Floats print differently in orjson and in the standard library; only the latter defines the hash.
        self._decimals = [(f, _literal(f)) for f in (self._amount, self._time)]
        self._plain = all(f.type is not FieldType.NUMBER or f.name in sensitive for f in event.fields)

    def parse(self, raw: bytes, tokeniser: Tokeniser, now_ms: int) -> tuple[Event, str]:
        """The canonical event of a raw transaction and its body hash; EventError says why there is none.

        ``now_ms`` is the append or arrival time that ``maxFutureSkew`` is measured from.
        """
        document, exact = decode(raw)
        if not exact:
            # Flat and without escapes here, so a field's name in quotes and a colon is that field and no text.
            for field, literal in self._decimals:
                if document.get(field).__class__ is float:
                    match = literal.search(raw)
                    if match is None or len(match[1]) > _SHORT_NUMBER:
                        document = reread(raw)
                        break
        if "decision" in document:
            event_id = identifier(document.get(self._id), self._id)
            raise EventError(
                Reason.CARRIES_DECISION,
                "the transaction carries a decision; only the decision service may add one",
                "decision",
                event_id,
            )
        event = self._event(document, tokeniser, now_ms)
        return event, self.hash(event)

    def canonical(self, row: Mapping[str, Any], tokeniser: Tokeniser, now_ms: int) -> Event:
        """The canonical event of a history row, whose numbers may be text (CSV) and whose times may be datetimes (Parquet).

        An empty cell counts as absent. Everything else is judged as in ``parse``.
        """
        return self._event(self._typed(row), tokeniser, now_ms)

    def hash(self, event: Event) -> str:
        """``records.body_hash``, faster where both writers give the same bytes."""
        if self._plain:
            return hashlib.sha256(orjson.dumps(event, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]
        return body_hash(event)

    def _event(self, document: Mapping[str, Any], tokeniser: Tokeniser, now_ms: int) -> Event:
        event_id = identifier(document.get(self._id), self._id)
        time = self._time_ms(document.get(self._time), event_id)
        if time < MIN_TIME:
            _fail(
                Reason.INVALID_TIME, self._time, f"is before 2000-01-01; its unit is {self._unit}", event_id
            )
        if time > now_ms + self._skew:
            _fail(
                Reason.TIME_IN_FUTURE,
                self._time,
                "is in the future by more than event.time.maxFutureSkew",
                event_id,
            )
        # Before the amount: another currency has other decimals, too.
        if self._currency_field is not None and (
            self._currency is None or document.get(self._currency_field) != self._currency
        ):
            _fail(
                Reason.WRONG_CURRENCY,
                self._currency_field,
                f"must hold {self._currency}, the detector's currency"
                if self._currency is not None
                else "can't be checked: the detector lacks event.amount.currency",
                event_id,
            )
        amount = self._minor(document.get(self._amount), event_id)
        entities: dict[str, str | None] = {}
        for name, field, sensitive, required in self._entities:
            value = document.get(field)
            if value is None and not required:
                entities[name] = None
                continue
            text = identifier(value, field, Reason.INVALID_ENTITY, Reason.MISSING_FIELD, event_id)
            entities[name] = tokeniser.token(field, text) if sensitive else text
        fields: dict[str, Scalar] = {}
        for field, kind, sensitive in self._fields:
            value = document.get(field)
            if value is not None:
                value = _scalar(value, field, kind, event_id)
                if sensitive:
                    value = tokeniser.token(field, str(value))
            fields[field] = value
        return {
            "id": event_id,
            "time": time,
            "amount": amount,
            "currency": self._currency,
            "entities": entities,
            "fields": fields,
        }

    def _time_ms(self, value: Any, event_id: str) -> int:
        kind = value.__class__
        if value is None:
            _fail(Reason.MISSING_FIELD, self._time, "is missing", event_id)
        if isinstance(value, datetime):  # pandas' own, too, which holds nanoseconds
            if value.tzinfo is None:
                _fail(Reason.INVALID_TIME, self._time, "has no time zone", event_id)
            return int((value - EPOCH) // timedelta(milliseconds=1))
        if self._unit is TimeUnit.RFC3339:
            if kind is not str:
                _fail(Reason.WRONG_TYPE, self._time, "must be an RFC 3339 string", event_id)
            return self._rfc3339(value, event_id)
        if self._unit is TimeUnit.MS:
            if kind is not int:
                _fail(Reason.WRONG_TYPE, self._time, "must be an integer number of milliseconds", event_id)
            return int(value)
        if kind is int:
            return int(value) * 1000
        if kind is float or kind is Decimal:
            # Exact to the millisecond; finer digits are cut.
            number = value if kind is Decimal else Decimal(repr(value))
            if number.is_finite() and abs(number) < 10**12:
                return int((number * 1000).to_integral_value("ROUND_FLOOR"))
            _fail(Reason.INVALID_TIME, self._time, "is out of range", event_id)
        _fail(Reason.WRONG_TYPE, self._time, "must be a number of seconds", event_id)

    def _rfc3339(self, value: str, event_id: str) -> int:
        match = _RFC3339.fullmatch(value) if len(value) <= 40 else None
        if match is None:
            _fail(
                Reason.INVALID_TIME,
                self._time,
                "must be RFC 3339 with a zone, as in 2026-01-31T12:00:00Z",
                event_id,
            )
        day, clock, fraction, zone = match.groups()
        try:
            whole = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone in 'Zz' else zone}")
        except ValueError:
            _fail(Reason.INVALID_TIME, self._time, "is no date and time of the calendar", event_id)
        return (whole - EPOCH) // timedelta(milliseconds=1) + int(((fraction or "") + "000")[:3])

    def _minor(self, value: Any, event_id: str) -> int:
        """Exact minor units: a double is accepted only where it is *the* double of a decimal with ``scale`` places."""
        kind = value.__class__
        if kind is float:
            scaled = value * self._power
            if not -1.0 < scaled <= MAX_AMOUNT + 1:
                _fail(
                    Reason.INVALID_AMOUNT,
                    self._amount,
                    "must be at least 0 and within 10^13 minor units",
                    event_id,
                )
            minor = round(scaled)
            if minor / self._power != value:
                _fail(
                    Reason.INVALID_AMOUNT,
                    self._amount,
                    f"has more than {self._scale} decimal places",
                    event_id,
                )
        elif kind is int:
            minor = value * self._power
        elif kind is Decimal:
            if not value.is_finite() or value.adjusted() > 20 or value.adjusted() < -20:
                _fail(Reason.INVALID_AMOUNT, self._amount, "is out of range", event_id)
            shifted = value.scaleb(self._scale)
            minor = int(shifted)
            if minor != shifted:
                _fail(
                    Reason.INVALID_AMOUNT,
                    self._amount,
                    f"has more than {self._scale} decimal places",
                    event_id,
                )
        elif value is None:
            _fail(Reason.MISSING_FIELD, self._amount, "is missing", event_id)
        else:
            _fail(Reason.WRONG_TYPE, self._amount, "must be a number", event_id)
        if minor < 0 or minor > MAX_AMOUNT:
            _fail(
                Reason.INVALID_AMOUNT,
                self._amount,
                "must be at least 0 and within 10^13 minor units",
                event_id,
            )
        return int(minor)

    def _typed(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """History cells as the JSON values that they stand for; what can't be read stays text and is refused later."""
        cells = {key: None if value == "" else value for key, value in row.items()}
        kinds = {name: kind for name, kind, _ in self._fields}
        kinds[self._amount] = FieldType.NUMBER
        if self._unit is not TimeUnit.RFC3339:
            kinds[self._time] = FieldType.INTEGER if self._unit is TimeUnit.MS else FieldType.NUMBER
        for field, kind in kinds.items():
            value = cells.get(field)
            if isinstance(value, str):
                cells[field] = _from_text(value, kind)
        return cells


def _literal(field: str) -> re.Pattern[bytes]:
    return re.compile(
        re.escape(json.dumps(field, ensure_ascii=False).encode()) + rb"[ \t\r\n]*:[ \t\r\n]*([0-9.eE+-]+)"
    )


def _scalar(value: Any, field: str, kind: FieldType, event_id: str) -> Scalar:
    """A declared field's value in its one form; numbers become floats, so that 5 and 5.0 are the same body."""
    value_type = value.__class__
    if kind is FieldType.STRING:
        if value_type is str:
            if len(value) > MAX_FIELD_TEXT:
                _fail(Reason.WRONG_TYPE, field, f"is longer than {MAX_FIELD_TEXT} characters", event_id)
            return str(value)
        _fail(Reason.WRONG_TYPE, field, "must be a string", event_id)
    if kind is FieldType.INTEGER:
        if value_type is int and -MAX_INTEGER <= value <= MAX_INTEGER:
            return int(value)
        _fail(Reason.WRONG_TYPE, field, "must be an integer below 2^53", event_id)
    if kind is FieldType.NUMBER:
        if value_type in (int, float, Decimal):
            number = float(value) if abs(value) < 1e300 else float("inf")
            if number == number and abs(number) != float("inf"):
                return number + 0.0  # -0.0 and 0.0 are one value
        _fail(Reason.WRONG_TYPE, field, "must be a finite number", event_id)
    if value_type is bool:
        return bool(value)
    _fail(Reason.WRONG_TYPE, field, "must be true or false", event_id)


def _from_text(text: str, kind: FieldType) -> Any:
    if kind is FieldType.INTEGER and _INTEGER.fullmatch(text):
        return int(text)
    if kind is FieldType.NUMBER and _DECIMAL.fullmatch(text):
        return Decimal(text)
    if kind is FieldType.BOOLEAN and text.lower() in TRUE_WORDS + FALSE_WORDS:
        return text.lower() in TRUE_WORDS
    return text
