"""A detector whose bucket isn't right yet: what is made without it, what it says, and that it goes on by itself."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from fraud_contracts import object_store
from fraud_contracts.child_kinds import BY_KIND, DETECTOR
from fraud_operator.buckets import Buckets
from fraud_operator.events import Recorder
from fraud_operator.kube import Kube
from fraud_operator.observe import Observer
from fraud_operator.ownership import snapshot
from fraud_operator.reconcile import Reconciler
from fraud_operator.settings import Platform, StoreAddresses
from fraud_testing import objects
from fraud_testing.kafka import wait_for
from fraud_testing.required import require
from fraud_testing.store_logins import willing

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[3]
PLATFORM = Platform(
    stores=StoreAddresses(
        redis_url="redis://x", postgres_dsn="postgresql://x", mlflow_tracking_uri="http://127.0.0.1:9"
    )
)
LAKE_SINK = ("Deployment", "payments-lake-sink")


@pytest.fixture
def store() -> Iterator[objects.Server]:
    require(objects.missing())
    with objects.server() as running:
        yield running


class Waiting:
    """A detector on a bucket of its own, with passes over it."""

    def __init__(self, server: Any, namespace: str, uri: str) -> None:
        self.kube: Kube = server.kube()
        self.ahead = 0.0
        self.namespace = server.namespace(namespace)
        body: dict[str, Any] = yaml.safe_load((ROOT / "manifests/examples/payments.yaml").read_text())
        body["metadata"]["namespace"] = self.namespace
        body["spec"]["storage"] = {"uri": f"{uri}/payments", "secretRef": {"name": "bucket"}}
        self.uid = self.kube.create(DETECTOR, body)["metadata"]["uid"]
        self.operator = self.new_operator()

    def new_operator(self) -> Reconciler:
        buckets = Buckets(clock=lambda: time.monotonic() + self.ahead)
        observer = Observer(self.kube, buckets=buckets, logins=willing())
        return Reconciler(self.kube, PLATFORM, observer, Recorder(self.kube))

    def glances(self) -> bool:
        """Whether a glance, five seconds after the last one, asks for a pass."""
        self.ahead += 5
        return self.operator.glance(self.namespace, "payments").differs

    def give(self, values: Mapping[str, str]) -> None:
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        meta = {"name": "bucket", "namespace": self.namespace}
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data}
        path = BY_KIND["Secret"].path(self.namespace, "bucket")
        self.kube._call("PATCH", path, {"fieldManager": "user"}, body, "application/apply-patch+yaml")

    def conditions(self) -> dict[str, dict[str, Any]]:
        """After a pass."""
        self.operator.reconcile(self.namespace, "payments")
        body = self.kube.get(DETECTOR, self.namespace, "payments") or {}
        return {c["type"]: c for c in body["status"]["conditions"]}

    def reason(self, kind: str = "StorageReady") -> str:
        return str(self.conditions()[kind]["reason"])

    @property
    def held(self) -> set[str]:
        """Which of the objects that need storage are there."""
        children = snapshot(self.kube, self.namespace, self.uid)[0]
        return {kind for kind, _ in children if kind in ("FlinkDeployment", "RayJob")} | {
            name for kind, name in children if (kind, name) == LAKE_SINK
        }


def test_a_detector_waits_for_its_bucket_and_goes_on(server: Any, store: objects.Server) -> None:
    """Without keys, with wrong ones, and with right ones: the doors are made at once, what needs storage once it is right."""
    detector = Waiting(server, "bucket-wait", store.uri)
    states = detector.conditions()
    assert states["StorageReady"]["reason"] == "SecretMissing"
    assert states["StreamingReady"]["reason"] == "StorageNotReady"
    assert states["Degraded"]["message"].startswith(
        "StorageReady: spec.storage.secretRef: there is no Secret"
    )
    children = snapshot(detector.kube, detector.namespace, detector.uid)[0]
    assert ("Deployment", "payments-decision") in children and detector.held == set()
    detector.give({**store.environment, object_store.SECRET_KEY: "wrong"})
    wait_for(lambda: detector.reason() == "AccessDenied", 30, "the wrong key to be told")
    assert detector.held == set()
    detector.give(store.environment)
    wait_for(lambda: detector.reason() == "Checked", 30, "the right keys to be taken up")
    detector.conditions()
    assert detector.held == {"FlinkDeployment", "RayJob", "payments-lake-sink"}


def test_a_store_that_goes_away_later_takes_nothing_down(server: Any, store: objects.Server) -> None:
    """A running operator notices it, so does one that starts anew meanwhile; both leave what is there, until it is back."""
    detector = Waiting(server, "bucket-away", store.uri)
    detector.give(store.environment)
    wait_for(lambda: detector.reason() == "Checked", 30, "the bucket's check")
    detector.conditions()
    before = detector.held
    store.stop()
    assert detector.reason() == "Checked"
    wait_for(detector.glances, 30, "the store's absence to be noticed")
    assert detector.reason() == "StorageAway"
    detector.operator = detector.new_operator()
    wait_for(lambda: detector.reason() == "StorageAway", 30, "the store's absence to be told")
    assert detector.conditions()["StreamingReady"]["reason"] != "StorageNotReady"
    assert detector.held == before == {"FlinkDeployment", "RayJob", "payments-lake-sink"}
    store.start()
    wait_for(detector.glances, 30, "the store's return to be noticed")
    assert detector.reason() == "Checked"
