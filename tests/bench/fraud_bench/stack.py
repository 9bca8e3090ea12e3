"""The data path on loopback, each part a process of its own as its Pod runs it, with a stable and a shadowing model."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
import redis as redis_client

from fraud_bench import measure
from fraud_contracts.config import DetectorConfig
from fraud_contracts.detector_policy import Policy
from fraud_contracts.names import Slot
from fraud_contracts.release import Release
from fraud_pipelines.features import compile_detector
from fraud_testing import detectors, kafka, packages, redis, serving, sinks, stream

PARTITIONS: Final = 4
CUSTOMERS, MERCHANTS = 5_000, 2_000
TREES: Final = 300
HEADERS: Final = {"X-API-Key": serving.API_KEY, "Content-Type": "application/json"}
# As the operator sets it; the tests' half a second would be ten times the snapshots.
CHECKPOINTS: Final = {"execution.checkpointing.interval": "5 s"}
JOB: Final = ("-m", "fraud_flink.job")


def transaction(event_id: str, card: str | None = None) -> dict[str, Any]:
    """A payment of now, in the fields of ``fraud_testing.detectors``."""
    return {
        "id": event_id,
        "time": time.time_ns() // 1_000_000,
        "amount": random.randint(100, 100_000) / 100,
        "card": card or f"c{random.randrange(CUSTOMERS)}",
        "merchant": f"m{random.randrange(MERCHANTS)}",
        "category": random.choice(("travel", "food", "fuel", "fashion")),
    }


@dataclass
class Stack:
    config: DetectorConfig
    folder: Path
    broker: kafka.Broker
    store: redis.Server
    stable: serving.Process
    shadow: serving.Process
    releases: dict[str, Release] = field(default_factory=dict)
    processes: dict[str, int] = field(default_factory=dict)

    def topic(self, noun: str) -> str:
        return self.config.identity.topic(noun)

    def use(self, name: str) -> None:
        serving.write_release(self.folder, self.releases[name])

    def cpu(self) -> dict[str, float]:
        """Processor seconds of each part so far."""
        return {name: measure.cpu_seconds(pid) for name, pid in self.processes.items()}

    @contextmanager
    def service(self) -> Iterator[serving.Process]:
        with serving.decision_service(self.config, self.folder, self.store.url) as process:
            self._know("service", process)
            yield process

    @contextmanager
    def worker(self) -> Iterator[serving.Process]:
        with serving.worker(self.config, self.folder, self.store.url) as process:
            self._know("worker", process)
            yield process

    @contextmanager
    def features(self, process_mode: bool = False) -> Iterator[None]:
        """The stream, once it has judged something, and the sink that brings its profiles to Redis."""
        with ExitStack() as stack:
            program = (str(Path(__file__).with_name("process_job.py")),) if process_mode else JOB
            job = stack.enter_context(stream.mini_cluster(self.config, self.folder, program, **CHECKPOINTS))
            url = self.store.url
            sink = stack.enter_context(
                sinks.sink("fraud_sinks.profile", self.config, self.folder, REDIS_URL=url)
            )
            sink.start()
            sink.await_ready()
            letters = self.broker.count(self.topic("dead-letters"))
            self.broker.produce(self.topic("transactions"), [(None, b"{")])

            def judged() -> bool:
                if job.poll() is not None:
                    raise RuntimeError(f"the stream ended, see {self.folder}/job.log")
                return self.broker.count(self.topic("dead-letters")) > letters

            kafka.wait_for(judged, 300, f"the stream, see {self.folder}/job.log")
            self.processes["stream"] = java_below(job.pid)
            assert sink.process is not None
            self.processes["sink"] = sink.process.pid
            yield

    def _know(self, name: str, process: serving.Process) -> None:
        assert process.process is not None
        self.processes[name] = process.process.pid


def java_below(pid: int) -> int:
    """PyFlink's JVM, a child of the script that built the graph; it is where thread mode computes."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            if "java" in Path(f"/proc/{child}/comm").read_text():
                return int(child)
    return pid


@contextmanager
def data_path(running: kafka.Broker | None = None) -> Iterator[Stack]:
    """Kafka, a ``running`` one or its own, Redis and two predictors; doors and stream are started by who measures them."""
    with tempfile.TemporaryDirectory(prefix="fraud-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        broker = running or stack.enter_context(kafka.broker())
        store = stack.enter_context(redis.server(append_only=True))
        config = detectors.detector(broker.bootstrap, PARTITIONS)
        broker.create_detector_topics(str(config.identity), PARTITIONS)
        mark = config.identity.redis_complete(config.hash6)
        redis_client.Redis.from_url(store.url).set(mark, config.epoch)
        redis.claims_whole(store, config.identity)
        names = list(compile_detector(config.spec).names)
        models = []
        slots: tuple[tuple[Slot, int], ...] = (("a", 1), ("b", 2))
        for slot, seed in slots:
            package = folder / f"package-{slot}"
            digest = packages.make(package, names, config.feature_set, seed, rounds=TREES)
            process = stack.enter_context(serving.predictor(package, f"{config.name}-{slot}", folder))
            models.append(
                (process, packages.release_package(digest, config.feature_set, process.url, slot, slot))
            )
        (stable, first), (shadow, second) = models
        policy = Policy.model_validate({"fallback": {"deadline": "1s", "staleness": "5m"}})
        path = Stack(config, folder, broker, store, stable, shadow)
        for release, arms in (("shadowed", (first, second)), ("promoted", (second, None))):
            path.releases[release] = Release(
                name=release, stable=arms[0], candidate=arms[1], policy=policy, policy_revision=1
            )
        path.use("shadowed")
        assert broker.process is not None
        assert store.process is not None
        path.processes |= {"broker": broker.process.pid, "redis": store.process.pid}
        path._know("predictor", stable)
        path._know("shadow", shadow)
        yield path


def body(event_id: str, card: str | None = None) -> bytes:
    return orjson.dumps(transaction(event_id, card))
