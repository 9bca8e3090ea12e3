"""The chart on a real API server, and the operator as the chart runs it: a process with the chart's own rights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fraud_contracts.child_kinds import BY_KIND, DETECTOR
from fraud_operator.kube import Kube
from fraud_operator.ownership import snapshot
from fraud_testing.kafka import wait_for
from fraud_testing.operator_process import OperatorProcess, find, install, render

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def installed(server: Any) -> Kube:
    kube: Kube = server.kube()
    server.post(
        "/api/v1/namespaces",
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "fraud-platform"}},
    )
    install(kube, render())
    return kube


def test_the_api_server_takes_every_object_of_the_chart(installed: Kube) -> None:
    """The chart's objects pass the real schemas, KServe's runtime and storage container among them."""
    assert installed.get(BY_KIND["Deployment"], "fraud-platform", "fraud-platform-operator") is not None


def test_rights_are_named() -> None:
    """No role of the chart has a wildcard, and the operator can neither list Secrets nor touch nodes."""
    for document in render():
        if document["kind"] not in ("ClusterRole", "Role"):
            continue
        for rule in document["rules"]:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"], document["metadata"][
                "name"
            ]
            assert not {"escalate", "impersonate"} & set(rule["verbs"])
            if "secrets" in rule["resources"]:
                assert not {"list", "watch"} & set(rule["verbs"])
        assert not any("nodes" in rule["resources"] for rule in document["rules"])


def test_every_pod_of_the_chart_is_confined() -> None:
    """Each container has limits, a read-only root, no capability and no root user, and no tag is latest."""
    for document in render("persistence.enabled=true"):
        if document["kind"] != "Deployment":
            continue
        pod = document["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["resources"]["limits"].keys() >= {"cpu", "memory"}
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert {"startupProbe", "readinessProbe", "livenessProbe"} & container.keys()
            assert not container["image"].endswith(":latest")


def test_stores_can_be_the_users_own() -> None:
    """With the trial switched off the operator gets the given addresses and no trial store is made."""
    documents = render(
        "trial.mlflow.enabled=false", "trial.redis.enabled=false", "trial.postgres.enabled=false",
        "trial.prometheus.enabled=false", "stores.redisUrl=redis://mine:6379", "stores.mlflowTrackingUri=http://mine:5000",
    )  # fmt: skip
    assert {d["metadata"]["name"] for d in documents if d["kind"] == "Deployment"} == {
        "fraud-platform-operator"
    }
    stores = find(documents, "Secret", "fraud-platform-stores")["stringData"]
    assert stores == {
        "REDIS_URL": "redis://mine:6379",
        "POSTGRES_DSN": "",
        "MLFLOW_TRACKING_URI": "http://mine:5000",
    }


def test_an_override_replaces_one_image() -> None:
    """A full reference takes one image's place; the others keep registry and tag, and :latest is refused."""
    documents = render("images.overrides.redis=docker.io/library/redis:7.2.11")
    images = {
        name: find(documents, "Deployment", f"fraud-platform-{name}")["spec"]["template"]["spec"][
            "containers"
        ][0]["image"]
        for name in ("redis", "postgres")
    }
    assert images == {
        "redis": "docker.io/library/redis:7.2.11",
        "postgres": "docker.io/fraud-platform/postgres:dev",
    }
    with pytest.raises(AssertionError, match="overrides"):
        render("images.overrides.redis=redis:latest")


def test_values_are_checked() -> None:
    """A mistyped value is refused by the chart's schema."""
    with pytest.raises(AssertionError, match="storage"):
        render("storage.uri=ftp://x")


@pytest.fixture
def operator(server: Any, installed: Kube, tmp_path: Path) -> Iterator[OperatorProcess]:
    """The operator with the platform file of the chart and the rights of the chart's service account."""
    running = OperatorProcess(server.api, tmp_path)
    try:
        running.start()
        yield running
    finally:
        running.stop()


def test_the_operator_runs_with_the_charts_rights(
    server: Any, installed: Kube, operator: OperatorProcess
) -> None:
    """Children appear soon after apply, a deleted one comes back by its event, and SIGTERM ends it within seconds."""
    kube, namespace = installed, server.namespace("rights")
    body = yaml.safe_load((ROOT / "manifests/examples/payments.yaml").read_text())
    body["metadata"]["namespace"] = namespace
    uid = kube.create(DETECTOR, body)["metadata"]["uid"]
    wait_for(lambda: len(snapshot(kube, namespace, uid)[0]) >= 40, 60, "children")
    status = wait_for(lambda: (kube.get(DETECTOR, namespace, "payments") or {}).get("status"), 60, "status")
    degraded = next(c for c in status["conditions"] if c["type"] == "Degraded")
    assert degraded["reason"] not in ("ApplyRefused", "ApplyConflict"), degraded
    console = ("Deployment", "payments-console")
    kube.delete(BY_KIND["Deployment"], namespace, console[1])
    wait_for(lambda: console in snapshot(kube, namespace, uid)[0], 60, "the deleted Deployment")
    assert "fraud_operator_reconciles_total" in operator.get("/metrics")
    kube.delete(DETECTOR, namespace, "payments")
    wait_for(lambda: kube.get(DETECTOR, namespace, "payments") is None, 60, "the detector's end")
    assert operator.terminate(15) == 0
