"""What the probes expect of a cluster is what its policies say, by the rules of Kubernetes: known before a cluster is there."""

from __future__ import annotations

from dataclasses import replace

from fraud_contracts import names
from fraud_contracts.child_kinds import BY_KIND
from fraud_operator.desired.child import Wanted, broker_selector
from fraud_operator.desired.kafka import build_kafka
from fraud_operator.desired.network import build_network_policies
from fraud_operator.desired.reach import Outside
from fraud_operator.releases import make_release
from fraud_operator.rollout_state import RolloutState
from fraud_operator.settings import Platform, StoreAddresses
from fraud_testing import probes
from fraud_testing.healthy import make_detector
from fraud_testing.network_policies import Json, Pod, connects
from fraud_testing.operator_process import find, render
from fraud_testing.probes import PLATFORM, Target

STORES = StoreAddresses(
    redis_url=f"redis://{PLATFORM}-redis.{PLATFORM}.svc:6379/0",
    postgres_dsn=f"postgresql://{PLATFORM}-postgres.{PLATFORM}.svc:5432/postgres",
    mlflow_tracking_uri=f"http://{PLATFORM}-mlflow.{PLATFORM}.svc:5000",
)
KEYS = {
    "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key", "AWS_ENDPOINT_URL": f"http://{PLATFORM}-objects.{PLATFORM}.svc:9000",
}  # fmt: skip


def policies() -> list[Json]:
    """Of the chart, of a detector as the chart's operator makes them, and of its Kafka as Strimzi does."""
    documents = render()
    platform = Platform.model_validate_json(
        find(documents, "ConfigMap", f"{PLATFORM}-operator")["data"]["platform.json"]
    )
    storage = platform.storage.model_copy(update={"credentials": KEYS})
    platform = platform.model_copy(update={"stores": STORES, "storage": storage})
    one = replace(make_detector(), platform=platform)
    wanted = Wanted(make_release(one, RolloutState(), None, one.spec.policy), RolloutState(), None)
    built = [child.body for child in build_network_policies(one, wanted)]
    (kafka,) = build_kafka(one, wanted)
    (listener,) = kafka.body["spec"]["kafka"]["listeners"]
    rule = {"from": listener["networkPolicyPeers"], "ports": [{"protocol": "TCP", "port": listener["port"]}]}
    brokers = {
        "podSelector": {"matchLabels": broker_selector(one)},
        "policyTypes": ["Ingress"],
        "ingress": [rule],
    }
    built.append({"metadata": {"namespace": "n"}, "spec": brokers})
    for document in documents:
        if document["kind"] == BY_KIND["NetworkPolicy"].kind:
            document["metadata"]["namespace"] = PLATFORM
            built.append(document)
    return built


def test_the_probes_expect_what_the_policies_say() -> None:
    """Of every probe to every port of every other, to a broker, the API server and DNS."""
    built, made = policies(), probes.probes("d", "n")
    pods = {probe: Pod.of(probe.namespace, dict(probe.labels)) for probe in made}
    places = [(probes.at(probe, "", port), pod) for probe, pod in pods.items() for port in probes.PORTS]
    broker = Pod.of("n", {"strimzi.io/cluster": "d", "strimzi.io/name": "d-kafka"})
    places += [
        (Target("kafka", "", names.KAFKA_PORT, Outside.KAFKA), broker),
        (Target("API server", "", 6443, Outside.API_SERVER), Pod(address="10.250.0.1")),
        (Target("DNS", "", 53, Outside.DNS), Pod(address="10.250.0.1")),
    ]
    differing = [
        f"{source.name} → {target.name} {target.port}"
        for source in made
        for target, pod in places
        if connects(built, pods[source], pod, target.port) != probes.expected(source, target)
    ]
    assert differing == []
