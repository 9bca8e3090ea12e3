"""The chart rendered and installed on a test's API server, and the operator as the chart runs it: a process with its rights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fraud_contracts.child_kinds import BY_KIND, Kind
from fraud_operator.kube import Kube
from fraud_operator.leader import POD_ENV
from fraud_testing.api_server import OPERATOR, ROOT, ApiServer, binary
from fraud_testing.kafka import free_port, wait_for

CHART = ROOT / "charts/fraud-platform"
# What detectors have in tests that start no object store: no bucket is asked, and nothing waits for its answer.
NODE_FOLDER = ("storage.uri=file:///var/lib/fraud-platform/storage", "storage.nodeFolder.enabled=true")
PLURALS = {
    "ClusterRole": "clusterroles", "ClusterRoleBinding": "clusterrolebindings", "PersistentVolumeClaim": "persistentvolumeclaims",
    "ClusterServingRuntime": "clusterservingruntimes", "ClusterStorageContainer": "clusterstoragecontainers", "Job": "jobs",
    "CustomResourceDefinition": "customresourcedefinitions",
}  # fmt: skip
HOOK = "helm.sh/hook"


def render(*settings: str, hooks: bool = False) -> list[dict[str, Any]]:
    """The chart's objects with these values; ``hooks``: also those that helm makes for a moment only."""
    values = [part for setting in settings for part in ("--set", setting)]
    command = [
        str(binary("helm")),
        "template",
        "fraud-platform",
        str(CHART),
        "-n",
        "fraud-platform",
        "--kube-version",
        "1.34.4",
        *values,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    documents = [document for document in yaml.load_all(done.stdout, yaml.CSafeLoader) if document]
    return [d for d in documents if hooks or HOOK not in (d["metadata"].get("annotations") or {})]


def find(documents: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    return next(d for d in documents if d["kind"] == kind and d["metadata"]["name"] == name)


def install(kube: Kube, documents: list[dict[str, Any]], *, dry_run: bool = False) -> None:
    """Applies each; an ApiError where the server doesn't know a field, or refuses what it says."""
    # By force: the server has the CRD already, from whoever started it.
    query = {"fieldManager": "helm", "force": "true", "fieldValidation": "Strict"}
    query |= {"dryRun": "All"} if dry_run else {}
    for document in documents:
        kind, meta = document["kind"], document["metadata"]
        cluster_scoped = kind.startswith(("Cluster", "Custom"))
        resource = BY_KIND.get(kind) or Kind(document["apiVersion"], kind, PLURALS[kind])
        path = resource.path(
            None if cluster_scoped else meta.get("namespace", "fraud-platform"), meta["name"]
        )
        kube._call("PATCH", path, query, document, "application/apply-patch+yaml")


class Usage(NamedTuple):
    """Memory that is resident now, threads now, CPU time so far."""

    mebibytes: int
    threads: int
    cpu_seconds: float


class OperatorProcess:
    """Stores that nobody answers for: the operator must live with them. ``settings`` are the chart's values."""

    def __init__(
        self,
        api: ApiServer,
        folder: Path,
        namespaces: Sequence[str] = (),
        settings: Sequence[str] = (),
        **environ: str,
    ) -> None:
        self._log, self.port = folder / "operator.log", free_port()
        documents = render(*NODE_FOLDER, *settings)
        (folder / "platform.json").write_text(
            find(documents, "ConfigMap", "fraud-platform-operator")["data"]["platform.json"]
        )
        self._arguments = ["--port", str(self.port), *(f"--namespace={name}" for name in namespaces)]
        self._environ = {
            **os.environ,
            "KUBECONFIG": str(api.kubeconfig(OPERATOR)),
            "FRAUD_PLATFORM": str(folder / "platform.json"),
            "REDIS_URL": "redis://x",
            "POSTGRES_DSN": "postgresql://x",
            "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
            # As a Pod's container that is started anew: it goes on with the Lease that the one before held.
            POD_ENV: f"operator-{self.port}",
            # The server's certificate is its own: a line for each request would hide the operator's log.
            "PYTHONWARNINGS": "ignore",
            **environ,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, ready: bool = True) -> None:
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fraud_operator", *self._arguments],
                env=self._environ,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        if ready:
            wait_for(lambda: self.get("/readyz"), 120, "readyz")

    def get(self, path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    @property
    def identity(self) -> str:
        """Its name in the Lease."""
        return self._environ[POD_ENV]

    @property
    def exit_code(self) -> int | None:
        assert self._process is not None
        return self._process.poll()

    def usage(self) -> Usage:
        assert self._process is not None
        folder = Path(f"/proc/{self._process.pid}")
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        ticks = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
        return Usage(
            int(status["VmRSS"].split()[0]) // 1024,
            int(status["Threads"]),
            sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"),
        )

    def send(self, what: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(what)

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def terminate(self, seconds: float) -> int:
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(seconds)

    def stop(self) -> None:
        """Ends it, so that the next one needn't wait for its Lease, and shows its log, which pytest keeps for a failure."""
        if self._process is not None and self._process.poll() is None:
            try:
                self.terminate(20)
            except subprocess.TimeoutExpired:
                self.kill()
        if self._log.exists():
            sys.stdout.write(self._log.read_text()[-20_000:])
