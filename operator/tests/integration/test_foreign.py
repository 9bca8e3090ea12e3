"""What isn't ours survives and isn't read as ours: objects as the real Strimzi made them, other operators' copies, people's.

`tests/data/strimzi-objects.json` was recorded under Strimzi 1.2.0, which copies our labels to all that it makes and
names the Kafka or KafkaNodePool as an owner that doesn't control.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from fraud_contracts import names
from fraud_contracts.child_kinds import BY_KIND, CHILD_KINDS, DETECTOR
from fraud_contracts.detector_clients import default_clients
from fraud_operator.detector import Detector
from fraud_operator.events import Recorder
from fraud_operator.kube import Kube
from fraud_operator.observe import Observer
from fraud_operator.ownership import is_ours, snapshot
from fraud_operator.reconcile import Reconciler
from fraud_operator.settings import Platform, StorageSettings, StoreAddresses
from fraud_testing.store_logins import willing

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[3]
PLATFORM = Platform(
    storage=StorageSettings(uri="file:///s", node_folder="/s"),
    stores=StoreAddresses(
        redis_url="redis://x", postgres_dsn="postgresql://x", mlflow_tracking_uri="http://127.0.0.1:9"
    ),
)


@pytest.fixture(scope="module")
def kube(server: Any) -> Kube:
    kube: Kube = server.kube()
    return kube


def detector(namespace: str, **spec: Any) -> dict[str, Any]:
    body: dict[str, Any] = yaml.safe_load((ROOT / "manifests/examples/payments.yaml").read_text())
    body["metadata"] |= {"name": "pay", "namespace": namespace}
    body["spec"] |= spec
    return body


def post(kube: Kube, body: dict[str, Any]) -> None:
    """As another operator, or a person, makes it."""
    path = BY_KIND[body["kind"]].path(body["metadata"]["namespace"])
    kube._call("POST", path, {"fieldManager": "another"}, body)


def recorded(kube: Kube, namespace: str, uid: str) -> list[dict[str, Any]]:
    """Strimzi's objects as if they had been made for our detector: its uid in the labels, its Kafka and pool as owners."""
    objects: list[dict[str, Any]] = json.loads(
        (ROOT / "operator/tests/data/strimzi-objects.json").read_text()
    )
    pool = names.kafka_node_pool("pay")
    for body in objects:
        meta = body["metadata"]
        meta["namespace"] = namespace
        meta["labels"][names.UID_LABEL] = uid
        for owner in meta["ownerReferences"]:
            if owner["kind"] in ("Kafka", "KafkaNodePool"):
                live = kube.get(
                    BY_KIND[owner["kind"]], namespace, owner["name"].replace("nodes-935087", pool)
                )
                assert live is not None
                owner |= {"name": live["metadata"]["name"], "uid": live["metadata"]["uid"]}
    return objects


def copies(kube: Kube, namespace: str, uid: str) -> list[dict[str, Any]]:
    """Objects with our labels that other operators made for our children, and a few that people made."""
    labels = {names.UID_LABEL: uid, names.DETECTOR_LABEL: "pay", names.COMPONENT_LABEL: "decision"}
    children, _ = snapshot(kube, namespace, uid)
    flink = next(child for (kind, _), child in children.items() if kind == "FlinkDeployment")
    ray = next(child for (kind, _), child in children.items() if kind == "RayJob")

    def build(kind: str, name: str, owner: dict[str, Any] | None, **rest: Any) -> dict[str, Any]:
        meta: dict[str, Any] = {"name": name, "namespace": namespace, "labels": labels}
        if owner is not None:
            reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "controller": True}
            meta["ownerReferences"] = [
                {**reference, "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}
            ]
        return {"apiVersion": BY_KIND[kind].api_version, "kind": kind, "metadata": meta, **rest}

    port = {"spec": {"ports": [{"port": 80}]}}
    predictor = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "pay-a", "uid": "0b0b0b0b-0000-4000-8000-000000000000"},
    }
    pod = {"spec": {"containers": [{"name": "c", "image": "i"}]}}
    template = {"metadata": {"labels": {"app": "c"}}, **pod}
    return [
        build("Service", "pay-a-predictor", predictor, **port),
        build("Service", "pay-f-rest", flink, **port),
        build("ConfigMap", "flink-config-pay", flink, data={}),
        build("Service", "pay-head-svc", ray, **port),
        build("Deployment", "my-copy", None, spec={"selector": {"matchLabels": {"app": "c"}}, "template": template}),
        build("Service", "my-way-in", None, **port),
        build("ConfigMap", "pay-release-notes", None, data={"notes": "by hand"}),
        build("Pod", "pay-decision-debug", None, **pod),
    ]  # fmt: skip


def all_of(kube: Kube, namespace: str) -> dict[tuple[str, str], str]:
    return {
        (kind.kind, item["metadata"]["name"]): item["metadata"]["uid"]
        for kind in (*CHILD_KINDS, BY_KIND["Pod"])
        for item in kube.list(kind, namespace)
    }


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
def test_nothing_foreign_is_deleted(server: Any, kube: Kube, policy: str) -> None:
    """Passes, a change of what is wanted and the detector's deletion delete no object of Strimzi's, KServe's or a person's."""
    namespace = server.namespace(f"foreign-{policy.lower()}")
    reconciler = Reconciler(kube, PLATFORM, Observer(kube, logins=willing()), Recorder(kube))
    uid = kube.create(DETECTOR, detector(namespace, deletionPolicy=policy))["metadata"]["uid"]
    reconciler.reconcile(namespace, "pay")
    ours = all_of(kube, namespace)
    for body in [*recorded(kube, namespace, uid), *copies(kube, namespace, uid)]:
        post(kube, body)
    foreign = {key: value for key, value in all_of(kube, namespace).items() if key not in ours}
    assert len(foreign) == 16 + 8

    def gone() -> set[tuple[str, str]]:
        return foreign.keys() - all_of(kube, namespace).keys()

    assert reconciler.reconcile(namespace, "pay").written == ()
    assert gone() == set()
    stores = {"mlflow": {"uri": "http://m"}}
    kube.merge(DETECTOR, namespace, "pay", {"spec": {"model": {"train": None, "none": {}}, "stores": stores}})
    written = reconciler.reconcile(namespace, "pay").written
    assert any(kind == "RayJob" and verb == "deleted" for kind, _, verb in written), "ours are still pruned"
    assert gone() == set()
    kube.delete(DETECTOR, namespace, "pay")
    reconciler.reconcile(namespace, "pay")
    assert gone() == set()


SQUATTERS: dict[tuple[str, str], dict[str, Any]] = {
    ("ConfigMap", "pay-config"): {"data": {"mine": "1"}},
    ("ServiceAccount", "pay-training"): {},
    ("Secret", "pay-stores"): {"stringData": {"mine": "1"}},
    ("Service", "pay-console"): {"spec": {"ports": [{"port": 80}]}},
    ("KafkaTopic", "pay-labels"): {"spec": {"partitions": 7}},
}


def test_nothing_foreign_is_taken_over(server: Any, kube: Kube) -> None:
    """An object of someone else under a child's name stays and is reported; once handed over or removed, ours is made."""
    namespace = server.namespace("foreign-names")
    reconciler = Reconciler(kube, PLATFORM, Observer(kube, logins=willing()), Recorder(kube))

    def live(kind: str, name: str) -> dict[str, Any]:
        body = kube.get(BY_KIND[kind], namespace, name)
        assert body is not None, name
        return body

    for (kind, name), rest in SQUATTERS.items():
        meta = {"name": name, "namespace": namespace, "annotations": {"cloud/role": "training"}}
        post(kube, {"apiVersion": BY_KIND[kind].api_version, "kind": kind, "metadata": meta, **rest})
    before = {key: live(*key) for key in SQUATTERS}
    uid = kube.create(DETECTOR, detector(namespace))["metadata"]["uid"]
    for _ in range(2):
        outcome = reconciler.reconcile(namespace, "pay")
    assert not outcome.settled
    assert {key: live(*key) for key in SQUATTERS} == before
    conditions = live("FraudDetector", "pay")["status"]["conditions"]
    degraded = next(c for c in conditions if c["type"] == "Degraded")
    assert degraded["reason"] == "ApplyRefused"
    assert "KafkaTopic pay-labels" in degraded["message"] and "remove it" in degraded["message"]
    handed = BY_KIND["ServiceAccount"]
    kube.merge(handed, namespace, "pay-training", {"metadata": {"labels": {names.DETECTOR_LABEL: "pay"}}})
    for kind, name in SQUATTERS.keys() - {("ServiceAccount", "pay-training")}:
        kube.delete(BY_KIND[kind], namespace, name)
    reconciler.reconcile(namespace, "pay")
    assert all(is_ours(live(*key), uid) for key in SQUATTERS)
    assert live("ServiceAccount", "pay-training")["metadata"]["annotations"] == {"cloud/role": "training"}


def test_a_settled_pass_asks_for_no_child_by_name(server: Any, kube: Kube) -> None:
    """Only what isn't in the lists is asked for by name: of a settled detector its Secrets, which aren't listed."""
    namespace = server.namespace("foreign-quiet")
    reconciler = Reconciler(kube, PLATFORM, Observer(kube, logins=willing()), Recorder(kube))
    kube.create(DETECTOR, detector(namespace))
    reconciler.reconcile(namespace, "pay")
    asked: list[str] = []
    listening = server.kube()
    ask = listening.get
    listening.get = lambda kind, *key: (asked.append(f"{kind.kind} {key[-1]}"), ask(kind, *key))[1]
    reconciler.kube = reconciler.applier.kube = listening
    reconciler.reconcile(namespace, "pay")
    clients = [f"Secret pay-client-{client.name}" for client in default_clients()]
    own = ["Secret pay-keys", "Secret pay-stores", "Secret pay-clients"]
    wanted = ["FraudDetector pay", f"Namespace {namespace}", *own, *clients]
    assert sorted(asked) == sorted(wanted)


def test_what_is_foreign_is_not_read_as_ours(server: Any, kube: Kube) -> None:
    """Facts hold our children alone, and only Pods of our own ReplicaSets are asked for their release."""
    namespace = server.namespace("foreign-facts")
    reconciler = Reconciler(kube, PLATFORM, Observer(kube, logins=willing()), Recorder(kube))
    uid = kube.create(DETECTOR, detector(namespace))["metadata"]["uid"]
    reconciler.reconcile(namespace, "pay")
    before, _ = snapshot(kube, namespace, uid)
    for body in [*recorded(kube, namespace, uid), *copies(kube, namespace, uid)]:
        post(kube, body)
    for name, (kind, owner) in {
        "real": ("ReplicaSet", "pay-decision-5c6d"),
        "other": ("ReplicaSet", "pay-decision-debug-5c6d"),
    }.items():
        labels = {
            names.DETECTOR_LABEL: "pay",
            names.COMPONENT_LABEL: "decision",
            "pod-template-hash": "5c6d",
        }
        reference = {"apiVersion": "apps/v1", "kind": kind, "name": owner, "uid": name, "controller": True}
        meta = {"name": name, "namespace": namespace, "labels": labels, "ownerReferences": [reference]}
        spec = {"containers": [{"name": "c", "image": "i"}]}
        post(kube, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    assert snapshot(kube, namespace, uid)[0].keys() == before.keys()
    body = kube.get(DETECTOR, namespace, "pay")
    assert body is not None
    facts = reconciler.observer.observe(Detector.parse(body, PLATFORM), 0)
    assert facts.children.keys() == before.keys()
    assert [replica.pod for replica in facts.replicas] == ["real"]


def _selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    return all(
        labels.get(rule["key"]) in rule["values"]
        for rule in selector.get("matchExpressions", [])
        if rule["operator"] == "In"
    )


def _selectors(value: Any, key: str = "") -> list[dict[str, Any]]:
    """All label selectors anywhere inside: those with matchLabels, and a Service's plain map."""
    if isinstance(value, dict):
        selectors = [value] if "matchLabels" in value or "matchExpressions" in value else []
        if key == "selector" and not selectors and all(isinstance(item, str) for item in value.values()):
            selectors = [{"matchLabels": value}]
        return selectors + [s for k, item in value.items() for s in _selectors(item, k)]
    return [s for item in value for s in _selectors(item)] if isinstance(value, list) else []


def test_no_selector_of_ours_takes_in_a_broker(server: Any, kube: Kube) -> None:
    """No policy, Service, budget or workload of ours selects Strimzi's Pod, which bears our labels' copies; one monitor is made for it."""
    namespace = server.namespace("foreign-selectors")
    reconciler = Reconciler(kube, PLATFORM, Observer(kube, logins=willing()), Recorder(kube))
    uid = kube.create(DETECTOR, detector(namespace))["metadata"]["uid"]
    reconciler.reconcile(namespace, "pay")
    pod = next(body for body in recorded(kube, namespace, uid) if body["kind"] == "Pod")
    children, _ = snapshot(kube, namespace, uid)
    too_wide = {
        key: selector
        for key, child in children.items()
        # Whom a policy lets its Pods connect to may be brokers.
        for selector in _selectors(
            {k: v for k, v in child.get("spec", {}).items() if k not in ("ingress", "egress")}
        )
        if _selects(selector, pod["metadata"]["labels"])
    }
    assert set(too_wide) == {("PodMonitor", "pay-kafka")}
    policies = [child for (kind, _), child in children.items() if kind == "NetworkPolicy"]
    worker = children["Deployment", "pay-worker"]
    labels = worker["spec"]["template"]["metadata"]["labels"]
    assert sum(_selects(policy["spec"]["podSelector"], labels) for policy in policies) == 1
