"""Reading of untrusted JSON: one object, no repeated keys, bounded in size and depth, decimals kept exact on demand."""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

import orjson

from fraud_contracts.config import MAX_EVENT_BYTES
from fraud_contracts.errors import EventError, Reason

MAX_DEPTH: Final = 8


class _DuplicateKeyError(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise _DuplicateKeyError
    return mapping


def reread(raw: bytes) -> Any:
    """The slow reading: sees repeated keys, keeps every digit of a decimal."""
    try:
        return json.loads(raw, object_pairs_hook=_unique, parse_float=Decimal)
    except _DuplicateKeyError:
        raise EventError(Reason.DUPLICATE_KEY, "the event names a field twice") from None
    except ValueError:  # an integer of thousands of digits, which Python refuses to read
        raise EventError(Reason.INVALID_JSON, "the event holds a number that is too long") from None


def _depth(value: Any) -> int:
    """Nesting of a parsed value; iterative, since the depth is the sender's choice."""
    deepest, stack = 0, [(value, 1)]
    while stack:
        node, depth = stack.pop()
        children: Iterable[Any]
        if isinstance(node, dict):
            children = node.values()
        elif isinstance(node, list):
            children = node
        else:
            continue
        deepest = max(deepest, depth)
        stack.extend((child, depth + 1) for child in children)
    return deepest


def decode(raw: bytes) -> tuple[dict[str, Any], bool]:
    """A JSON object without repeated keys, and whether its decimals are ``Decimal`` (else float).

    orjson drops repeated keys in silence. They are excluded by counting: without escapes, colons outside strings are
    as many as keys. Whatever the count can't settle is read again by the slow parser.
    """
    if len(raw) > MAX_EVENT_BYTES:
        raise EventError(Reason.TOO_LARGE, f"the event is larger than {MAX_EVENT_BYTES} bytes")
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if "depth limit" in str(error) or "ecursion" in str(error):
            raise EventError(Reason.TOO_DEEP, f"the event nests deeper than {MAX_DEPTH} levels") from None
        raise EventError(Reason.INVALID_JSON, "the event is no valid JSON in UTF-8") from None
    if not isinstance(document, dict):
        raise EventError(Reason.NOT_AN_OBJECT, "the event is no JSON object")
    colons = raw.count(b":") - len(document)
    flat = b"\\" not in raw
    for key, value in document.items():
        if value.__class__ is str:
            colons -= value.count(":")
        elif value.__class__ is dict or value.__class__ is list:
            flat = False
        if ":" in key:
            flat = False
    if not flat and _depth(document) > MAX_DEPTH:
        raise EventError(Reason.TOO_DEEP, f"the event nests deeper than {MAX_DEPTH} levels")
    if colons or not flat:
        return reread(raw), True
    return document, False
