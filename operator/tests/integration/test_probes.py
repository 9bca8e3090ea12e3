"""What the probes expect of a cluster is what its policies say, by the rules of Kubernetes: known before a cluster is there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fraud_contracts import names
from fraud_contracts.child_kinds import BY_KIND
from fraud_contracts.detector import Component
from fraud_operator.addresses import addresses_of
from fraud_operator.desired.child import Wanted, broker_selector
from fraud_operator.desired.kafka import build_kafka
from fraud_operator.desired.network import build_network_policies
from fraud_operator.desired.reach import Outside, Part
from fraud_operator.detector import Detector
from fraud_operator.releases import make_release
from fraud_operator.rollout_state import RolloutState
from fraud_operator.settings import Platform, StoreAddresses
from fraud_testing import probes, second_detector
from fraud_testing.healthy import make_detector
from fraud_testing.network_policies import Json, Pod, connects
from fraud_testing.operator_process import find, render
from fraud_testing.probe_pods import LABEL, PLATFORM, Probe
from fraud_testing.probes import Target
from fraud_testing.trespass import OBJECTS

pytestmark = pytest.mark.integration
STORES = StoreAddresses(
    redis_url=f"redis://{PLATFORM}-redis.{PLATFORM}.svc:6379/0",
    postgres_dsn=f"postgresql://{PLATFORM}-postgres.{PLATFORM}.svc:5432/postgres",
    mlflow_tracking_uri=f"http://{PLATFORM}-mlflow.{PLATFORM}.svc:5000",
)
KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key", "AWS_ENDPOINT_URL": OBJECTS}
FIRST = names.Identity("n", "d")


def policies() -> list[Json]:
    """Of the chart, of two detectors as the chart's operator makes them, and of the first one's Kafka as Strimzi does."""
    documents = render()
    platform = Platform.model_validate_json(
        find(documents, "ConfigMap", f"{PLATFORM}-operator")["data"]["platform.json"]
    )
    storage = platform.storage.model_copy(update={"credentials": KEYS})
    platform = platform.model_copy(update={"stores": STORES, "storage": storage})
    one = replace(make_detector(), platform=platform)
    wanted = Wanted(make_release(one, RolloutState(), None, one.spec.policy), RolloutState(), None)
    built = [child.body for child in build_network_policies(one, wanted)]
    two = Detector.parse(second_detector.second_detector(PLATFORM), platform)
    beside = replace(wanted, addresses={"objects": addresses_of("objects", OBJECTS)})
    built += [child.body for child in build_network_policies(two, beside)]
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


def everybody() -> list[Probe]:
    two = names.Identity(second_detector.NAMESPACE, second_detector.NAME)
    components = [probe for one in (FIRST, two) for probe in probes.component_probes(one, {})]
    return [*components, *probes.other_probes(FIRST)]


def test_the_probes_expect_what_the_policies_say() -> None:
    """Of every probe, those of a second detector too, to every port of every other, to a broker, the API server and DNS."""
    built, made = policies(), everybody()
    pods = {probe: Pod.of(probe.namespace, dict(probe.labels)) for probe in made}
    places = [(probes.at(probe, "", port), pod) for probe, pod in pods.items() for port in probes.PORTS]
    broker = Pod.of("n", {"strimzi.io/cluster": "d", "strimzi.io/name": "d-kafka"})
    places += [
        (Target("kafka", "", names.KAFKA_PORT, Outside.KAFKA, detector=str(FIRST)), broker),
        (Target("API server", "", 6443, Outside.API_SERVER), Pod(address="10.250.0.1")),
        (Target("DNS", "", 53, Outside.DNS), Pod(address="10.250.0.1")),
    ]
    differing = [
        f"{source.namespace}/{source.name} → {target.name} {target.port}"
        for source in made
        for target, pod in places
        if connects(built, pods[source], pod, target.port) != probes.expected(source, target)
    ]
    assert differing == []


def _live(namespace: str, name: str, ports: list[int], **labels: str) -> Json:
    return {
        "metadata": {"namespace": namespace, "name": name, "labels": labels},
        "spec": {"containers": [{"ports": [{"containerPort": port} for port in ports]}]},
        "status": {"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
    }


def test_pods_that_run_are_tried_at_all_ports_and_must_answer_at_their_own() -> None:
    """A JobManager at 8081, though it declares Flink's inner port, too; a probe and another detector's Pod are no targets."""
    component, instance = names.COMPONENT_LABEL, probes.INSTANCE_LABEL
    detector = {names.DETECTOR_LABEL: "d", component: "features"}
    pods = [
        _live("n", "job", [8081, 6123], **detector),
        _live("n", "probe", [8081], **detector, **{LABEL: "true"}),
        _live("n", "other", [8081], **{**detector, names.DETECTOR_LABEL: "e"}),
        _live(PLATFORM, "redis", [6379], **{instance: PLATFORM, component: "redis"}),
    ]
    live = probes.live_targets(pods, str(FIRST))
    assert {(one.name, one.party) for one in live} == {
        ("n/job", Component.FEATURES),
        (f"{PLATFORM}/redis", Part.REDIS),
    }
    assert {(one.name, one.port) for one in live if one.listens} == {
        ("n/job", 8081),
        (f"{PLATFORM}/redis", 6379),
    }
    assert len(live) == 2 * len(probes.PORTS)


def test_a_port_where_nobody_listens_is_wrong_only_if_it_is_open() -> None:
    """Whom the table lets in there finds it closed; whom it doesn't must."""
    own, stranger = probes.component_probes(FIRST, {})[2], probes.other_probes(FIRST)[-4]
    target = Target("job", "", 6123, Component.FEATURES, detector=str(FIRST), listens=False)
    assert (own.party, stranger.name) == (Component.FEATURES, "stranger")
    assert not probes.is_wrong(False, own, target)
    assert probes.is_wrong(False, own, replace(target, listens=True))
    assert probes.is_wrong(True, stranger, target)
