"""What the worker reads off a feature record."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from fraud_serving.worker.batch import read_incoming
from fraud_testing import batches
from fraud_testing.feature_stream import Stream

RECORD: Any = {
    "event": {"id": "a", "time": 1, "amount": 1, "currency": None, "entities": {}, "fields": {}},
    "hash": "h",
    "set": "s",
    "vector": None,
    "reason": None,
    "saw": {},
    "run": "r",
    "repeat": False,
    "source": {"topic": "t", "partition": 0, "offset": 0},
    "appended": 1,
    "decision": None,
}


def test_what_the_stream_did_without_marks_the_decision() -> None:
    """A vector made of a lost state is no ordinary one; records from before the stream said so hold no marks."""
    marked = {**RECORD, "degraded": ["profiles_incomplete"]}
    assert read_incoming(0, b"k", orjson.dumps(marked)).degraded == ["profiles_incomplete"]
    assert read_incoming(0, b"k", orjson.dumps(RECORD)).degraded == []


STREAM = Stream(SimpleNamespace(config=batches.CONFIG, digest="sha256:0"))  # type: ignore[arg-type]  # a fake
ANSWERED = orjson.dumps(STREAM.inline(STREAM.record("pay"), action="decline"))


def answered(**changes: Any) -> dict[str, Any]:
    """A record with a decision of the inline door; ``changes`` of its parts, and of the decision by ``decision_…``."""
    record: dict[str, Any] = orjson.loads(ANSWERED)
    for name, value in changes.items():
        part, name = (record["decision"], name[9:]) if name.startswith("decision_") else (record, name)
        if value is ...:
            del part[name]
        else:
            part[name] = value
    return record


def event(**changes: Any) -> dict[str, Any]:
    changed = {**answered()["event"], **changes}
    return {name: value for name, value in changed.items() if value is not ...}


def published(record: dict[str, Any]) -> list[dict[str, Any]]:
    """What a worker without Redis publishes of one record."""
    one = batches.processor(SimpleNamespace(login=lambda _: "redis://127.0.0.1:1"))  # type: ignore[arg-type]  # no server
    result = one.process([read_incoming(0, b"k", orjson.dumps(record))])
    one.committed(result)
    one.idle()
    assert [out.noun for out in result.outgoing] == ["decisions", "alerts"]
    return batches.decided(result)


DAMAGED: dict[str, Callable[[], dict[str, Any]]] = {
    "no event": lambda: answered(event=None),
    "another id's event": lambda: answered(event=event(id="other")),
    "an amount with a fraction": lambda: answered(event=event(amount=5.5)),
    "such an amount, decided on": lambda: answered(event=event(amount=5.5), decision_event=event(amount=5.5)),
    "no fields, decided on": lambda: answered(event=event(fields=...), decision_event=event(fields=...)),
    "no currency, decided on": lambda: answered(
        event=event(currency=...), decision_event=event(currency=...)
    ),
    "no hash": lambda: answered(hash=None),
    "the hash beside it only": lambda: answered(decision_hash=...),
    "no event in the decision": lambda: answered(decision_event=...),
    "no latency": lambda: answered(decision_latency_ms=...),
    "a time with a fraction": lambda: answered(decision_decided=1.0),
    "a vector of texts": lambda: answered(decision_vector=["1"]),
    "odd reasons": lambda: answered(decision_reasons=7, decision_degraded=None),
    "odd audit": lambda: answered(decision_shadow=7, decision_source=7),
    "no seen": lambda: answered(decision_saw={"customer": 1}),
    "no door": lambda: answered(decision_door=...),
}


@pytest.mark.parametrize("damaged", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_decision_that_was_answered_is_published(damaged: Callable[[], dict[str, Any]]) -> None:
    """The client acted on it: what is lost of it is left out, and id, hash, action and event are there."""
    [decision] = published(damaged())
    whole = answered()["decision"]
    for name in ("id", "hash", "action", "door"):
        assert decision[name] == whole[name]
    assert (decision["event"]["id"], decision["event"]["entities"]) == ("pay", whole["event"]["entities"])
    assert isinstance(decision["decided"], int)
    assert set(whole) - {"shadow"} <= set(decision)


LOST: dict[str, Callable[[], dict[str, Any]]] = {
    "no action": lambda: answered(decision_action=...),
    "no hash at all": lambda: answered(hash=..., decision_hash=...),
    "no event at all": lambda: answered(event=None, decision_event=None),
    "events without entities": lambda: answered(
        event=event(entities=None), decision_event=event(entities={"a": 1})
    ),
    "damaged, and the stream's own part, too": lambda: answered(source=None, decision_latency_ms=...),
}


@pytest.mark.parametrize("lost", LOST.values(), ids=LOST)
def test_a_decision_that_can_not_be_published_is_a_letter_of_its_id(
    lost: Callable[[], dict[str, Any]],
) -> None:
    """It names the id, so that the id has an end; the letter's key is the id."""
    value = orjson.dumps(lost())
    with pytest.raises(ValueError) as refused:
        read_incoming(0, b"k", value)
    one = batches.processor(SimpleNamespace(login=lambda _: "redis://127.0.0.1:1"))  # type: ignore[arg-type]  # no server
    letter = one.unreadable(value, RECORD["source"], 1, refused.value)
    assert (letter.key, orjson.loads(letter.value)["id"]) == (b"pay", "pay")


@pytest.mark.parametrize(
    "value", [b"", b"{", b"[]", b"7", b'{"event":7,"decision":[]}', b'{"event":{"id":7}}']
)
def test_bytes_without_an_id_are_a_letter_without_one(value: bytes) -> None:
    """Whatever it is, it becomes a letter."""
    one = batches.processor(SimpleNamespace(login=lambda _: "redis://127.0.0.1:1"))  # type: ignore[arg-type]  # no server
    letter = one.unreadable(value, RECORD["source"], 1, ValueError("x"))
    assert (letter.key, orjson.loads(letter.value)["id"]) == (b"", None)


def test_a_damaged_record_without_a_decision_is_refused() -> None:
    """Nobody was answered, so nothing is made up."""
    with pytest.raises(ValueError, match="event"):
        read_incoming(0, b"k", orjson.dumps({**RECORD, "event": {**RECORD["event"], "amount": 5.5}}))
