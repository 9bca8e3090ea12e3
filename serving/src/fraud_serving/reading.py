"""Records as they are read from Redis and Kafka, checked whole: what isn't one is a ValueError that quotes none of its bytes.

Whoever reads takes it for missing, marks what it did without, counts it and goes on: nothing in a store may end a loop.
"""

from __future__ import annotations

from typing import Any, Final

import orjson
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from fraud_contracts.config import MAX_EVENT_BYTES
from fraud_contracts.records import DeadLetter, Decision, Event, FeatureRecord
from fraud_pipelines.events import MAX_INTEGER, MAX_TIME

# No record of ours comes near: the largest hold an event twice. Checking larger bytes would hold up all others.
MAX_BYTES: Final = 4 * MAX_EVENT_BYTES


class Published(TypedDict):
    """What tells a published decision from another one of its id."""

    id: str
    hash: str
    decided: int


class _Named(TypedDict):
    id: str


class _Accepted(TypedDict):
    event: _Named


_DECISION: Final = TypeAdapter(Decision)
_EVENT: Final = TypeAdapter(Event)
_FEATURES: Final = TypeAdapter(FeatureRecord)
_LETTER: Final = TypeAdapter(DeadLetter)
_PUBLISHED: Final = TypeAdapter(Published)
_NAMED: Final = TypeAdapter(_Named)
_ACCEPTED: Final = TypeAdapter(_Accepted)


def _parts(adapter: TypeAdapter[Any], value: bytes | None) -> Any:
    """The parts of a JSON object that the type names; ValueError where one is missing or of another type."""
    if value is None or len(value) > MAX_BYTES:
        raise ValueError("no value" if value is None else f"{len(value)} bytes are more than any record has")
    try:
        return adapter.validate_json(value, strict=True)
    except ValidationError as error:
        first = error.errors(include_input=False, include_context=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"][:1]) or "all of it"
        raise ValueError(f"{place}: {first['type']}") from None


def _whole(adapter: TypeAdapter[Any], value: bytes) -> Any:
    """All of the object, newer versions' fields as well, once its known ones are as they should be."""
    _parts(adapter, value)
    return orjson.loads(value)


def decision(value: bytes, event_id: str) -> Decision:
    """The decision of that id."""
    read: Decision = _whole(_DECISION, value)
    if read["id"] != event_id or read["event"]["id"] != event_id:
        raise ValueError("the decision of another id")
    return read


def event(value: bytes) -> Event:
    """A canonical event, with numbers as the engine can add them."""
    read: Event = _parts(_EVENT, value)
    numbers = (read["time"], read["amount"], *read["fields"].values())
    if any(isinstance(number, int) and abs(number) > MAX_INTEGER for number in numbers):
        raise ValueError("a number beyond what an event may hold")
    return read


def features(value: bytes) -> FeatureRecord:
    """What the stream computed for an event, with its decision where the inline door made one."""
    read: FeatureRecord = _whole(_FEATURES, value)
    if read["decision"] is not None and read["decision"]["id"] != read["event"]["id"]:
        raise ValueError("the decision of another id")
    return read


def published(value: bytes | None) -> Published:
    """Of a record of ``decisions``."""
    read: Published = _parts(_PUBLISHED, value)
    return read


def decided_id(value: bytes | None) -> str:
    """The id in a record of ``decisions``."""
    return str(_parts(_NAMED, value)["id"])


def accepted_id(value: bytes | None) -> str:
    """The id in a record of ``accepted``."""
    return str(_parts(_ACCEPTED, value)["event"]["id"])


def letter(value: bytes | None) -> DeadLetter:
    """A dead letter, from a place that a topic can have and a time that can be shown."""
    read: DeadLetter = _parts(_LETTER, value)
    source = read["source"]
    if not 0 <= source["partition"] < 2**31 or not 0 <= source["offset"] < 2**63:
        raise ValueError("source: no place of a topic")
    if not 0 <= read["appended"] <= MAX_TIME:
        raise ValueError("appended: no time")
    return read
