"""The real operators' status sequences, written to a real API server and read by whole passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fraud_contracts import names
from fraud_contracts.child_kinds import BY_KIND, DETECTOR
from fraud_operator.desired.kafka_users import kafka_parts
from fraud_operator.events import Recorder
from fraud_operator.kube import Kube
from fraud_operator.observe import Observer
from fraud_operator.reconcile import Reconciler
from fraud_operator.settings import KafkaSettings, Platform, StorageSettings, StoreAddresses
from fraud_testing.recorded import sequence, strimzi
from fraud_testing.store_logins import willing

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[3]
NAMESPACE = "recorded"
# Nobody listens at either: what the stores would say has no part in this.
STORES = StoreAddresses(
    redis_url="redis://x", postgres_dsn="postgresql://x", mlflow_tracking_uri="http://127.0.0.1:9"
)
ERROR = 'pods "payments-f-0-1" is forbidden: violates PodSecurity "baseline:latest": hostPath volumes (volume "storage")'


def test_recorded_statuses_are_told_as_they_are(server: Any) -> None:
    """Lost managers of the job are Degraded, both of Kafka's warnings are shown, a forbidden Pod is a failure with its message."""
    kube: Kube = server.kube()
    server.namespace(NAMESPACE)
    body: dict[str, Any] = yaml.safe_load((ROOT / "manifests/examples/payments.yaml").read_text())
    body["metadata"]["namespace"] = NAMESPACE
    body["spec"] |= {"model": {"none": {}}}
    kube.create(DETECTOR, body)

    def operator(*, ephemeral: bool) -> Reconciler:
        platform = Platform(
            storage=StorageSettings(uri="file:///s", node_folder="/s"),
            stores=STORES,
            kafka=KafkaSettings(ephemeral=ephemeral),
        )
        return Reconciler(kube, platform, Observer(kube, logins=willing()), Recorder(kube))

    usual = operator(ephemeral=False)

    def passed(reconciler: Reconciler = usual) -> dict[str, dict[str, Any]]:
        reconciler.reconcile(NAMESPACE, "payments")
        detector = kube.get(DETECTOR, NAMESPACE, "payments")
        assert detector is not None
        return {c["type"]: c for c in detector["status"]["conditions"]}

    def write(kind: str, name: str, change: dict[str, Any]) -> None:
        """As their operators do: the whole status at once; generations are those of this cluster."""
        live = kube.get(BY_KIND[kind], NAMESPACE, name)
        assert live is not None
        status = dict(change["status"])
        if "observedGeneration" in status:
            behind = change["metadata"]["generation"] - status["observedGeneration"]
            status["observedGeneration"] = max(0, live["metadata"]["generation"] - behind)
        gone = {key: None for key in live.get("status") or {} if key not in status}
        kube.merge(BY_KIND[kind], NAMESPACE, name, {"status": {**gone, **status}}, "status")

    passed()
    job = next(item["metadata"]["name"] for item in kube.list(BY_KIND["FlinkDeployment"], NAMESPACE))
    states = []
    for change in sequence("payments", "FlinkDeployment"):
        if change["status"] and change["metadata"]["generation"] < 3:  # from there on it was being deleted
            write("FlinkDeployment", job, change)
            conditions = passed()
            state = (conditions["StreamingReady"]["status"], conditions["Degraded"]["status"])
            states += [state] if not states or states[-1] != state else []
    # up; the TaskManager lost; back; the JobManager lost; back; upgraded; up
    up, well, lost = ("False", "False"), ("True", "False"), ("False", "True")
    assert states == [up, well, lost, well, lost, well, up, well]

    forbidden = sequence("payments", "FlinkDeployment")[1]
    forbidden["status"] |= {"jobManagerDeploymentStatus": "ERROR", "error": ERROR}
    write("FlinkDeployment", job, forbidden)
    conditions = passed()
    assert (
        conditions["StreamingReady"]["reason"] == "Failed"
        and ERROR in conditions["StreamingReady"]["message"]
    )
    assert conditions["Degraded"]["status"] == "True" and ERROR in conditions["Degraded"]["message"]

    write("FlinkDeployment", job, sequence("payments", "FlinkDeployment")[4])
    assert passed()["KafkaReady"]["reason"] == "Progressing"
    _, topic = strimzi()
    for noun in names.TOPICS:
        write("KafkaTopic", names.kafka_topic("payments", noun), topic)
    for part in kafka_parts():
        write("KafkaUser", names.kafka_user("payments", part), topic)
    for change in sequence("pay2", "Kafka"):
        if change["status"]:
            write("Kafka", "payments", change)
            conditions = passed()
    warned = conditions["KafkaReady"]["message"]
    assert conditions["KafkaReady"]["status"] == "True" and conditions["Degraded"]["status"] == "True"
    assert "single broker node" in warned and "single controller node" in warned
    assert passed(operator(ephemeral=True))["Degraded"]["status"] == "False"
