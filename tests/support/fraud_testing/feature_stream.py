"""Feature records as the stream makes them, sent to a worker, and its decisions as a committed reader sees them."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import orjson

from fraud_contracts.records import body_hash
from fraud_pipelines.events import Tokeniser
from fraud_pipelines.features import compile_detector
from fraud_testing import serving
from fraud_testing.kafka import wait_for
from fraud_testing.stack import Stack

TOKENISER = Tokeniser.from_hex(serving.TOKEN_KEY)


class Stream:
    """Makes feature records as the stream does, by the same engine."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.of = stack, stack.config.identity
        self.features = compile_detector(stack.config.spec)
        self.states: dict[tuple[str, str], bytes] = {}
        self.offset = 0

    def record(self, event_id: str, card: str = "c", amount: int = 1000, **changes: Any) -> dict[str, Any]:
        event: Any = {
            "id": event_id,
            "time": int(time.time() * 1000),
            "amount": amount,
            "currency": "EUR",
            "entities": {"customer": TOKENISER.token("card", card), "counterparty": "m1"},
            "fields": {"category": "travel"},
        }
        keys = {e: (e, t) for e, t in event["entities"].items()}
        vector, new, saw = self.features.observe({e: self.states.get(k) for e, k in keys.items()}, event, 1)
        self.states.update({keys[e]: state for e, state in new.items()})
        self.offset += 1
        whole = {
            "event": event,
            "hash": body_hash(event),
            "set": self.features.hash,
            "vector": vector,
            "reason": None,
            "saw": {e: (epoch, seq, f"{digest:016x}") for e, (epoch, seq, digest) in saw.items()},
            "run": "test",
            "repeat": False,
            "source": {"topic": self.of.topic("transactions"), "partition": 0, "offset": self.offset},
            "appended": int(time.time() * 1000),
            "decision": None,
        }
        return {**whole, **changes}

    def inline(self, record: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """The record as it comes back where the decision service had decided it."""
        decision = {
            "id": record["event"]["id"],
            "hash": record["hash"],
            "door": "inline",
            "event": record["event"],
            "set": record["set"],
            "vector": record["vector"],
            "saw": record["saw"],
            "action": "approve",
            "score": 1,
            "probability": 0.001,
            "reasons": [],
            "release": "r1",
            "model_version": "1",
            "model_digest": self.stack.digest,
            "arm": "stable",
            "bucket": None,
            "degraded": [],
            "decided": record["appended"],
            "latency_ms": 3.0,
            "shadow": None,
        }
        return {**record, "decision": {**decision, **changes}}

    def send(self, *records: dict[str, Any]) -> None:
        pairs = [(r["event"]["entities"]["customer"], orjson.dumps(r)) for r in records]
        self.stack.broker.produce(self.of.topic("features"), pairs)

    def committed(self, noun: str = "decisions") -> list[dict[str, Any]]:
        return [orjson.loads(m.value()) for m in self.stack.broker.read(self.of.topic(noun), committed=True)]

    def wait(self, *ids: str, seconds: float = 60) -> dict[str, dict[str, Any]]:
        """Decisions by id once all of ``ids`` are there."""

        def decided() -> dict[str, dict[str, Any]] | None:
            decisions = {d["id"]: d for d in self.committed()}
            return decisions if set(ids) <= decisions.keys() else None

        return wait_for(decided, seconds, f"decisions {ids[:3]}...")


def feed(stream: Stream, prefix: str, count: int, pause: float) -> list[str]:
    """Sends records one by one, as they come in life."""
    producer = stream.stack.broker.producer()
    ids = []
    for i in range(count):
        record = stream.record(f"{prefix}-{i}", f"card-{i % 50}")
        producer.produce(
            stream.of.topic("features"),
            orjson.dumps(record),
            record["event"]["entities"]["customer"].encode(),
        )
        producer.poll(0)
        ids.append(record["event"]["id"])
        time.sleep(pause)
    producer.flush(60)
    return ids


def exactly_once(stream: Stream, ids: list[str], prefix: str) -> None:
    counted = Counter(d["id"] for d in stream.committed() if d["id"].startswith(prefix))
    assert set(counted) == set(ids)
    assert max(counted.values()) == 1
