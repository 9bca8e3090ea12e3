"""Figures of the stream: latency of the worker's door, throughput of the whole path, and the same job in process mode.

python -m fraud_bench.stream
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack
from typing import Any

import orjson

from fraud_bench import load, measure, stack
from fraud_contracts.records import body_hash
from fraud_pipelines.events import EventSchema, Tokeniser
from fraud_pipelines.features import compile_detector
from fraud_testing import kafka, serving

DOOR_RATE = 2_000
DOOR_SECONDS = float(os.environ.get("BENCH_SECONDS", 20)) / 2
WARM = 3.0
BACKLOG = int(os.environ.get("BENCH_BACKLOG", 120_000))
BASELINE_BACKLOG = max(2_000, BACKLOG // 8)
# The ends of a run are start-up and a last transaction; the rate is that of the part between.
MIDDLE = (0.15, 0.95)


def feature_records(path: stack.Stack, count: int) -> list[tuple[bytes, bytes]]:
    """Records of ``features`` as the stream makes them, by the same engine."""
    schema = EventSchema(path.config.spec.event, path.config.spec.entities)
    features, tokeniser = compile_detector(path.config.spec), Tokeniser.from_hex(serving.TOKEN_KEY)
    states: dict[tuple[str, str], bytes] = {}
    records = []
    for i in range(count):
        now = time.time_ns() // 1_000_000
        event = schema.canonical(stack.transaction(f"s-{i}"), tokeniser, now)
        keys = {entity: (entity, token) for entity, token in event["entities"].items() if token}
        vector, new, saw = features.observe({e: states.get(k) for e, k in keys.items()}, event, 1)
        states.update({keys[entity]: state for entity, state in new.items()})
        record: dict[str, Any] = {
            "event": event,
            "hash": body_hash(event),
            "set": features.hash,
            "vector": vector,
            "reason": None,
            "saw": {e: (epoch, seq, f"{digest:016x}") for e, (epoch, seq, digest) in saw.items()},
            "run": "bench",
            "repeat": False,
            "source": {"topic": path.topic("transactions"), "partition": 0, "offset": i},
            "appended": now,
            "decision": None,
        }
        records.append(((event["entities"]["customer"] or "").encode(), orjson.dumps(record)))
    return records


class DecisionReader(threading.Thread):
    """A committed reader that notes when each decision could be read."""

    def __init__(self, path: stack.Stack) -> None:
        super().__init__(daemon=True)
        self.visible_at: dict[str, float] = {}
        self.on = True
        self._consumer = path.broker.consumer("bench", fetch_wait_max_ms=50)
        self._consumer.subscribe([path.topic("decisions")])

    def run(self) -> None:
        while self.on:
            for message in self._consumer.consume(200, 0.05):
                if message.error() is None:
                    now = time.time()
                    self.visible_at[orjson.loads(message.value())["id"]] = now
        self._consumer.close()


def door(path: stack.Stack) -> None:
    """From a record's append in ``features`` to its decision for a committed reader."""
    measure.note(f"stream door, {DOOR_RATE}/s")
    records = feature_records(path, int(DOOR_RATE * (WARM + DOOR_SECONDS)))
    producer, topic, reader = path.broker.producer(), path.topic("features"), DecisionReader(path)
    appended: dict[int, float] = {}
    with path.worker():
        reader.start()
        start, i, cpu = time.perf_counter(), 0, path.cpu()

        def delivered(number: int) -> Any:
            return lambda _, message: appended.__setitem__(number, message.timestamp()[1] / 1000)

        while i < len(records):
            due = int((time.perf_counter() - start) * DOOR_RATE)
            while i < min(due, len(records)):
                producer.produce(topic, records[i][1], records[i][0], on_delivery=delivered(i))
                i += 1
            producer.poll(0)
            time.sleep(0.001)
        producer.flush(30)
        kafka.wait_for(lambda: len(reader.visible_at) >= len(records), 120, "all decisions")
        used = {name: round(1e6 * (now - cpu.get(name, 0.0)) / i) for name, now in path.cpu().items()}
        reader.on = False
        reader.join()
    first = int(DOOR_RATE * WARM)
    ages = [1000 * (reader.visible_at[f"s-{n}"] - at) for n, at in appended.items() if n >= first]
    measure.report(
        "door",
        offered=DOOR_RATE,
        records=len(ages),
        p50_ms=round(load.quantile(ages, 0.5), 1),
        p99_ms=round(load.quantile(ages, 0.99), 1),
        p999_ms=round(load.quantile(ages, 0.999), 1),
        cpu_us=used,
    )


def middle_rate(path: stack.Stack, noun: str, ids: str) -> float:
    """Records a second in the middle of a run, from the times at which the broker or the producer stamped them."""
    stamps: list[int] = sorted(
        message.timestamp()[1]
        for message in path.broker.read(path.topic(noun), committed=True)
        if ids.encode() in (message.value() or b"")
    )
    first, last = (stamps[min(len(stamps) - 1, int(share * len(stamps)))] for share in MIDDLE)
    return (MIDDLE[1] - MIDDLE[0]) * len(stamps) / max(0.001, (last - first) / 1000)


def fill(path: stack.Stack, prefix: str, count: int) -> None:
    payments = (stack.transaction(f"{prefix}-{i}") for i in range(count))
    path.broker.produce(path.topic("transactions"), ((tx["card"], orjson.dumps(tx)) for tx in payments))


def judged(path: stack.Stack) -> bool:
    """Whether stream and worker have taken all there is; end offsets of ``decisions`` would count markers, too."""
    topic = path.topic("features")
    sent = path.broker.count(path.topic("transactions")) + path.broker.count(path.topic("accepted"))
    if path.broker.count(topic) + path.broker.count(path.topic("dead-letters")) < sent:
        return False
    places = path.broker.committed(path.config.identity.group("worker"), topic).values()
    return sum(max(0, place) for place in places) >= path.broker.count(topic)


def drain(path: stack.Stack, prefix: str, count: int, worker: bool, seconds: float) -> dict[str, float]:
    """Rates at which a backlog came out of each topic."""
    already = path.broker.count(path.topic("features"))
    fill(path, prefix, count)

    def out() -> bool:
        time.sleep(1)  # asking costs what is measured
        return path.broker.count(path.topic("features")) >= already + count and (not worker or judged(path))

    kafka.wait_for(out, seconds, f"{count} records")
    nouns = ("features", "decisions") if worker else ("features",)
    return {noun: middle_rate(path, noun, f'"{prefix}-') for noun in nouns}


def throughput() -> None:
    """A backlog through everything at once: validation, all default features, decisions with shadow scores, profiles to Redis."""
    with stack.data_path() as path, ExitStack() as running:
        door(path)
        measure.note(f"throughput, {BACKLOG} transactions")
        running.enter_context(path.features())
        # Compiling takes the JVM a core for the first twenty seconds; a sustained rate is that without.
        drain(path, "warm", BACKLOG // 2, False, 300)
        running.enter_context(path.worker())
        kafka.wait_for(lambda: judged(path), 120, "the worker to catch up")
        cpu = path.cpu()
        rates = drain(path, "full", BACKLOG, True, 400)
        used = {name: round(1e6 * (now - cpu[name]) / BACKLOG) for name, now in path.cpu().items()}
        measure.report(
            "throughput",
            records=BACKLOG,
            features_per_s=round(rates["features"]),
            decisions_per_s=round(rates["decisions"]),
            cpu_us=used,
        )


def features_only(mode: str, count: int) -> float:
    """The stream alone, without decisions, in one of PyFlink's two modes."""
    with stack.data_path() as path, path.features(process_mode=mode == "process"):
        drain(path, "warm", count // 2, False, 300)
        return drain(path, "full", count, False, 400)["features"]


def main() -> None:
    measure.begin()
    throughput()
    for mode, count in (("thread", BACKLOG // 2), ("process", BASELINE_BACKLOG)):
        measure.note(f"the features alone, {mode} mode")
        measure.report(f"features_{mode}", records=count, per_s=round(features_only(mode, count)))


if __name__ == "__main__":
    main()
