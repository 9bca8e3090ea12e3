"""The broker is killed and brought back again and again under the worker's transactions: ``make test-broker``.

Prints one JSON line a round. A worker that ended itself is started anew at once, as the kubelet does.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import TopicPartition

from fraud_testing import kafka, redis, serving
from fraud_testing.feature_stream import Stream
from fraud_testing.kafka import Broker, wait_for
from fraud_testing.required import require
from fraud_testing.stack import running

pytestmark = pytest.mark.integration
ROUNDS = int(os.environ.get("FRAUD_ROUNDS") or 30)
RATE = 60.0  # records a second
AWAY = (
    0.0,
    1.0,
    12.0,
)  # seconds without a broker, in turns; 12 is longer than the worker's calls and transactions may take
SOON = 30.0  # seconds from the broker's first answers to new decisions on every partition
PARTITIONS = (0, 1)


class Feeder(threading.Thread):
    """Sends ``RATE`` records a second; keeps them while the broker is away."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(name="feeder", daemon=True)
        self._stream, self.ids, self.on = stream, list[str](), True

    def run(self) -> None:
        producer = self._stream.stack.broker.producer(delivery_timeout_ms=300_000)
        due = time.monotonic()
        while self.on:
            due += 1 / RATE
            time.sleep(max(0.0, due - time.monotonic()))
            number = len(self.ids)
            # At least two of three are alerts, too, since committed readers wait in their topic as well.
            record = self._stream.record(
                f"e-{number}", f"card-{number % 50}", amount=900_000 if number % 3 else 1000
            )
            key = record["event"]["entities"]["customer"].encode()
            producer.produce(self._stream.of.topic("features"), orjson.dumps(record), key)
            producer.poll(0)
            self.ids.append(record["event"]["id"])
        assert producer.flush(300) == 0


class Reader(threading.Thread):
    """A committed reader of ``decisions``: when each id became visible, and where."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(name="reader", daemon=True)
        self._stream, self.visible, self.on = stream, list[tuple[float, int, str]](), True

    def run(self) -> None:
        consumer = self._stream.stack.broker.consumer("loop", reconnect_backoff_max_ms=500)
        consumer.assign([TopicPartition(self._stream.of.topic("decisions"), p, 0) for p in PARTITIONS])
        while self.on:
            for message in consumer.consume(100, 0.1):
                if message.error() is None:
                    at = (
                        time.monotonic(),
                        int(message.partition() or 0),
                        orjson.loads(message.value())["id"],
                    )
                    self.visible.append(at)
        consumer.close()

    def first(self, since: float) -> float | None:
        """When new decisions were there on every partition; None before."""
        firsts = [
            next((at for at, where, _ in self.visible if where == p and at > since), None) for p in PARTITIONS
        ]
        return max(at for at in firsts if at is not None) if None not in firsts else None


def answered(broker: Broker) -> float:
    """When a fresh client's metadata request and its record were answered; ``start`` returns after the former."""
    broker.produce("probe", [(None, b"there?")])
    return time.monotonic()


def open_ends(broker: Broker, topics: Sequence[str]) -> list[str]:
    """Partitions whose committed readers end before the log does: a transaction is open there."""

    def ends(committed: bool) -> dict[tuple[str, int], int]:
        consumer = broker.consumer("ends", committed=committed)
        try:
            return {
                (topic, p): consumer.get_watermark_offsets(TopicPartition(topic, p), 10)[1]
                for topic in topics
                for p in PARTITIONS
            }
        finally:
            consumer.close()

    whole, stable = ends(committed=False), ends(committed=True)
    return [f"{topic} [{p}]" for (topic, p), end in stable.items() if end < whole[topic, p]]


def say(figures: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()


def test_the_stream_door_decides_again_soon_after_each_kill_of_the_broker(tmp_path: Path) -> None:
    """Within 30 s of its first answers on every partition, in every round; nothing is lost or doubled, nothing stays open."""
    require(kafka.missing() or redis.missing())
    late: list[dict[str, Any]] = []
    with running(tmp_path) as stack:
        stack.release(
            policy={
                "rules": [{"name": "large", "when": "event.amount > 500000", "action": "Decline"}],
                "fallback": serving.NO_STREAM | {"deadline": "1s"},
            }
        )
        stack.broker.create(["probe"])
        stream = Stream(stack)
        with (
            serving.worker(stack.config, tmp_path, stack.redis.url) as worker,
            worker.kept_running() as ended,
        ):
            feeder, reader = Feeder(stream), Reader(stream)
            feeder.start()
            reader.start()
            wait_for(lambda: reader.first(0), 60, "first decisions")
            for number in range(ROUNDS):
                stack.broker.stop(signal.SIGKILL)
                time.sleep(AWAY[number % len(AWAY)])
                since, before = time.monotonic(), len(ended)
                stack.broker.start()
                back = answered(stack.broker)
                first = wait_for(lambda since=since: reader.first(since), 300, f"decisions in round {number}")
                figures = {
                    "round": number,
                    "broker_s": round(back - since, 1),
                    "decides_again_s": round(max(0.0, first - back), 1),
                    "worker_ended": len(ended) - before,
                }
                say(figures)
                if first - back > SOON:
                    late.append(figures)
                # Kills are to fall anywhere in a transaction, and some on a backlog.
                time.sleep(2 + (number * 0.37) % 1)
            feeder.on = False
            feeder.join(300)
            sent = set(feeder.ids)
            wait_for(
                lambda: sent <= {event_id for _, _, event_id in reader.visible}, 300, "the last decisions"
            )
            topics = [stream.of.topic(noun) for noun in ("decisions", "alerts", "dead-letters")]
            wait_for(lambda: not open_ends(stack.broker, topics), 30, "ends without an open transaction")
            reader.on = False
            reader.join(30)
        counted = Counter(event_id for _, _, event_id in reader.visible)
        alerts = Counter(one["id"] for one in stream.committed("alerts"))
        flagged = {one["id"] for one in stream.committed() if one["action"] != "approve"}
        say({"sent": len(sent), "worker_ended": len(ended)})
    assert not late
    assert set(counted) == sent
    assert max(counted.values()) == 1
    assert set(alerts) == flagged
    assert max(alerts.values()) == 1
