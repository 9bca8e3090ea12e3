"""The whole data path on loopback, each part a process of its own as its Pod runs it: two doors, stream, worker, sinks.

For tests of what only shows when all parts are there. It takes half a minute to start, so a module shares one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import psycopg
import redis as redis_py

from fraud_contracts.config import DetectorConfig
from fraud_contracts.detector_policy import Policy
from fraud_contracts.release import Release
from fraud_pipelines.features import compile_detector
from fraud_testing import detectors, kafka, packages, postgres, redis, serving, sinks, stream
from fraud_testing.required import require


def need() -> None:
    """Skips by name what this machine lacks."""
    require(kafka.missing() or redis.missing() or postgres.missing() or stream.missing())


@dataclass
class Platform:
    config: DetectorConfig
    broker: kafka.Broker
    redis: redis.Server
    database: postgres.Server
    stream: subprocess.Popen[bytes]
    service: serving.Process
    worker: serving.Process
    profiles: sinks.SinkProcess
    ledger: sinks.SinkProcess
    folder: Path

    @property
    def names(self) -> list[str]:
        return list(compile_detector(self.config.spec).names)

    def topic(self, noun: str) -> str:
        return self.config.identity.topic(noun)

    def read(self, noun: str) -> list[dict[str, Any]]:
        """A topic as a committed reader sees it."""
        return [orjson.loads(m.value()) for m in self.broker.read(self.topic(noun), committed=True)]

    def redis_client(self) -> Any:
        return redis_py.Redis.from_url(self.redis.url)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Asks the ledger; the tables are on the search path."""
        options = f"-c search_path={self.config.identity.database_schema}"
        with psycopg.connect(self.database.dsn, options=options) as connection:
            rows: list[tuple[Any, ...]] = connection.execute(query.encode()).fetchall()
        return rows

    def metric(self, process: serving.Process, name: str, **labels: str) -> float:
        """Sum of a metric's samples with these labels."""
        with urllib.request.urlopen(process.url + "/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.startswith((name + "{", name + " ")) and all(part in line for part in wanted)
        )

    @contextlib.contextmanager
    def still_stream(self) -> Iterator[None]:
        """The streaming job stands still for the block: all its processes are stopped, and go on afterwards."""
        group = os.getpgid(self.stream.pid)
        os.killpg(group, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(group, signal.SIGCONT)

    def settled(self, seconds: float = 90) -> None:
        """Waits until everything in the input topics has come out as decisions or dead letters, and the ledger has it."""
        group, of = self.config.identity.group("worker"), self.topic

        def quiet() -> tuple[int, ...]:
            nouns = ("transactions", "accepted", "features", "decisions", "dead-letters")
            counts = [self.broker.count(of(noun)) for noun in nouns]
            behind = sum(self.broker.committed(group, of("features")).values())
            return (*counts, behind, int(self.ledger.metric("fraud_sink_rows_total")))

        last: list[tuple[int, ...]] = []

        def same() -> bool:
            last.append(quiet())
            arrived, out = last[-1][0] + last[-1][1], last[-1][2] + last[-1][4]
            done = out >= arrived and last[-1][5] == last[-1][2]
            return done and len(last) > 10 and len(set(last[-10:])) == 1

        kafka.wait_for(same, seconds, "the stream to be quiet")


@contextlib.contextmanager
def platform(folder: Path, partitions: int = 2, policy: dict[str, Any] | None = None) -> Iterator[Platform]:
    """Everything, ready, with a small model's release in place."""
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(kafka.broker())
        store = stack.enter_context(redis.server(append_only=True))
        database = stack.enter_context(postgres.server())
        config = detectors.detector(broker.bootstrap, partitions)
        broker.create_detector_topics(str(config.identity), partitions)
        config = config.model_copy(update={"storage_uri": f"file://{folder}"})
        # First, since it takes longest to start.
        # A test may let it stand still for a minute, which isn't to count as its end.
        job = stack.enter_context(stream.mini_cluster(config, folder, **{"heartbeat.timeout": "5 min"}))
        package = folder / "package"
        digest = packages.make(package, list(compile_detector(config.spec).names), config.feature_set)
        model = stack.enter_context(serving.predictor(package, f"{config.name}-a", folder))
        stable = packages.release_package(digest, config.feature_set, f"http://127.0.0.1:{model.port}")
        chosen = Policy.model_validate(policy or {"fallback": {"deadline": "1s"}})
        serving.write_release(folder, Release(name="r1", stable=stable, policy=chosen, policy_revision=1))
        url = store.login(config.identity)
        profiles = stack.enter_context(sinks.sink("fraud_sinks.profile", config, folder, REDIS_URL=url))
        ledger = stack.enter_context(
            sinks.sink("fraud_sinks.ledger", config, folder, POSTGRES_DSN=database.dsn)
        )
        profiles.start()
        ledger.start()
        service = stack.enter_context(
            serving.decision_service(config, folder, url, POSTGRES_DSN=database.dsn)
        )
        worker = stack.enter_context(serving.worker(config, folder, url, POSTGRES_DSN=database.dsn))
        profiles.await_ready()
        ledger.await_ready()
        whole = Platform(config, broker, store, database, job, service, worker, profiles, ledger, folder)
        # The stream is there once it has decided something.
        broker.produce(whole.topic("transactions"), [(None, b"{")])
        kafka.wait_for(
            lambda: broker.count(whole.topic("dead-letters")), 300, f"the stream, see {folder}/job.log"
        )
        yield whole
