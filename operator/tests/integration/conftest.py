"""A real etcd and kube-apiserver on loopback, with our CRD and, where they were fetched, the upstream ones."""

from __future__ import annotations

import os
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
from fraud_testing.api_server import ADMIN, CACHE, ApiServer

# The server signs its own certificate for the length of a test.
urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
ROOT = Path(__file__).resolve().parents[3]


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

    def wait(self, path: str, seconds: float = 60) -> None:
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


def _serve(folder: Path) -> Iterator[Server]:
    made = Server(ApiServer(folder))
    try:
        made.api.start()
        made.wait("/readyz")
        own = yaml.safe_load((ROOT / "charts/fraud-platform/crds/frauddetectors.yaml").read_text())
        crds = [own, *upstream_crds()]
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        for crd in crds:
            crd.pop("status", None)
            made.post(path, crd)
        for crd in crds:
            version = next(v["name"] for v in crd["spec"]["versions"] if v.get("storage"))
            made.wait(f"/apis/{crd['spec']['group']}/{version}/{crd['spec']['names']['plural']}")
        yield made
    finally:
        made.api.stop()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from _serve(tmp_path_factory.mktemp("api"))


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for tests that kill it, or that count all writes to it; with the garbage collector."""
    for made in _serve(tmp_path_factory.mktemp("own-api")):
        made.api.start_collector()
        yield made
