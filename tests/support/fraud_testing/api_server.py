"""A real etcd and kube-apiserver on loopback, which a test may kill and start again; the garbage collector where asked for.

Each write of a user other than the administrator is in the audit log, so that a test can say "nothing was written".
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

CACHE = Path(os.environ.get("FRAUD_CACHE") or Path.home() / ".cache" / "fraud-platform")
ADMIN, OPERATOR = "admin-token", "operator-token"
USER = "system:serviceaccount:fraud-platform:fraud-platform-operator"
AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "users": [USER], "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
        {"level": "None"},
    ],
}  # fmt: skip


def binary(*names: str) -> Path:
    for folder in (CACHE / "node" / "bin", CACHE / "build" / "node" / "bin"):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    found = next((shutil.which(name) for name in names if shutil.which(name)), None)
    if found:
        return Path(found)
    if os.environ.get("FRAUD_REQUIRE") == "all":
        pytest.fail(f"{names[0]} is not built")
    pytest.skip(f"{names[0]} is not built")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class ApiServer:
    """``url`` stays the same over a restart, so whoever was connected can come back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._etcd, self._peer, self._port = free_port(), free_port(), free_port()
        self.url = f"https://127.0.0.1:{self._port}"
        self.audit = folder / "audit.log"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        key = folder / "sa.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        (folder / "tokens.csv").write_text(f'{ADMIN},admin,1,"system:masters"\n{OPERATOR},{USER},2\n')
        (folder / "audit.yaml").write_text(yaml.safe_dump(AUDIT))

    def _start(self, name: str, *command: object) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as out:
            process = subprocess.Popen([str(part) for part in command], stdout=out, stderr=subprocess.STDOUT)
        self._processes[name] = process
        return process

    def start(self) -> subprocess.Popen[bytes]:
        """Both processes; the API server's, whose readiness is the caller's to wait for."""
        self._start(
            "etcd",
            binary("etcd", "server"),
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls=http://127.0.0.1:{self._etcd}",
            f"--advertise-client-urls=http://127.0.0.1:{self._etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{self._peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{self._peer}",
            f"--initial-cluster=default=http://127.0.0.1:{self._peer}",
            "--unsafe-no-fsync",
        )
        return self.start_api()

    def start_api(self) -> subprocess.Popen[bytes]:
        key = self.folder / "sa.key"
        return self._start(
            "apiserver",
            binary("kube-apiserver"),
            f"--etcd-servers=http://127.0.0.1:{self._etcd}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._port}",
            f"--cert-dir={self.folder / 'certs'}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
            f"--audit-policy-file={self.folder / 'audit.yaml'}",
            f"--audit-log-path={self.audit}",
            "--audit-log-mode=blocking",
        )

    def kill_api(self) -> None:
        """SIGKILL, as a machine that dies does it."""
        process = self._processes.pop("apiserver")
        process.kill()
        process.wait(20)

    def start_collector(self) -> None:
        """What takes owned objects away once their owner is gone, and ends namespaces."""
        self._start(
            "controllers",
            binary("kube-controller-manager"),
            f"--kubeconfig={self.kubeconfig(ADMIN)}",
            "--controllers=garbage-collector-controller,namespace-controller",
            "--leader-elect=false",
            "--concurrent-gc-syncs=4",
            f"--secure-port={free_port()}",
            "--bind-address=127.0.0.1",
            f"--cert-dir={self.folder / 'certs'}",
        )

    def kubeconfig(self, token: str) -> Path:
        path = self.folder / f"{token}.yaml"
        text = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": self.url, "insecure-skip-tls-verify": True}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path.write_text(yaml.safe_dump(text))
        return path

    def writes(self) -> list[dict[str, Any]]:
        """Every write of the operator so far, oldest first."""
        lines = self.audit.read_text().splitlines() if self.audit.exists() else []
        return [json.loads(line) for line in lines if line]

    def stop(self) -> None:
        # Nothing here is worth a graceful end, which takes the API server a minute on a busy machine.
        for process in reversed(self._processes.values()):
            process.send_signal(signal.SIGKILL)
            process.wait(20)
        self._processes.clear()
