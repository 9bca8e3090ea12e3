"""What the worker reads off a feature record."""

from __future__ import annotations

from typing import Any

import orjson

from fraud_serving.worker.judge import read

RECORD: Any = {
    "event": {"id": "a", "time": 1, "amount": 1, "currency": None, "entities": {}, "fields": {}},
    **dict.fromkeys(("hash", "set", "vector", "saw", "source", "appended", "decision")),
}


def test_what_the_stream_did_without_marks_the_decision() -> None:
    """A vector made of a lost state is no ordinary one; records from before the stream said so hold no marks."""
    marked = {**RECORD, "degraded": ["profiles_incomplete"]}
    assert read(0, b"k", orjson.dumps(marked)).degraded == ["profiles_incomplete"]
    assert read(0, b"k", orjson.dumps(RECORD)).degraded == []
