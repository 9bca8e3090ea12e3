"""What the worker reads off a feature record."""

from __future__ import annotations

from typing import Any

import orjson

from fraud_serving.worker.incoming import read

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
    assert read(0, b"k", orjson.dumps(marked)).degraded == ["profiles_incomplete"]
    assert read(0, b"k", orjson.dumps(RECORD)).degraded == []
