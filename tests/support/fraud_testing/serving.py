"""The processes of ``fraud_serving`` as their Pods run them, on free loopback ports, for tests that may kill them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fraud_contracts.clients import CLIENTS_ENV, CLIENTS_KEY, ClientAccess, ClientsDocument, hash_key
from fraud_contracts.config import HTTP_PORT_ENV, METRICS_PORT_ENV, STORES_ENV, DetectorConfig
from fraud_contracts.detector_clients import Scope
from fraud_contracts.release import Release
from fraud_testing.detectors import replace_whole, write
from fraud_testing.ending import end
from fraud_testing.kafka import free_port, wait_for

API_KEY = "test-key"
TOKEN_KEY = "00112233445566778899aabbccddeeff" * 2
NO_LEDGER = "postgresql://nobody@127.0.0.1:1/none"
DEAD_LETTER_KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

# Of a policy where no stream runs: the profiles may be as old as may be.
NO_STREAM = {"staleness": "5m"}


@dataclass
class Process:
    """``python -m <module>``; ``stop`` and ``start`` keep the port."""

    module: str
    folder: Path
    environ: dict[str, str]
    arguments: list[str] = field(default_factory=list)
    ready_path: str = "/readyz"
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    changing: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.module}-{self.port}.log"

    def start(self, wait: bool = True) -> Process:
        ports = {HTTP_PORT_ENV: str(self.port), METRICS_PORT_ENV: str(self.port)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module, *self.arguments],
                env={**os.environ, **self.environ, **ports},
                stdout=log,
                stderr=log,
            )
        if wait:
            wait_for(self._ready, 60, f"{self.module}, see {self.log}")
        return self

    def _ready(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise RuntimeError(
                f"{self.module} ended with {self.process.returncode}:\n{self.log.read_text()[-3000:]}"
            )
        try:
            with urllib.request.urlopen(self.url + self.ready_path, timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    @contextmanager
    def kept_running(self) -> Iterator[list[int]]:
        """For the block it is started anew at once when it ended itself, as the kubelet does; -> the exit codes so far."""
        codes: list[int] = []
        over = threading.Event()

        def keep() -> None:
            while not over.wait(0.1):
                with self.changing:
                    if self.process is not None and (code := self.process.poll()) is not None:
                        codes.append(code)
                        self.start(wait=False)

        keeper = threading.Thread(target=keep, name="kubelet", daemon=True)
        keeper.start()
        try:
            yield codes
        finally:
            over.set()
            keeper.join()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int | None:
        """-> exit code."""
        with self.changing:
            ended, self.process = self.process, None
        if ended is None:
            return None
        end(ended, how, 30)
        return ended.returncode


def environment(config: DetectorConfig, folder: Path, redis_url: str, **more: str) -> dict[str, str]:
    """What the operator gives a Pod of service or worker, and ``more``; API_KEY opens all of the API."""
    # Nobody is there: a detector whose claims are whole asks no ledger. Where the addresses are files, none is made up.
    ledger = {} if STORES_ENV in more else {"POSTGRES_DSN": NO_LEDGER}
    return {
        "FRAUD_CONFIG": str(write(config, folder)),
        "FRAUD_RELEASE": str(folder / "release.json"),
        "TOKEN_KEY": TOKEN_KEY,
        "DEAD_LETTER_KEY": DEAD_LETTER_KEY,
        CLIENTS_ENV: str(write_clients(folder, access("all", API_KEY, scopes=[Scope.ADMIN]))),
        "REDIS_URL": redis_url,
        **ledger,
        **more,
    }


def access(
    client: str, *keys: str, scopes: Sequence[Scope], requests_per_second: int | None = None
) -> ClientAccess:
    """What the operator would tell the doors of a client with these keys."""
    hashes = tuple(hash_key(key.encode()) for key in keys)
    return ClientAccess(
        name=client, scopes=tuple(scopes), hashes=hashes, requests_per_second=requests_per_second
    )


def write_clients(folder: Path, *clients: ClientAccess) -> Path:
    """Puts the clients document where service and console look for it, as the kubelet does: whole, and at once."""
    path = folder / CLIENTS_KEY
    replace_whole(path, ClientsDocument(clients=clients).to_json())
    return path


def write_release(folder: Path, release: Release) -> None:
    """Puts the release where the process looks for it."""
    replace_whole(folder / "release.json", release.to_json())


@contextmanager
def predictor(package: Path, name: str, folder: Path) -> Iterator[Process]:
    process = Process("fraud_serving.predictor", folder, {}, ready_path=f"/v2/models/{name}/ready")
    process.arguments = [f"--model_name={name}", f"--model_dir={package}", f"--http_port={process.port}"]
    try:
        yield process.start()
    finally:
        process.stop()


@contextmanager
def decision_service(config: DetectorConfig, folder: Path, redis_url: str, **more: str) -> Iterator[Process]:
    process = Process("fraud_serving.decision", folder, environment(config, folder, redis_url, **more))
    try:
        yield process.start()
    finally:
        process.stop()


@contextmanager
def worker(config: DetectorConfig, folder: Path, redis_url: str, **more: str) -> Iterator[Process]:
    process = Process("fraud_serving.worker", folder, environment(config, folder, redis_url, **more))
    try:
        yield process.start()
    finally:
        process.stop()
