"""The real KubeRay of the pinned version makes each training's token, and head and submitter get it from there."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fraud_contracts.child_kinds import BY_KIND, SECRET
from fraud_contracts.release import Release
from fraud_operator.desired.child import Wanted
from fraud_operator.desired.ray_job import build_ray_job
from fraud_operator.kube import Kube
from fraud_operator.rollout_state import RolloutState
from fraud_testing.api_server import ADMIN, Server, binary
from fraud_testing.healthy import make_detector
from fraud_testing.kafka import free_port, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.accept]
NAMESPACE = "n"


@pytest.fixture(scope="module")
def kuberay(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kube]:
    """Watches the one namespace."""
    folder = tmp_path_factory.mktemp("kuberay")
    server.namespace(NAMESPACE)
    command: list[Any] = [
        binary("ray-operator"), "-kubeconfig", server.kubeconfig(ADMIN), "-enable-leader-election=false",
        "-metrics-addr", f"127.0.0.1:{free_port()}", "-health-probe-bind-address", f"127.0.0.1:{free_port()}",
        "-watch-namespace", NAMESPACE,
    ]  # fmt: skip
    with (folder / "log").open("wb") as out:
        process = subprocess.Popen([*map(str, command)], stdout=out, stderr=subprocess.STDOUT)
    try:
        yield server.kube()
        assert process.poll() is None, (folder / "log").read_text()[-2000:]
    finally:
        process.kill()
        process.wait(20)


def _training(kube: Kube) -> None:
    detector = make_detector()
    release = Release(name="d-release-x", policy=detector.spec.policy, policy_revision=1)
    [job] = build_ray_job(detector, Wanted(release, RolloutState(), training_revision="0123456789abcdef"))
    # Its owner isn't there, and what can't be collected is of no use to this test.
    job.body["metadata"].pop("ownerReferences")
    kube.create(BY_KIND["RayJob"], job.body)


def _listed(kube: Kube, path: str) -> list[Any]:
    return list(kube._call("GET", path)["items"])


def _token_of(container: dict[str, Any]) -> tuple[str | None, dict[str, str]]:
    """(The mode, the place in a Secret that the token comes from.)"""
    env = {one["name"]: one for one in container["env"]}
    return env["RAY_AUTH_MODE"].get("value"), env["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]


def test_kuberay_gives_head_and_submitter_a_token_of_the_run(kuberay: Kube, tmp_path: Path) -> None:
    """A Secret with a random token goes with the cluster, and only the dashboard's port and the metrics' are in the head's Service."""
    _training(kuberay)
    pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
    wait_for(lambda: _listed(kuberay, pods), 60, "the head's Pod")
    [pod] = _listed(kuberay, pods)
    cluster = pod["metadata"]["labels"]["ray.io/cluster"]
    mode, place = _token_of(pod["spec"]["containers"][0])
    assert (mode, place) == ("token", {"name": cluster, "key": "auth_token"})
    secret = kuberay.get(SECRET, NAMESPACE, cluster)
    assert secret is not None
    assert len(base64.b64decode(base64.b64decode(secret["data"]["auth_token"]))) == 32
    [owner] = secret["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("RayCluster", cluster)
    [service] = _listed(kuberay, f"/api/v1/namespaces/{NAMESPACE}/services")[:1]
    assert {port["port"] for port in service["spec"]["ports"]} == {8265, 8080}
    name = pod["metadata"]["name"]
    ready = {
        "phase": "Running",
        "podIP": "127.0.0.1",
        "conditions": [{"type": kind, "status": "True"} for kind in ("Ready", "ContainersReady")],
    }
    kuberay._call("PATCH", f"{pods}/{name}/status", None, {"status": ready}, "application/merge-patch+json")
    jobs = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
    wait_for(lambda: _listed(kuberay, jobs), 60, "the submitter's Job")
    [submitter] = _listed(kuberay, jobs)
    assert _token_of(submitter["spec"]["template"]["spec"]["containers"][0]) == (mode, place)
