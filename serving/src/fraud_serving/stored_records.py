"""Records as they are read from Redis and Kafka, checked whole: what isn't one is a ValueError that quotes none of its bytes.

Whoever reads takes it for missing, marks what it did without, counts it and goes on: nothing in a store may end a loop.
"""

from __future__ import annotations

import logging
from typing import Any, Final, NotRequired, get_type_hints

import orjson
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from fraud_contracts.config import MAX_EVENT_BYTES
from fraud_contracts.event_values import MAX_INTEGER, MAX_TIME
from fraud_contracts.records import DeadLetter, Decision, Event, FeatureRecord

# No record of ours comes near: the largest hold an event twice. Checking larger bytes would hold up all others.
MAX_BYTES: Final = 4 * MAX_EVENT_BYTES


class PublishedDecision(TypedDict):
    """What tells a published decision from another one of its id, what it says, and what it was made without."""

    id: str
    hash: str
    decided: int
    action: NotRequired[str]
    degraded: NotRequired[list[str]]


class _Named(TypedDict):
    id: str


_DECISION: Final = TypeAdapter(Decision)
_EVENT: Final = TypeAdapter(Event)
_FEATURES: Final = TypeAdapter(FeatureRecord)
_LETTER: Final = TypeAdapter(DeadLetter)
_PUBLISHED: Final = TypeAdapter(PublishedDecision)
_NAMED: Final = TypeAdapter(_Named)

_log = logging.getLogger(__name__)
_PARTS: Final = {name: TypeAdapter(kind) for name, kind in get_type_hints(Decision).items()}
# What stands for a lost part of a decision that was answered; null for those that aren't here.
_LOST: Final[dict[str, Any]] = {
    "door": "inline",
    "set": "",
    "saw": {},
    "reasons": [],
    "release": "",
    "degraded": [],
}
_NO_EVENT: Final[Event] = {
    "id": "",
    "time": 0,
    "amount": 0,
    "currency": None,
    "entities": {},
    "fields": {},
}


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


def read_decision(value: bytes, event_id: str) -> Decision:
    """The decision of that id, without its audit, which is made when it is published."""
    read: Decision = _whole(_DECISION, value)
    if read["id"] != event_id or read["event"]["id"] != event_id:
        raise ValueError("the decision of another id")
    for name in ("streamed", "parity"):
        read.pop(name, None)  # type: ignore[misc]  # neither is a required key
    return read


def read_event(value: bytes) -> Event:
    """A canonical event, with numbers as the engine can add them."""
    read: Event = _parts(_EVENT, value)
    numbers = (read["time"], read["amount"], *read["fields"].values())
    if any(isinstance(number, int) and abs(number) > MAX_INTEGER for number in numbers):
        raise ValueError("a number beyond what an event may hold")
    return read


def read_feature_record(value: bytes) -> FeatureRecord:
    """What the stream computed for an event, with its decision where the inline door made one.

    Such a decision was acted on, so a damaged one comes whole, as far as it can be published.
    """
    try:
        read: FeatureRecord = _whole(_FEATURES, value)
        if read["decision"] is not None and read["decision"]["id"] != read["event"]["id"]:
            raise ValueError("the decision of another id")
        return read
    except ValueError as error:
        return _rescued(value, error)


def _rescued(value: bytes, error: ValueError) -> FeatureRecord:
    """The record around a decision that can be published: it has an id, a hash, an action, and an event with its entities.

    What else is lost of the decision is left empty; the event is as it was decided on, if need be with its damage. ``error``
    where there is no such decision, or where what the stream itself adds is damaged.
    """
    record = _json(value)
    decision = record.get("decision")
    if len(value) > MAX_BYTES or not isinstance(decision, dict):
        raise error
    _parts(_FEATURES, orjson.dumps({**record, "event": _NO_EVENT, "hash": "", "decision": None}))
    hashes = [one for one in (decision.get("hash"), record.get("hash")) if isinstance(one, str)]
    events = [one for one in (decision.get("event"), record.get("event")) if _publishable(one, decision)]
    if not hashes or not events or not _fits("id", decision) or not _fits("action", decision):
        raise error
    whole = {name: part for name, part in decision.items() if name not in _PARTS or _fits(name, decision)}
    for name in Decision.__required_keys__ - whole.keys():
        whole[name] = _LOST.get(name)
    whole["hash"], whole["event"] = hashes[0], next((one for one in events if _is_event(one)), events[0])
    if whole["decided"] is None:
        whole["decided"] = record["appended"]
    _log.error("a damaged decision is made whole", extra={"data": {"id": whole["id"], "error": str(error)}})
    return {**record, "event": whole["event"], "hash": whole["hash"], "decision": whole}  # type: ignore[typeddict-item]  # checked part by part above


def _json(value: bytes | None) -> dict[str, Any]:
    """The JSON object, an empty one where it is none."""
    try:
        read = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return {}
    return read if isinstance(read, dict) else {}


def _fits(name: str, decision: dict[str, Any]) -> bool:
    try:
        _parts(_PARTS[name], orjson.dumps(decision[name]))
        return True
    except (KeyError, ValueError):
        return False


def _is_event(event: Any) -> bool:
    return _fits("event", {"event": event})


def _publishable(event: Any, decision: dict[str, Any]) -> bool:
    """Whether sinks can keep it as this decision's."""
    if not isinstance(event, dict) or event.get("id") != decision.get("id"):
        return False
    tokens = event.get("entities")
    return isinstance(tokens, dict) and all(one is None or isinstance(one, str) for one in tokens.values())


def find_id(value: bytes | None) -> str | None:
    """The id of the decision, or of the event, in whatever record that holds one."""
    record = _json(value)
    for part in (record.get("decision"), record.get("event")):
        if isinstance(part, dict) and isinstance(part.get("id"), str):
            return str(part["id"])
    return None


def read_published(value: bytes | None) -> PublishedDecision:
    """Of a record of ``decisions``."""
    read: PublishedDecision = _parts(_PUBLISHED, value)
    return read


def read_decided_id(value: bytes | None) -> str:
    """The id in a record of ``decisions``."""
    return str(_parts(_NAMED, value)["id"])


def read_accepted_id(value: bytes | None) -> str:
    """The id in a record of ``accepted``."""
    event_id = find_id(value)
    if event_id is None:
        raise ValueError("no id")
    return event_id


def read_dead_letter(value: bytes | None) -> DeadLetter:
    """A dead letter, from a place that a topic can have and a time that can be shown."""
    read: DeadLetter = _parts(_LETTER, value)
    source = read["source"]
    if not 0 <= source["partition"] < 2**31 or not 0 <= source["offset"] < 2**63:
        raise ValueError("source: no place of a topic")
    if not 0 <= read["appended"] <= MAX_TIME:
        raise ValueError("appended: no time")
    return read
