"""A real etcd and kube-apiserver on loopback, with our CRD and, where they were fetched, the upstream ones."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml
from kubernetes import client

from fraud_operator.kube import ApiError, Kube

# The server signs its own certificate for the length of a test.
urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
ROOT = Path(__file__).resolve().parents[3]
CACHE = Path(os.environ.get("FRAUD_CACHE") or Path.home() / ".cache" / "fraud-platform")
ADMIN, OPERATOR = "admin-token", "operator-token"
USER = "system:serviceaccount:fraud-platform:fraud-platform-operator"


def _binary(*names: str) -> Path:
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


def _port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


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
    url: str
    kubeconfigs: Path

    def kube(self, token: str = ADMIN) -> Kube:
        settings = client.Configuration()
        settings.host, settings.verify_ssl = self.url, False
        settings.api_key = {"BearerToken": f"Bearer {token}"}
        return Kube(client.ApiClient(settings))

    def kubeconfig(self, token: str) -> Path:
        path = self.kubeconfigs / f"{token}.yaml"
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [
                        {"name": "c", "cluster": {"server": self.url, "insecure-skip-tls-verify": True}}
                    ],
                    "users": [{"name": "u", "user": {"token": token}}],
                    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                    "current-context": "x",
                }
            )
        )
        return path

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self.kube()._call("POST", path, None, body)

    def get(self, path: str) -> dict[str, Any]:
        return self.kube()._call("GET", path)


def _wait(server: Server, path: str, seconds: float, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            server.get(path)
            return
        except (ApiError, ValueError) as error:
            if isinstance(error, ValueError):
                return  # /readyz answers plain text
            if process.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(0.2)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("api")
    etcd_port, peer, port = _port(), _port(), _port()
    key = folder / "sa.key"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    (folder / "tokens.csv").write_text(f'{ADMIN},admin,1,"system:masters"\n{OPERATOR},{USER},2\n')
    processes = []

    def start(name: str, *command: object) -> subprocess.Popen[bytes]:
        with (folder / f"{name}.log").open("wb") as out:
            process = subprocess.Popen([str(part) for part in command], stdout=out, stderr=subprocess.STDOUT)
        processes.append(process)
        return process

    try:
        start(
            "etcd",
            _binary("etcd", "server"),
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls=http://127.0.0.1:{etcd_port}",
            f"--advertise-client-urls=http://127.0.0.1:{etcd_port}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
            "--unsafe-no-fsync",
        )
        api = start(
            "apiserver",
            _binary("kube-apiserver"),
            f"--etcd-servers=http://127.0.0.1:{etcd_port}",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            f"--cert-dir={folder / 'certs'}",
            f"--token-auth-file={folder / 'tokens.csv'}",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
        )
        made = Server(f"https://127.0.0.1:{port}", folder)
        _wait(made, "/readyz", 60, api)
        own = yaml.safe_load((ROOT / "charts/fraud-platform/crds/frauddetectors.yaml").read_text())
        crds = [own, *upstream_crds()]
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        for crd in crds:
            crd.pop("status", None)
            made.post(path, crd)
        for crd in crds:
            version = next(v["name"] for v in crd["spec"]["versions"] if v.get("storage"))
            _wait(made, f"/apis/{crd['spec']['group']}/{version}/{crd['spec']['names']['plural']}", 60, api)
        yield made
    finally:
        # Nothing here is worth a graceful end, which takes the API server a minute on a busy machine.
        for process in reversed(processes):
            process.kill()
            process.wait(20)
