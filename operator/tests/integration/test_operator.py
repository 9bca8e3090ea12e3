"""The operator against a real API server: real schemas, server-side apply, RBAC. Only the children's operators are absent."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fraud_contracts.child_kinds import BY_KIND, DETECTOR
from fraud_contracts.names import CONFIG_HASH_ANNOTATION, FIELD_MANAGER
from fraud_operator.events import Recorder
from fraud_operator.kube import Kube, RefusedError
from fraud_operator.observe import Observer
from fraud_operator.ownership import snapshot
from fraud_operator.reconcile import Reconciler
from fraud_operator.settings import Platform, StorageSettings, StoreAddresses
from fraud_testing.store_logins import willing

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[3]
PLATFORM = Platform(
    storage=StorageSettings(uri="file:///s", node_folder="/s"),
    # Nobody listens there: the operator must live with a registry that gives no answer.
    stores=StoreAddresses(
        redis_url="redis://x", postgres_dsn="postgresql://x", mlflow_tracking_uri="http://127.0.0.1:9"
    ),
)


def example(name: str, namespace: str) -> dict[str, Any]:
    body: dict[str, Any] = yaml.safe_load((ROOT / "manifests/examples" / f"{name}.yaml").read_text())
    body["metadata"]["namespace"] = namespace
    return body


@pytest.fixture
def namespace(server: Any, request: pytest.FixtureRequest) -> str:
    name = request.node.name.replace("_", "-").partition("[")[0][:60].rstrip("-")
    server.post("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


@pytest.fixture
def kube(server: Any) -> Kube:
    kube: Kube = server.kube()
    return kube


@pytest.fixture
def reconciler(kube: Kube) -> Reconciler:
    return Reconciler(kube, PLATFORM, Observer(kube, logins=willing()), Recorder(kube))


def condition(body: dict[str, Any], kind: str) -> dict[str, Any]:
    return next((c for c in body.get("status", {}).get("conditions", []) if c["type"] == kind), {})


@pytest.mark.parametrize("name", ["payments", "production", "sparkov", "minimal"])
def test_all_children_are_accepted_by_the_real_schemas(
    server: Any, kube: Kube, reconciler: Reconciler, name: str
) -> None:
    """Every child of every example is taken by the API server, unknown fields and CEL rules included."""
    namespace = f"accepted-{name}"
    server.post(
        "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    )
    created = kube.create(DETECTOR, example(name, namespace))
    started = time.monotonic()
    outcome = reconciler.reconcile(namespace, name)
    assert time.monotonic() - started < 10
    body = kube.get(DETECTOR, namespace, name)
    assert body is not None
    assert condition(body, "Degraded").get("reason") not in ("ApplyRefused", "ApplyConflict"), condition(
        body, "Degraded"
    )
    children, missing = snapshot(kube, namespace, created["metadata"]["uid"])
    assert not missing, f"CRDs that this test lacks: {missing}"
    assert len(outcome.written) >= len(children)
    kinds = {kind for kind, _ in children}
    assert {
        "Kafka",
        "KafkaNodePool",
        "KafkaTopic",
        "FlinkDeployment",
        "RayJob",
        "Deployment",
    } <= kinds


def test_a_settled_pass_writes_nothing(kube: Kube, namespace: str, reconciler: Reconciler) -> None:
    """The second pass leaves every resourceVersion as it was, also for an operator that has just started."""
    uid = kube.create(DETECTOR, example("payments", namespace))["metadata"]["uid"]
    reconciler.reconcile(namespace, "payments")
    reconciler.reconcile(namespace, "payments")

    def versions() -> dict[tuple[str, str], str]:
        children, _ = snapshot(kube, namespace, uid)
        return {key: child["metadata"]["resourceVersion"] for key, child in children.items()}

    before, detector = versions(), kube.get(DETECTOR, namespace, "payments")
    assert reconciler.reconcile(namespace, "payments").written == ()
    fresh = Reconciler(kube, PLATFORM, Observer(kube, logins=willing()), Recorder(kube))
    assert fresh.reconcile(namespace, "payments").written == ()
    assert versions() == before
    after = kube.get(DETECTOR, namespace, "payments")
    assert detector is not None and after is not None
    assert after["metadata"]["resourceVersion"] == detector["metadata"]["resourceVersion"]


def test_a_deleted_child_comes_back(kube: Kube, namespace: str, reconciler: Reconciler) -> None:
    """What someone deletes is made again by the next pass; the keys too, but a living Secret is never rewritten."""
    kube.create(DETECTOR, example("payments", namespace))
    reconciler.reconcile(namespace, "payments")
    keys = kube.get(BY_KIND["Secret"], namespace, "payments-keys")
    kube.delete(BY_KIND["Deployment"], namespace, "payments-console")
    outcome = reconciler.reconcile(namespace, "payments")
    assert ("Deployment", "payments-console", "created") in outcome.written
    again = kube.get(BY_KIND["Secret"], namespace, "payments-keys")
    assert keys is not None and again is not None and keys["data"] == again["data"]


def test_drift_is_repaired(kube: Kube, namespace: str, reconciler: Reconciler) -> None:
    """A field of ours that another hand took away is put back."""
    kube.create(DETECTOR, example("payments", namespace))
    reconciler.reconcile(namespace, "payments")
    reconciler.reconcile(namespace, "payments")
    gone = {"spec": {"template": {"metadata": {"annotations": {CONFIG_HASH_ANNOTATION: None}}}}}
    kube.merge(BY_KIND["Deployment"], namespace, "payments-worker", gone)
    outcome = reconciler.reconcile(namespace, "payments")
    assert ("Deployment", "payments-worker", "changed") in outcome.written
    worker = kube.get(BY_KIND["Deployment"], namespace, "payments-worker")
    assert (
        worker is not None and CONFIG_HASH_ANNOTATION in worker["spec"]["template"]["metadata"]["annotations"]
    )


def test_what_earlier_versions_made_is_removed(kube: Kube, namespace: str, reconciler: Reconciler) -> None:
    """The StatefulSet that the worker was goes with the first pass; the Deployment of its name stays."""
    kube.create(DETECTOR, example("payments", namespace))
    reconciler.reconcile(namespace, "payments")
    worker = kube.get(BY_KIND["Deployment"], namespace, "payments-worker")
    assert worker is not None
    meta = {part: worker["metadata"][part] for part in ("name", "namespace", "labels", "ownerReferences")}
    spec = {part: worker["spec"][part] for part in ("replicas", "selector", "template")}
    kube._call(
        "PATCH",
        BY_KIND["StatefulSet"].path(namespace, "payments-worker"),
        {"fieldManager": FIELD_MANAGER, "force": "true"},
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": meta,
            "spec": {**spec, "serviceName": "w"},
        },
        "application/apply-patch+yaml",
    )
    reconciler.reconcile(namespace, "payments")
    left = kube.get(BY_KIND["StatefulSet"], namespace, "payments-worker")
    assert left is None or left["metadata"].get("deletionTimestamp")
    assert kube.get(BY_KIND["Deployment"], namespace, "payments-worker") is not None


def test_a_conflict_is_told_and_not_forced(
    server: Any, kube: Kube, namespace: str, reconciler: Reconciler
) -> None:
    """A field that another manager owns stays as it is, and the detector says who is in the way."""
    kube.create(DETECTOR, example("payments", namespace))
    reconciler.reconcile(namespace, "payments")
    kube._call(
        "PATCH",
        BY_KIND["Deployment"].path(namespace, "payments-worker"),
        {"fieldManager": "someone", "force": "true"},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "payments-worker"},
            "spec": {"replicas": 4},
        },
        "application/apply-patch+yaml",
    )
    reconciler.reconcile(namespace, "payments")
    body = kube.get(DETECTOR, namespace, "payments")
    assert body is not None
    degraded = condition(body, "Degraded")
    assert degraded["reason"] == "ApplyConflict" and "spec.replicas" in degraded["message"]
    worker = kube.get(BY_KIND["Deployment"], namespace, "payments-worker")
    assert worker is not None and worker["spec"]["replicas"] == 4


def _set(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(body: dict[str, Any]) -> None:
        *parents, leaf = path.split(".")
        at = body
        for parent in parents:
            at = at[parent]
        at[leaf] = value

    return change


REFUSED = [
    (_set("metadata.name", "a" * 31), "metadata.name"),
    (_set("spec.event.time.unit", "minutes"), "spec.event.time.unit"),
    (_set("spec.entities", []), "spec.entities"),
    (_set("spec.model", {"train": {}, "none": {}}), "exactly one of train, registered, none"),
    (
        _set("spec.kafka", {"external": {"bootstrapServers": "k:9092"}, "managed": {}}),
        "exactly one of managed, external",
    ),
    (_set("spec.policy.bands", {"review": 950, "decline": 900}), "bands.review"),
    (_set("spec.event.sensitive", ["timestamp"]), "event.time.field"),
    (_set("spec.storage", {"uri": "ftp://x"}), "spec.storage.uri"),
]


@pytest.mark.parametrize(("change", "field"), REFUSED, ids=[field for _, field in REFUSED])
def test_the_api_server_refuses(kube: Kube, change: Callable[[dict[str, Any]], None], field: str) -> None:
    """A spec that can't be meant is refused when it is applied, with a message that names the field."""
    body = copy.deepcopy(example("payments", "default"))
    change(body)
    with pytest.raises(RefusedError) as refused:
        kube.create(DETECTOR, body)
    assert field in refused.value.message


def test_partitions_are_immutable(kube: Kube, namespace: str) -> None:
    """Partitions can't be changed once set: an entity's order depends on them."""
    kube.create(DETECTOR, example("payments", namespace))
    with pytest.raises(RefusedError, match="partitions is immutable"):
        kube.merge(DETECTOR, namespace, "payments", {"spec": {"kafka": {"partitions": 4}}})


def test_what_the_schema_cannot_say_becomes_a_condition(
    kube: Kube, namespace: str, reconciler: Reconciler
) -> None:
    """A rule that is no CEL expression gives ValidationFailed with the rule's path, and no children."""
    body = example("payments", namespace)
    body["spec"]["policy"]["rules"][0]["when"] = "event.amount >"
    uid = kube.create(DETECTOR, body)["metadata"]["uid"]
    reconciler.reconcile(namespace, "payments")
    after = kube.get(DETECTOR, namespace, "payments")
    assert after is not None
    failed = condition(after, "ValidationFailed")
    assert failed["status"] == "True" and "spec.policy.rules[0].when" in failed["message"]
    assert snapshot(kube, namespace, uid)[0] == {}


def test_retained_children_have_no_owner_and_deletion_ends(
    kube: Kube, namespace: str, reconciler: Reconciler
) -> None:
    """With Retain, Kafka and keys stay when the detector goes; with Delete they go too; the finalizer never blocks."""
    kube.create(DETECTOR, example("payments", namespace))
    reconciler.reconcile(namespace, "payments")
    kube.delete(DETECTOR, namespace, "payments")
    reconciler.reconcile(namespace, "payments")
    assert kube.get(DETECTOR, namespace, "payments") is None
    kafka = kube.get(BY_KIND["Kafka"], namespace, "payments")
    assert kafka is not None and not kafka["metadata"].get("ownerReferences")
    assert kube.get(BY_KIND["Secret"], namespace, "payments-keys") is not None

    body = example("payments", namespace)
    body["spec"]["deletionPolicy"] = "Delete"
    kube.create(DETECTOR, body)
    reconciler.reconcile(namespace, "payments")
    kube.delete(DETECTOR, namespace, "payments")
    reconciler.reconcile(namespace, "payments")
    assert kube.get(DETECTOR, namespace, "payments") is None
    assert kube.get(BY_KIND["Kafka"], namespace, "payments") is None
    assert kube.get(BY_KIND["Secret"], namespace, "payments-keys") is None


def test_paused_changes_nothing(kube: Kube, namespace: str, reconciler: Reconciler) -> None:
    """While paused no child is written, and the status says so."""
    body = example("payments", namespace)
    body["spec"]["paused"] = True
    uid = kube.create(DETECTOR, body)["metadata"]["uid"]
    assert reconciler.reconcile(namespace, "payments").written == ()
    after = kube.get(DETECTOR, namespace, "payments")
    assert after is not None and condition(after, "Paused")["status"] == "True"
    assert snapshot(kube, namespace, uid)[0] == {}
