"""What committed readers see while the broker is killed under the worker: ``python serving/bench/worker_transactions.py``.

Needs PYTHONPATH as tests/run sets it, and serving/tests/integration on it. Prints one JSON line per round: the pause of committed decisions, whether
the worker's process lived on, records lost and doubled over all rounds so far.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import orjson
from test_worker import Stream

from fraud_contracts.release import Release
from fraud_pipelines.features import compile_detector
from fraud_testing import detectors, kafka, packages, redis, serving


class Feeder(threading.Thread):
    """Sends ``rate`` records a second; keeps going while the broker is away."""

    def __init__(self, stream: Stream, rate: float) -> None:
        super().__init__(daemon=True)
        self.stream, self.rate, self.ids, self.on = stream, rate, [], True

    def run(self) -> None:
        producer = self.stream.stack.broker.producer(delivery_timeout_ms=120_000)
        i, due = 0, time.monotonic()
        while self.on:
            due += 1 / self.rate
            time.sleep(max(0.0, due - time.monotonic()))
            record = self.stream.record(f"e-{i}", f"card-{i % 50}")
            key = record["event"]["entities"]["customer"].encode()
            producer.produce(self.stream.of.topic("features"), orjson.dumps(record), key)
            producer.poll(0)
            self.ids.append(record["event"]["id"])
            i += 1
        producer.flush(120)


class Reader(threading.Thread):
    """A committed reader that notes when each decision became visible."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(daemon=True)
        self.stream, self.seen, self.on = stream, [], True

    def run(self) -> None:
        consumer = self.stream.stack.broker.consumer("bench", reconnect_backoff_max_ms=500)
        consumer.subscribe([self.stream.of.topic("decisions")])
        while self.on:
            for message in consumer.consume(100, 0.1):
                if message.error() is None:
                    self.seen.append((time.monotonic(), orjson.loads(message.value())["id"]))
        consumer.close()


def say(told: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def main(rounds: int, rate: float) -> None:
    folder = Path(tempfile.mkdtemp(prefix="fraud-bench-"))
    with kafka.broker() as broker, redis.server() as store:
        config = detectors.detector(broker.bootstrap, partitions=2)
        broker.create_detector_topics(str(config.identity), 2)
        digest = packages.make(
            folder / "package", list(compile_detector(config.spec).names), config.feature_set
        )
        with serving.predictor(folder / "package", f"{config.name}-a", folder) as predictor:
            package = packages.release_package(digest, config.feature_set, predictor.url)
            serving.write_release(folder, Release(name="r", stable=package, policy={}, policy_revision=1))  # type: ignore[arg-type]

            class Stack:
                pass

            stack = Stack()
            stack.config, stack.broker, stack.digest, stack.redis = config, broker, digest, store  # type: ignore[attr-defined]
            stream = Stream(stack)
            with serving.worker(config, folder, store.url) as worker:
                feeder, reader = Feeder(stream, rate), Reader(stream)
                feeder.start()
                reader.start()
                time.sleep(8)
                for round_ in range(rounds):
                    away = (0.0, 1.0, 12.0)[round_ % 3]
                    killed = time.monotonic()
                    broker.stop(signal.SIGKILL)
                    time.sleep(away)
                    broker.start()
                    back = time.monotonic()
                    until = back + 90
                    while time.monotonic() < until and not any(at > back + 0.2 for at, _ in reader.seen[-5:]):
                        time.sleep(0.1)
                        if worker.process is not None and worker.process.poll() is not None:
                            break
                    lived = worker.process is not None and worker.process.poll() is None
                    if not lived:
                        worker.start()  # as the kubelet would
                        time.sleep(3)
                    time.sleep(6)
                    after = [at for at, _ in reader.seen if at > back]
                    told = {
                        "round": round_,
                        "away_s": away,
                        "broker_back_s": round(back - killed, 1),
                        "first_decision_after_back_s": round(after[0] - back, 1) if after else None,
                        "process_lived": lived,
                    }
                    say(told)
                feeder.on = False
                feeder.join(130)
                wanted, until = set(feeder.ids), time.monotonic() + 120
                while time.monotonic() < until and not wanted <= {i for _, i in reader.seen}:
                    time.sleep(0.2)
                reader.on = False
                reader.join()
                counted = Counter(i for _, i in reader.seen)
                doubled = sum(count - 1 for count in counted.values())
                told = {"sent": len(wanted), "lost": len(wanted - counted.keys()), "doubled": doubled}
                say(told)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 6, float(sys.argv[2]) if len(sys.argv) > 2 else 100.0)
