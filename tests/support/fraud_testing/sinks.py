"""Runs a sink as its Pod would, as a process of its own that can be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError

from confluent_kafka import KafkaException

from fraud_contracts.config import METRICS_PORT_ENV, DetectorConfig
from fraud_contracts.errors import StoreError
from fraud_testing.detectors import write
from fraud_testing.kafka import free_port, wait_for

if TYPE_CHECKING:
    from fraud_sinks.loop import Loop


@dataclass
class SinkProcess:
    """``python -m <module>`` with a detector document; ``name`` is the Pod's name, the same after a restart in place."""

    module: str
    config: DetectorConfig
    folder: Path
    stores: dict[str, str]
    name: str = "pod-0"
    port: int = field(default_factory=free_port)
    python: str = sys.executable
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.folder / f"{self.module}.{self.name}.log"

    def start(self, *arguments: str) -> None:
        environ = {
            **os.environ,
            **self.stores,
            "FRAUD_CONFIG": str(write(self.config, self.folder)),
            "HOSTNAME": self.name,
            METRICS_PORT_ENV: str(self.port),
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.python, "-P", "-m", self.module, *arguments], stdout=log, stderr=log, env=environ
            )

    def get(self, path: str) -> tuple[int, str]:
        """Status and body; 0 while nothing listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except (URLError, OSError):
            return 0, ""

    def metric(self, name: str) -> float:
        """Sum of a metric's samples."""
        lines = self.get("/metrics")[1].splitlines()
        return sum(
            float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + "{", name + " "))
        )

    def await_ready(self, seconds: float = 60) -> None:
        def ready() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.module} ended with {self.process.returncode}:\n{self.tail()}")
            return self.get("/readyz")[0] == 200

        try:
            wait_for(ready, seconds, f"{self.module} to catch up")
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.tail()}") from None

    def tail(self) -> str:
        return self.log.read_text()[-3000:]

    def wait(self, seconds: float = 60) -> int:
        assert self.process is not None
        return self.process.wait(seconds)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(30)


@contextmanager
def sink(module: str, config: DetectorConfig, folder: Path, **stores: str) -> Iterator[SinkProcess]:
    """A sink that is ended with the block, if it still runs then; not started yet."""
    running = SinkProcess(module, config, folder, stores)
    try:
        yield running
    finally:
        if running.process is not None and running.process.poll() is None:
            running.process.kill()
            running.process.wait()


@contextmanager
def running(loop: Loop, seconds: float) -> Iterator[list[Exception]]:
    """A sink's loop on a thread of this process for the block, ended within ``seconds``; what ended it before is in the list, and fails it."""
    failures: list[Exception] = []

    def run() -> None:
        try:
            loop.run()
        except (StoreError, KafkaException) as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield failures
    finally:
        loop.stop()
        thread.join(seconds)
    assert failures == []
