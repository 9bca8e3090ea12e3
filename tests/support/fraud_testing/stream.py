"""The real Flink job in a mini-cluster of its own process, for tests: same graph, same files, no cluster."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fraud_contracts.config import DetectorConfig
from fraud_testing import detectors
from fraud_testing.kafka import CACHE

ROOT = Path(__file__).parents[3]
JARS = CACHE / "flink-jars"
PYTHON = CACHE / "envs" / "flink" / "bin" / "python"
TOKEN_KEY = "00112233445566778899aabbccddeeff" * 2
DEAD_LETTER_KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def missing() -> str | None:
    """What keeps the job from running on this machine."""
    if not any(JARS.glob("flink-sql-connector-kafka-*.jar")):
        return f"no Flink connector in {JARS}"
    if not python().exists():
        return f"no PyFlink in {PYTHON}: make env-flink"
    return None


def python() -> Path:
    """The interpreter that has PyFlink: this one, else the stream's own environment."""
    return Path(sys.executable) if importlib.util.find_spec("pyflink") else PYTHON


def environment(config: DetectorConfig, folder: Path, *sources: Path) -> dict[str, str]:
    """What a Pod of the job has in its environment. The JVM finds Python's packages along PYTHONPATH only, of which ``sources`` come first."""
    packages = list(python().parents[1].glob("lib/python3.*/site-packages/pyflink/__init__.py"))
    if not packages:
        raise RuntimeError(f"PyFlink is not in the environment of {python()}")
    site = str(packages[0].parents[1])
    logs = folder / "log"
    logs.mkdir(exist_ok=True)
    own = [ROOT / part / "src" for part in ("contracts", "pipelines", "flink")]
    return {
        **os.environ,
        "PYTHONPATH": ":".join([*map(str, (*sources, *own)), site]),
        "FLINK_LOG_DIR": str(logs),
        "FRAUD_CONFIG": str(detectors.write(config, folder)),
        "TOKEN_KEY": TOKEN_KEY,
        "DEAD_LETTER_KEY": DEAD_LETTER_KEY,
    }


@contextmanager
def mini_cluster(
    config: DetectorConfig,
    folder: Path,
    program: Sequence[str] = ("-m", "fraud_flink.job"),
    **settings: str,
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs the job until the block ends; its output goes to ``job.log`` in the folder. A program in the folder finds modules beside it."""
    jar = next(JARS.glob("flink-sql-connector-kafka-*.jar"))
    given = {
        "python.executable": str(python()),
        "python.client.executable": str(python()),
        "pipeline.jars": f"file://{jar}",
        "parallelism.default": "1",
        "restart-strategy.type": "none",
        "state.backend.type": "rocksdb",
        "execution.checkpointing.incremental": "true",
        "execution.checkpointing.interval": "500 ms",
        "execution.checkpointing.dir": f"file://{folder}/checkpoints",
        **settings,
    }
    command = [str(python()), *program]
    for name, text in given.items():
        command += ["-D", f"{name}={text}"]
    sources = [path.parent for path in map(Path, program) if path.is_relative_to(folder)]
    with (folder / "job.log").open("ab") as log:
        process = subprocess.Popen(
            command, env=environment(config, folder, *sources), stdout=log, stderr=log, start_new_session=True
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
