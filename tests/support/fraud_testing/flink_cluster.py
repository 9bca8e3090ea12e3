"""An application cluster on loopback, started by the scripts and arguments that a FlinkDeployment's Pods get."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fraud_contracts.config import DetectorConfig
from fraud_testing import stream
from fraud_testing.kafka import CACHE, free_port, wait_for

HOME = CACHE / "flink-home"
LOG4J = """\
rootLogger.level = INFO
rootLogger.appenderRef.console.ref = Console
appender.console.name = Console
appender.console.type = CONSOLE
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yyyy-MM-dd HH:mm:ss,SSS} %-5p %-60c %x - %m%n
"""


def missing() -> str | None:
    return stream.missing() or (
        None if (HOME / "bin").exists() else f"no Flink home in {HOME}: make env-flink"
    )


def documented() -> dict[str, Any]:
    """The block of flink/README.md that the operator's builder repeats."""
    text = (stream.ROOT / "flink" / "README.md").read_text()
    return dict(ast.literal_eval(text.split("```python\n")[1].split("```")[0]))


@dataclass
class Cluster:
    """A JobManager that runs the job, and the TaskManagers that a test adds and kills.

    ``program`` is another entry point; its folder then comes first where Python's modules are looked for.
    """

    config: DetectorConfig
    folder: Path
    settings: Mapping[str, str]
    program: Path | None = None
    rest: int = field(default_factory=free_port)
    managers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    master: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        block = documented()
        conf = self.folder / "conf"
        conf.mkdir(parents=True)
        (conf / "log4j-console.properties").write_text(LOG4J)
        given = {
            **block["flinkConfiguration"],
            "jobmanager.rpc.address": "127.0.0.1",
            "jobmanager.bind-host": "127.0.0.1",
            "jobmanager.rpc.port": str(free_port()),
            "taskmanager.host": "127.0.0.1",
            "taskmanager.bind-host": "127.0.0.1",
            "rest.address": "127.0.0.1",
            "rest.port": str(self.rest),
            "blob.server.port": str(free_port()),
            # Two processes on one machine can't listen on one port; in Pods they do.
            "metrics.reporter.prom.port": f"{free_port()}-{free_port() + 20}",
            "parallelism.default": "1",
            "execution.checkpointing.dir": f"file://{self.folder}/checkpoints",
            **self.settings,
        }
        (conf / "config.yaml").write_text("".join(f"{k}: {json.dumps(v)}\n" for k, v in given.items()))
        program = self.program or stream.ROOT / "flink/src/fraud_flink/job.py"
        arguments = [str(program) if one.endswith("/job.py") else one for one in block["args"]]
        self.master = self._run(
            "jm", "standalone-job.sh", "--job-classname", block["entryClass"], "--", *arguments
        )

    def add_task_manager(self) -> subprocess.Popen[bytes]:
        self.managers.append(self._run(f"tm{len(self.managers)}", "taskmanager.sh"))
        return self.managers[-1]

    def _run(self, name: str, script: str, *arguments: str) -> subprocess.Popen[bytes]:
        sources = [] if self.program is None else [self.program.parent]
        inherited = stream.environment(self.config, self.folder, *sources)
        # PyFlink used in this process leaves the wheel's own folders (FLINK_LIB_DIR and others) in the environment.
        environment = {k: v for k, v in inherited.items() if not k.startswith(("FLINK_", "_FLINK_"))}
        environment |= {
            "FLINK_HOME": str(HOME),
            "FLINK_CONF_DIR": str(self.folder / "conf"),
            "FLINK_LOG_DIR": str(self.folder / "log"),
            "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
            "PYTHONSAFEPATH": "1",
        }
        with (self.folder / f"{name}.out").open("ab") as log:
            return subprocess.Popen(
                [str(HOME / "bin" / script), "start-foreground", *arguments],
                env=environment,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill_task_manager(self) -> None:
        """kill -9 of the one that was added last."""
        os.killpg(self.managers[-1].pid, signal.SIGKILL)
        self.managers[-1].wait()

    def get(self, path: str) -> Any:
        """The REST API's answer; None where there is none, or no JobManager."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.rest}{path}", timeout=5) as answer:
                return json.load(answer)
        except OSError:
            return None

    def job(self) -> dict[str, Any] | None:
        """The REST API's view of the one job; None while there is none or no JobManager."""
        jobs = (self.get("/jobs/overview") or {}).get("jobs")
        return dict(jobs[0]) if jobs else None

    def restarts(self) -> int:
        """How often the job was restarted."""
        return self._metric(f"{self._job_path()}/metrics", "numRestarts")

    def checkpoints(self) -> dict[str, int]:
        """How many ``failed``, were ``completed``, are ``in_progress``."""
        return dict(self.get(f"{self._job_path()}/checkpoints")["counts"])

    def task_manager_threads(self) -> int:
        """Of the one TaskManager's JVM."""
        [manager] = self.get("/taskmanagers")["taskmanagers"]
        return self._metric(f"/taskmanagers/{manager['id']}/metrics", "Status.JVM.Threads.Count")

    def _job_path(self) -> str:
        job = self.job()
        assert job is not None
        return f"/jobs/{job['jid']}"

    def _metric(self, path: str, name: str) -> int:
        """0 before it was measured first."""
        return sum(int(float(one["value"])) for one in self.get(f"{path}?get={name}") or [])

    def stop_with_savepoint(self, folder: Path) -> str:
        """Path of a savepoint in the canonical form, as the Flink operator asks for it."""
        job = self.job()
        assert job is not None
        base = f"http://127.0.0.1:{self.rest}/jobs/{job['jid']}"
        body = {"targetDirectory": f"file://{folder}", "drain": False, "formatType": "CANONICAL"}
        request = urllib.request.Request(
            f"{base}/stop", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            trigger = json.load(answer)["request-id"]

        def location() -> str | None:
            with urllib.request.urlopen(f"{base}/savepoints/{trigger}", timeout=30) as answer:
                savepoint = json.load(answer)
            operation = savepoint.get("operation") or {}
            if "failure-cause" in operation:
                raise RuntimeError(operation["failure-cause"]["stack-trace"][-4000:])
            return operation.get("location")

        return str(wait_for(location, 120, "the savepoint"))

    def status_of(self, path: str) -> int:
        """The status with which the REST API answers a GET."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.rest}{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def running(self) -> bool:
        if self.master is not None and self.master.poll() is not None:
            raise RuntimeError(f"the JobManager ended:\n{(self.folder / 'jm.out').read_text()[-4000:]}")
        job = self.job()
        return bool(job and job["state"] == "RUNNING" and job["tasks"]["running"] == job["tasks"]["total"])

    def wait_running(self, seconds: float = 120) -> None:
        wait_for(self.running, seconds, f"all tasks running, see {self.folder}")

    def stop(self) -> None:
        for process in (*self.managers, self.master):
            if process is not None and process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@contextmanager
def cluster(
    config: DetectorConfig, folder: Path, settings: Mapping[str, str], program: Path | None = None
) -> Iterator[Cluster]:
    """A started JobManager; the block adds TaskManagers. ``settings`` are Flink's, and go before those of its README."""
    running = Cluster(config, folder, settings, program)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        running.start()
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder / "conf", ignore_errors=True)
