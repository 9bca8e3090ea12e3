"""A real object store on a free loopback port, for tests: the one that the chart brings for a trial.

A bucket is a folder of its data, so a test makes one by making the folder.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fraud_contracts import object_store
from fraud_testing.ending import end
from fraud_testing.kafka import CACHE, free_port, wait_for
from fraud_testing.required import require

PROGRAM = CACHE / "objects" / "bin" / "versitygw"
BUCKET = "fraud"


def missing() -> str | None:
    return None if PROGRAM.exists() else f"no object store in {PROGRAM}: make programs"


@dataclass
class Server:
    """``stop`` and ``start`` keep its port and its data. ``read_only``: every write is refused."""

    folder: Path
    read_only: bool = False
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def uri(self) -> str:
        return f"{object_store.SCHEME}{BUCKET}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach it, as a Pod has it from a Secret."""
        return {
            object_store.ACCESS_KEY: "tester",
            object_store.SECRET_KEY: "tester-key",
            object_store.REGION: object_store.DEFAULT_REGION,
            object_store.ENDPOINT: self.endpoint,
        }

    @property
    def data(self) -> Path:
        """The buckets' folders, with an object's bytes in a file of its name."""
        return self.folder / "buckets"

    @property
    def log(self) -> Path:
        return self.folder / "objects.log"

    def start(self) -> None:
        for folder in (self.data / BUCKET, self.folder / "metadata"):
            folder.mkdir(parents=True, exist_ok=True)
        environment = {
            "ROOT_ACCESS_KEY_ID": self.environment[object_store.ACCESS_KEY],
            "ROOT_SECRET_ACCESS_KEY": self.environment[object_store.SECRET_KEY],
        }
        command = [str(PROGRAM), f"--port=127.0.0.1:{self.port}", "--health=/healthz"]
        command += ["--readonly"] if self.read_only else []
        command += ["posix", f"--sidecar={self.folder / 'metadata'}", str(self.data)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        wait_for(self._answers, 20, f"the object store, see {self.log}")

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"the object store ended:\n{self.log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(f"{self.endpoint}/healthz", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def objects(self, folder: str = "") -> list[str]:
        """Keys of the bucket's objects below a folder."""
        root = self.data / BUCKET
        return sorted(str(path.relative_to(root)) for path in (root / folder).rglob("*") if path.is_file())

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            end(self.process, how, 10)
        self.process = None


@contextmanager
def server_of_environment(patch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A fresh store that the environment's keys open; the test is skipped, or fails, where no store can be had."""
    require(missing())
    with server() as running:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running


@contextmanager
def server(read_only: bool = False) -> Iterator[Server]:
    """A fresh store with one empty bucket, for the block."""
    folder = Path(tempfile.mkdtemp(prefix="fraud-objects-"))
    running = Server(folder, read_only)
    try:
        running.start()
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)
