"""The real helm against a test's API server, and what runs the Pods of its hooks where there is no node."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fraud_contracts.child_kinds import BY_KIND
from fraud_operator.kube import ApiError
from fraud_testing.api_server import ADMIN, ROOT, Server, binary

# The chart before its CRD was a template and its passwords were made by the operator.
RELEASED = ROOT / "tests" / "data" / "fraud-platform-0.1.0.tgz"
NAMESPACE = "fraud-platform"
POD = BY_KIND["Pod"]


@dataclass(frozen=True)
class Helm:
    """As the cluster's administrator, with a home of its own."""

    server: Server
    home: Path

    def run(self, *arguments: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """What it said, in ``stdout`` and ``stderr``, and how it ended."""
        folders = {f"HELM_{what}_HOME": str(self.home / what.lower()) for what in ("CACHE", "CONFIG", "DATA")}
        return subprocess.run(
            [str(binary("helm")), *arguments],
            env={**os.environ, **folders, "KUBECONFIG": str(self.server.kubeconfig(ADMIN))},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def must(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, *arguments: str) -> str:
        """Why helm didn't do it."""
        done = self.run(*arguments)
        assert done.returncode != 0, done.stdout
        return done.stderr


@dataclass
class HookPods:
    """Plays the kubelet for Pods that end: runs their command on this machine, with the rights of their account.

    ``printed`` is what each Pod wrote, by its name.
    """

    server: Server
    printed: dict[str, str] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        kube = self.server.kube()
        while not self._stop.is_set():
            try:
                for event, pod in kube.watch(POD, NAMESPACE, {}, 1):
                    if event in ("ADDED", "MODIFIED") and pod["metadata"]["uid"] not in self._seen:
                        self._seen.add(pod["metadata"]["uid"])
                        self.run(pod)
            except ApiError:  # the server has just gone, or the namespace isn't there yet
                self._stop.wait(0.2)

    def run(self, pod: dict[str, Any]) -> None:
        name, (container,) = pod["metadata"]["name"], pod["spec"]["containers"]
        account = pod["spec"]["serviceAccountName"]
        token = self.server.post(
            f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token",
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}},
        )["status"]["token"]
        program, *arguments = container["command"]
        assert program == "python"
        done = subprocess.run(
            [sys.executable, *arguments],
            env={
                **os.environ,
                "KUBECONFIG": str(self.server.api.kubeconfig(token, f"hook-{account}")),
                "PYTHONWARNINGS": "ignore",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        self.printed[name] = done.stdout + done.stderr
        phase = "Failed" if done.returncode else "Succeeded"
        self.server.kube().merge(POD, NAMESPACE, name, {"status": {"phase": phase}}, "status")


@contextmanager
def hook_pods(server: Server) -> Iterator[HookPods]:
    pods = HookPods(server)
    thread = threading.Thread(target=pods.watch, daemon=True)
    thread.start()
    try:
        yield pods
    finally:
        pods._stop.set()
        thread.join(30)
