"""Input that is wrong, odd or hostile, each with its stated outcome. docs/bad-input.md is the same table for people.

A case is what is changed in a sound transaction, or bytes of its own. ``outcome`` is the reason code of the refusal or
dead letter, or ``decided``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

DECIDED: Final = "decided"
DAY: Final = 86_400_000


@dataclass(frozen=True)
class Case:
    name: str
    outcome: str
    changes: dict[str, Any] | None = None
    raw: bytes | None = None
    literal: tuple[str, bytes] | None = None  # a field and how its value is written
    field: str | None = None

    def body(self, event_id: str, now: int) -> bytes:
        """The bytes, for a transaction of this id where the case isn't about the id itself."""
        if self.raw is not None:
            return self.raw.replace(b"$ID", event_id.encode())
        whole: dict[str, Any] = {
            "id": event_id,
            "time": now,
            "amount": 12.5,
            "card": f"card-{event_id}",
            "merchant": "corner-shop",
            "category": "travel",
        }
        for name, value in (self.changes or {}).items():
            if isinstance(value, Later):
                value = now + value.ms
            elif isinstance(value, str):
                value = value.replace("$ID", event_id)
            whole[name] = value
        if self.literal is not None:
            del whole[self.literal[0]]
        text = json.dumps(whole, ensure_ascii=False).encode()
        if self.literal is not None:
            text = text[:-1] + b', "' + self.literal[0].encode() + b'": ' + self.literal[1] + b"}"
        return text


@dataclass(frozen=True)
class Later:
    """Milliseconds after now."""

    ms: int


def _raw(tail: bytes) -> bytes:
    return b'{"id": "$ID", "amount": 1, "card": "c", ' + tail


CASES: Final = (
    # Amounts
    Case("amount NaN", "invalid_json", literal=("amount", b"NaN")),
    Case("amount Infinity", "invalid_json", literal=("amount", b"-Infinity")),
    Case("negative amount", "invalid_amount", {"amount": -0.01}, field="amount"),
    Case("amount zero", DECIDED, {"amount": 0}),
    Case("amount minus zero", DECIDED, literal=("amount", b"-0.0")),
    Case("largest amount", DECIDED, literal=("amount", b"100000000000.00")),
    Case("amount above the largest", "invalid_amount", literal=("amount", b"100000000000.01"), field="amount"),
    Case("amount 1e300", "invalid_amount", literal=("amount", b"1e300"), field="amount"),
    Case("amount beyond a double", "invalid_json", literal=("amount", b"1e400")),
    Case("more decimals than the currency has", "invalid_amount", {"amount": 1.005}, field="amount"),
    Case("amount as text", "wrong_type", {"amount": "12.50"}, field="amount"),
    Case("amount missing", "missing_field", {"amount": None}, field="amount"),
    # Times
    Case("a little ahead of our clock", DECIDED, {"time": Later(240_000)}),
    Case("further ahead than maxFutureSkew", "time_in_future", {"time": Later(600_000)}, field="time"),
    Case("year 2099", "time_in_future", {"time": 4_070_908_800_000}, field="time"),
    Case("clock stepped back by an hour", DECIDED, {"time": Later(-3_600_000)}),
    Case("two years old", DECIDED, {"time": Later(-730 * DAY)}),
    Case("before 2000, as seconds for milliseconds are", "invalid_time", {"time": 1_790_000_000}, field="time"),
    Case("negative time", "invalid_time", {"time": -1}, field="time"),
    Case("time as text", "wrong_type", {"time": "2026-01-31T12:00:00Z"}, field="time"),
    Case("time with a fraction", "wrong_type", literal=("time", b"1790000000000.5"), field="time"),
    # Fields and entities
    Case("unknown fields", DECIDED, {"device": "x", "nested": {"a": [1]}}),
    Case("an entity never seen", DECIDED, {"card": "new-$ID", "merchant": "new-$ID"}),
    Case("no counterparty", DECIDED, {"merchant": None}),
    Case("no customer", "missing_field", {"card": None}, field="card"),
    Case("empty customer", "invalid_entity", {"card": ""}, field="card"),
    Case("empty counterparty", "invalid_entity", {"merchant": ""}, field="merchant"),
    Case("empty text in a declared field", DECIDED, {"category": ""}),
    Case("number for a text field", "wrong_type", {"category": 7}, field="category"),
    Case("a decision in it", "carries_decision", {"decision": {"action": "approve"}}, field="decision"),
    # Bytes
    Case("empty body", "invalid_json", raw=b""),
    Case("cut short", "invalid_json", raw=_raw(b'"mer')),
    Case("invalid UTF-8", "invalid_json", raw=_raw(b'"merchant": "\xff\xfe", "time": 1}')),
    Case("byte order mark", "invalid_json", raw=b"\xef\xbb\xbf" + _raw(b'"time": 1}')),
    Case("UTF-16", "invalid_json", raw='{"id": "$ID"}'.encode("utf-16")),
    Case("half a surrogate pair", "invalid_json", raw=_raw(b'"merchant": "\\ud800", "time": 1}')),
    Case("an array", "not_an_object", raw=b"[1]"),
    Case("a number", "not_an_object", raw=b"7"),
    Case("a key twice", "duplicate_key", raw=_raw(b'"amount": 2, "time": 1}')),
    Case("a key twice, once escaped", "duplicate_key", raw=_raw(b'"\\u0061mount": 2, "time": 1}')),
    Case("a key twice, deep inside", "duplicate_key", raw=_raw(b'"x": {"y": 1, "y": 2}, "time": 1}')),
    Case("nested 9 deep", "too_deep", raw=_raw(b'"x": ' + b"[" * 8 + b"]" * 8 + b"}")),
    Case("nested 5,000 deep", "too_deep", raw=_raw(b'"x": ' + b"[" * 5000 + b"]" * 5000 + b"}")),
    Case("a number of 6,000 digits", "invalid_json", raw=_raw(b'"x": ["\\u0061", ' + b"9" * 6000 + b"]}")),
    Case("64 KiB and more", "too_large", {"note": "x" * 66_000}),
    Case("1 MB", "too_large", {"note": "x" * 990_000}),
    # Ids
    Case("no id", "missing_field", {"id": None}, field="id"),
    Case("empty id", "invalid_id", {"id": ""}, field="id"),
    Case("id of 201 characters", "invalid_id", {"id": "x" * 201}, field="id"),
    Case("space around an id", "invalid_id", {"id": " $ID"}, field="id"),
    Case("control character in an id", "invalid_id", {"id": "a\u0000$ID"}, field="id"),
    Case("zero-width space in an id", "invalid_id", {"id": "a\u200b$ID"}, field="id"),
    Case("right-to-left mark in an id", "invalid_id", {"id": "a\u202e$ID"}, field="id"),
    Case("id with a separate accent", "invalid_id", {"id": "e\u0301$ID"}, field="id"),
    Case("id as an integer", DECIDED, literal=("id", b"90071992547409920")),
    Case("id as a fraction", "wrong_type", literal=("id", b"1.5"), field="id"),
    Case("id of 30 digits without quotes", "wrong_type", literal=("id", b"9" * 30), field="id"),
    Case("Cyrillic look-alike of a Latin letter", DECIDED, {"id": "\u0430-$ID"}),
    Case("full-width look-alikes of digits", DECIDED, {"id": "\uff11\uff12-$ID"}),
)  # fmt: skip

# A field of a label report and its value, with the code of the refusal; None where it is taken.
LABELS: Final[tuple[tuple[str, dict[str, Any] | bytes, str | None], ...]] = (
    ("a sound report", {}, None),
    ("a transaction that nobody knows", {"id": "never-seen"}, None),
    ("id as an integer", {"id": 12345}, None),
    ("a report of a report's own date", {"claimed": 1_700_000_000_000}, None),
    ("no id", {"id": None}, "missing_field"),
    ("empty id", {"id": ""}, "invalid_id"),
    ("id of 201 characters", {"id": "x" * 201}, "invalid_id"),
    ("zero-width space in an id", {"id": "a\u200bb"}, "invalid_id"),
    ("id with a separate accent", {"id": "e\u0301"}, "invalid_id"),
    ("id as a fraction", {"id": 1.5}, "wrong_type"),
    ("label of another name", {"label": "Fraud"}, "invalid_label"),
    ("label as a boolean", {"label": True}, "invalid_label"),
    ("unknown source", {"source": "rumour"}, "unknown_source"),
    ("source that is no text", {"source": ["analyst"]}, "unknown_source"),
    ("claimed before 2000", {"claimed": 5}, "invalid_time"),
    ("claimed in 2099", {"claimed": 4_070_908_800_000}, "invalid_time"),
    ("claimed as text", {"claimed": "yesterday"}, "invalid_time"),
    ("unknown field", {"note": "x"}, "unknown_field"),
    ("empty body", b"", "invalid_json"),
    ("NaN", b'{"id": "a", "label": "fraud", "source": "analyst", "claimed": NaN}', "invalid_json"),
    ("invalid UTF-8", b'{"id": "\xff"}', "invalid_json"),
    ("an array", b"[]", "not_an_object"),
    ("a key twice", b'{"id": "a", "id": "b", "label": "fraud", "source": "analyst"}', "duplicate_key"),
    ("nested 5,000 deep", b'{"id": ' + b"[" * 5000 + b"]" * 5000 + b"}", "too_deep"),
    ("1 MB", b'{"id": "' + b"x" * 990_000 + b'"}', "too_large"),
)
