"""The real Flink job in a mini-cluster of its own process, for tests: same graph, same files, no cluster."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fraud_contracts.config import DetectorConfig
from fraud_testing import detectors
from fraud_testing.kafka import CACHE

ROOT = Path(__file__).parents[3]
JARS = CACHE / "flink-jars"
TOKEN_KEY = "00112233445566778899aabbccddeeff" * 2
DEAD_LETTER_KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def missing() -> str | None:
    """What keeps the job from running on this machine."""
    if not any(JARS.glob("flink-sql-connector-kafka-*.jar")):
        return f"no Flink connector in {JARS}"
    return None


def environment(config: DetectorConfig, folder: Path) -> dict[str, str]:
    """What a Pod of the job has in its environment. The JVM finds Python's packages along PYTHONPATH only."""
    package = importlib.util.find_spec("pyflink")
    if package is None or package.origin is None:
        raise RuntimeError("PyFlink is not in this environment")
    site = str(Path(package.origin).parents[1])
    logs = folder / "log"
    logs.mkdir(exist_ok=True)
    sources = [str(ROOT / part / "src") for part in ("contracts", "pipelines", "flink")]
    return {
        **os.environ,
        "PYTHONPATH": ":".join([*sources, site]),
        "FLINK_LOG_DIR": str(logs),
        "FRAUD_CONFIG": str(detectors.write(config, folder)),
        "TOKEN_KEY": TOKEN_KEY,
        "DEAD_LETTER_KEY": DEAD_LETTER_KEY,
    }


@contextmanager
def mini_cluster(config: DetectorConfig, folder: Path, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """Runs the job until the block ends; its output goes to ``job.log`` in the folder."""
    jar = next(JARS.glob("flink-sql-connector-kafka-*.jar"))
    given = {
        "python.executable": sys.executable,
        "python.client.executable": sys.executable,
        "pipeline.jars": f"file://{jar}",
        "parallelism.default": "1",
        "restart-strategy.type": "none",
        "execution.checkpointing.interval": "500 ms",
        "execution.checkpointing.dir": f"file://{folder}/checkpoints",
        **settings,
    }
    command = [sys.executable, "-m", "fraud_flink.job"]
    for name, text in given.items():
        command += ["-D", f"{name}={text}"]
    with (folder / "job.log").open("ab") as log:
        process = subprocess.Popen(
            command, env=environment(config, folder), stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        # Its own session: the JVM that PyFlink starts goes with it.
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
