"""A real etcd and kube-apiserver on loopback, which a test may kill and start again; the garbage collector where asked for.

Each write of a user other than the administrator is in the audit log, so that a test can say "nothing was written".
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import urllib3
import yaml
from kubernetes import client

from fraud_contracts.child_kinds import STORAGE_CLASS
from fraud_operator.kube import ApiError, Kube
from fraud_operator.references import DEFAULT_CLASS
from fraud_testing.kafka import CACHE, free_port
from fraud_testing.required import require

# The server signs its own certificate for the length of a test.
urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
ROOT = Path(__file__).resolve().parents[3]
ADMIN, OPERATOR = "admin-token", "operator-token"
USER = "system:serviceaccount:fraud-platform:fraud-platform-operator"
WRITES = ("create", "update", "patch", "delete", "deletecollection")
READS = ("get", "list", "watch")


def audit_policy(*verbs: str) -> dict[str, Any]:
    """These requests of the operator are written down."""
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{"level": "Metadata", "users": [USER], "verbs": list(verbs)}, {"level": "None"}],
    }


def binary(*names: str) -> Path:
    for folder in (CACHE / "node" / "bin", CACHE / "build" / "node" / "bin"):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    program = next((shutil.which(name) for name in names if shutil.which(name)), None)
    if program:
        return Path(program)
    require(f"{names[0]} is not built")
    raise AssertionError("unreachable")  # require() ends the test


class ApiServer:
    """``url`` stays the same over a restart, so whoever was connected can come back. ``reads``: they are audited, too."""

    def __init__(self, folder: Path, *, reads: bool = False) -> None:
        self.folder = folder
        self._etcd, self._peer, self._port = free_port(), free_port(), free_port()
        self.url = f"https://127.0.0.1:{self._port}"
        self.audit = folder / "audit.log"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        key = folder / "sa.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        (folder / "tokens.csv").write_text(f'{ADMIN},admin,1,"system:masters"\n{OPERATOR},{USER},2\n')
        policy = audit_policy(*WRITES, *(READS if reads else ()))
        (folder / "audit.yaml").write_text(yaml.safe_dump(policy))

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

    def start_collector(self, *more: str) -> None:
        """What takes owned objects away once their owner is gone, and ends namespaces; ``more`` are other controllers."""
        controllers = ("garbage-collector-controller", "namespace-controller", *more)
        self._start(
            "controllers",
            binary("kube-controller-manager"),
            f"--kubeconfig={self.kubeconfig(ADMIN)}",
            f"--controllers={','.join(controllers)}",
            "--leader-elect=false",
            "--concurrent-gc-syncs=4",
            f"--secure-port={free_port()}",
            "--bind-address=127.0.0.1",
            f"--cert-dir={self.folder / 'certs'}",
        )

    def kubeconfig(self, token: str, name: str = "") -> Path:
        path = self.folder / f"{name or token}.yaml"
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
        """Every write of the operator so far, oldest first, but for those of the Lease that says who acts."""
        return [
            one
            for one in self.requests()
            if one["verb"] in WRITES and (one.get("objectRef") or {}).get("resource") != "leases"
        ]

    def requests(self, since: float = 0.0) -> list[dict[str, Any]]:
        """The operator's audited requests from a time on (in seconds since 1970), oldest first; a watch counts once."""
        lines = self.audit.read_text().splitlines() if self.audit.exists() else []
        unique = {one["auditID"]: one for one in map(json.loads, filter(None, lines))}
        return [one for one in unique.values() if received(one) >= since]

    def stop(self) -> None:
        # Nothing here is worth a graceful end, which takes the API server a minute on a busy machine.
        for process in reversed(self._processes.values()):
            process.send_signal(signal.SIGKILL)
            process.wait(20)
        self._processes.clear()


def upstream_crds() -> list[dict[str, Any]]:
    """From the folder that local/ fills, or the one named by FRAUD_CRDS; alertmanager's are left out, they don't parse."""
    folder = Path(os.environ.get("FRAUD_CRDS") or CACHE / "crds")
    out = []
    for path in sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml"), *folder.rglob("*.json")]):
        if "alertmanager" in path.name:
            continue
        out += [
            d
            for d in yaml.load_all(path.read_text(), yaml.CSafeLoader)
            if d and d.get("kind") == "CustomResourceDefinition"
        ]
    return out


@dataclass
class Server:
    api: ApiServer

    @property
    def url(self) -> str:
        return self.api.url

    def kube(self, token: str = ADMIN) -> Kube:
        settings = client.Configuration()
        settings.host, settings.verify_ssl = self.url, False
        settings.connection_pool_maxsize = 64
        settings.api_key = {"BearerToken": f"Bearer {token}"}
        return Kube(client.ApiClient(settings))

    def kubeconfig(self, token: str) -> Path:
        return self.api.kubeconfig(token)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self.kube()._call("POST", path, None, body)

    def get(self, path: str) -> dict[str, Any]:
        return self.kube()._call("GET", path)

    def namespace(self, name: str) -> str:
        self.post("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        return name

    def wait(self, path: str, seconds: float = 180) -> None:
        end = time.monotonic() + seconds
        while True:
            try:
                self.get(path)
                return
            except (ApiError, ValueError) as error:
                if isinstance(error, ValueError):
                    return  # /readyz answers plain text
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)

    def restart_api(self) -> None:
        """Dies without a word and comes back at the same address."""
        self.api.kill_api()
        self.api.start_api()
        self.wait("/readyz")


def received(request: dict[str, Any]) -> float:
    """When an audited request came, in seconds since 1970."""
    return datetime.fromisoformat(request["requestReceivedTimestamp"].replace("Z", "+00:00")).timestamp()


@contextmanager
def serve(folder: Path, *, own: bool = True, reads: bool = False) -> Iterator[Server]:
    """An API server that knows every kind of upstream and, but for helm's tests, ours and a storage class, until the block ends.

    ``reads``: the operator's reads are audited, too.
    """
    server = Server(ApiServer(folder, reads=reads))
    try:
        server.api.start()
        server.wait("/readyz")
        detectors = yaml.safe_load((ROOT / "charts/fraud-platform/files/frauddetectors.yaml").read_text())
        crds = [*([detectors] if own else []), *upstream_crds()]
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        for crd in crds:
            crd.pop("status", None)
            server.post(path, crd)
        for crd in crds:
            version = next(v["name"] for v in crd["spec"]["versions"] if v.get("storage"))
            server.wait(f"/apis/{crd['spec']['group']}/{version}/{crd['spec']['names']['plural']}")
        if own:  # as on most clusters: volumes that name no class have one
            meta = {"name": "standard", "annotations": {DEFAULT_CLASS: "true"}}
            server.post(STORAGE_CLASS.path(None), {"metadata": meta, "provisioner": "example.org/none"})
        yield server
    finally:
        server.api.stop()
