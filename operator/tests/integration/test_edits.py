"""Edits that got past the API server's rules destroy nothing: under an older CRD, or by another default of the platform's."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from fraud_contracts import names
from fraud_contracts.child_kinds import BY_KIND, DETECTOR, Kind
from fraud_operator.events import Recorder
from fraud_operator.kube import Kube
from fraud_operator.observe import Observer
from fraud_operator.ownership import snapshot
from fraud_operator.reconcile import PassResult, Reconciler
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
EXTERNAL = {"partitions": 2, "external": {"bootstrapServers": "127.0.0.1:9"}}


class Edited(Kube):
    """Gives the detector as it would be stored had the API server let the edit pass."""

    edit: dict[str, Any]

    def get(self, kind: Kind, namespace: str | None, name: str) -> dict[str, Any] | None:
        body = super().get(kind, namespace, name)
        if kind is DETECTOR and body is not None:
            body["spec"] |= copy.deepcopy(self.edit)
        return body


def operator(server: Any, edit: dict[str, Any], platform: Platform = PLATFORM) -> Reconciler:
    settings = client.Configuration()
    settings.host, settings.verify_ssl = server.url, False
    settings.api_key = {"BearerToken": "Bearer admin-token"}
    kube = Edited(client.ApiClient(settings))
    kube.edit = edit
    return Reconciler(kube, platform, Observer(kube, logins=willing()), Recorder(kube))


def create(server: Any, namespace: str, **spec: Any) -> str:
    body: dict[str, Any] = yaml.safe_load((ROOT / "manifests/examples/payments.yaml").read_text())
    body["metadata"]["namespace"] = namespace
    body["spec"] |= spec
    uid = server.kube().create(DETECTOR, body)["metadata"]["uid"]
    operator(server, {}).reconcile(namespace, "payments")
    return str(uid)


def refused(server: Any, namespace: str, outcome: PassResult) -> str:
    """The message of ValidationFailed; nothing was written."""
    assert outcome.written == ()
    body = server.kube().get(DETECTOR, namespace, "payments")
    [failed] = [c for c in body["status"]["conditions"] if c["type"] == "ValidationFailed"]
    assert failed["status"] == "True"
    return str(failed["message"])


EVENT: dict[str, Any] = yaml.safe_load((ROOT / "manifests/examples/payments.yaml").read_text())["spec"][
    "event"
]
EDITS: dict[str, tuple[dict[str, Any], str, str]] = {
    "managed becomes external": ({"kafka": EXTERNAL}, "spec.kafka.external", "write managed again"),
    "fewer partitions": (
        {"kafka": {"managed": {"replicas": 1}, "partitions": 1}},
        "spec.kafka.partitions",
        "is 2",
    ),
    "another storage": (
        {"storage": {"uri": "s3://another", "secretRef": {"name": "x"}}}, "spec.storage.uri", "make a new detector",
    ),
    "another entity": (
        {"entities": [{"name": "customer", "field": "iban"}, {"name": "counterparty", "field": "merchant_id"}]},
        "spec.entities",
        "customer by the token of card",
    ),
    "no token any more": (
        {"event": {**EVENT, "sensitive": []}}, "spec.entities", "customer by the token of card",
    ),
    "another scale": (
        {"event": {**EVENT, "amount": {**EVENT["amount"], "scale": 0}}}, "spec.event.amount.scale", "is 2",
    ),
    "another currency": (
        {"event": {**EVENT, "amount": {**EVENT["amount"], "currency": "JPY"}}},
        "spec.event.amount.currency",
        "is USD",
    ),
}  # fmt: skip


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
@pytest.mark.parametrize("case", EDITS)
def test_an_edit_takes_no_data_away(server: Any, case: str, policy: str) -> None:
    """Whatever the deletionPolicy, an edit that would leave data behind or take it away is ValidationFailed; all stays."""
    edit, path, remedy = EDITS[case]
    namespace = server.namespace(f"edit-{list(EDITS).index(case)}-{policy.lower()}")
    uid = create(server, namespace, deletionPolicy=policy)
    before, _ = snapshot(server.kube(), namespace, uid)
    message = refused(server, namespace, operator(server, edit).reconcile(namespace, "payments"))
    assert path in message and remedy in message
    after, _ = snapshot(server.kube(), namespace, uid)
    assert after.keys() == before.keys()
    assert [kind for kind, _ in after].count("KafkaTopic") == len(names.TOPICS)


def test_external_does_not_become_managed(server: Any) -> None:
    """A detector at a Kafka of one's own gets no empty one in its place."""
    namespace = server.namespace("edit-back")
    create(server, namespace, kafka=EXTERNAL)
    edit = {"kafka": {"managed": {"replicas": 1}, "partitions": 2, "external": None}}
    message = refused(server, namespace, operator(server, edit).reconcile(namespace, "payments"))
    assert "spec.kafka.managed" in message and "127.0.0.1:9" in message
    assert server.kube().get(BY_KIND["Kafka"], namespace, "payments") is None


def test_another_default_storage_is_refused(server: Any) -> None:
    """Where the platform's default moves, a detector that used it says where its data lies; writing that down is enough."""
    namespace = server.namespace("edit-default")
    body: dict[str, Any] = yaml.safe_load((ROOT / "manifests/examples/payments.yaml").read_text())
    body["metadata"]["namespace"] = namespace
    kube: Kube = server.kube()
    kube.create(DETECTOR, body)
    operator(server, {}).reconcile(namespace, "payments")
    moved = PLATFORM.model_copy(update={"storage": StorageSettings(uri="s3://another", node_folder="/s")})
    message = refused(server, namespace, operator(server, {}, moved).reconcile(namespace, "payments"))
    where = f"file:///s/{namespace}.payments"
    assert "spec.storage.uri" in message and where in message
    kube.merge(DETECTOR, namespace, "payments", {"spec": {"storage": {"uri": where}}})
    operator(server, {}, moved).reconcile(namespace, "payments")
    after = kube.get(DETECTOR, namespace, "payments")
    assert after is not None
    conditions = {c["type"]: c["status"] for c in after["status"]["conditions"]}
    assert conditions.get("ValidationFailed", "False") == "False"


def test_a_hand_in_the_document_is_no_past(server: Any) -> None:
    """A detector document that a hand changed is put back, and not taken for what the detector was."""
    namespace = server.namespace("edit-hand")
    create(server, namespace)
    kube: Kube = server.kube()
    data = {"detector.json": '{"storage_uri": "file:///elsewhere"}'}
    kube._call(
        "PATCH", BY_KIND["ConfigMap"].path(namespace, "payments-config"), {"fieldManager": "kubectl-edit"},
        {"data": data}, "application/merge-patch+json",
    )  # fmt: skip
    outcome = operator(server, {}).reconcile(namespace, "payments")
    assert ("ConfigMap", "payments-config", "changed") in outcome.written


@pytest.mark.parametrize("life", ["the same detector", "one made again"])
def test_more_brokers_leave_the_copies_alone(server: Any, life: str) -> None:
    """Strimzi can't change how many copies a topic has, so topics and Kafka's settings keep those that they were made with."""
    namespace = server.namespace(f"edit-brokers-{len(life)}")
    create(server, namespace, kafka={"managed": {"replicas": 1}, "partitions": 2})
    kube: Kube = server.kube()
    kafka = {"managed": {"replicas": 3}, "partitions": 2}
    if life == "the same detector":
        kube.merge(DETECTOR, namespace, "payments", {"spec": {"kafka": kafka}})
        operator(server, {}).reconcile(namespace, "payments")
    else:
        for kind in (DETECTOR, BY_KIND["FlinkDeployment"]):
            for item in kube.list(kind, namespace):
                kube.delete(kind, namespace, item["metadata"]["name"])
        operator(server, {}).reconcile(namespace, "payments")
        assert kube.get(DETECTOR, namespace, "payments") is None
        create(server, namespace, kafka=kafka)
    kube.delete(BY_KIND["KafkaTopic"], namespace, names.kafka_topic("payments", "alerts"))
    operator(server, {}).reconcile(namespace, "payments")
    topics = kube.list(BY_KIND["KafkaTopic"], namespace)
    assert [topic["spec"]["replicas"] for topic in topics] == [1] * len(names.TOPICS)
    [brokers] = kube.list(BY_KIND["Kafka"], namespace)
    assert {k: v for k, v in brokers["spec"]["kafka"]["config"].items() if k != "auto.create.topics.enable"} == {
        "default.replication.factor": 1, "min.insync.replicas": 1, "offsets.topic.replication.factor": 1,
        "transaction.state.log.replication.factor": 1, "transaction.state.log.min.isr": 1,
    }  # fmt: skip
    [pool] = kube.list(BY_KIND["KafkaNodePool"], namespace)
    assert pool["spec"]["replicas"] == 3
