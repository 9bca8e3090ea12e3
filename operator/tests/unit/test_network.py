"""Who reaches whom by the NetworkPolicies of a detector, and where its stores are to be found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest

from fraud_contracts import names
from fraud_contracts.detector import Component
from fraud_operator.addresses import Address, addresses_in, addresses_of, secret_addresses
from fraud_operator.desired import reach
from fraud_operator.desired.child import Wanted, labels
from fraud_operator.desired.components import COMPONENTS
from fraud_operator.desired.kafka import build_kafka
from fraud_operator.desired.network import build_network_policies
from fraud_operator.desired.reach import Outside, Part
from fraud_operator.detector import Detector
from fraud_operator.releases import make_release
from fraud_operator.rollout_state import RolloutState
from fraud_operator.settings import NetworkSettings, Platform, StorageSettings, StoreAddresses
from fraud_testing.healthy import make_detector
from fraud_testing.network_policies import Json, Pod, connects

PLATFORM: Final = Platform(
    storage=StorageSettings(
        uri="s3://fraud-platform",
        credentials={
            "AWS_ACCESS_KEY_ID": "id",
            "AWS_SECRET_ACCESS_KEY": "key",
            "AWS_ENDPOINT_URL": "http://fraud-platform-objects.fraud-platform.svc:9000",
        },
    ),
    stores=StoreAddresses(
        redis_url="redis://:secret@fraud-platform-redis.fraud-platform.svc:6379/0",
        postgres_dsn="postgresql://fraud:secret@fraud-platform-postgres.fraud-platform.svc:5432/postgres",
        mlflow_tracking_uri="http://fraud-platform-mlflow.fraud-platform.svc:5000",
    ),
)
FOREIGN: Final = Pod.of("foreign", {"app": "any"})
BROKER: Final = Pod.of("n", {"strimzi.io/cluster": "d", "strimzi.io/name": "d-kafka"})
PORTS: Final = sorted(
    {way.port for way in reach.WAYS if way.port is not None} | {6123, names.KAFKA_PORT, 10001}
)


def detector(name: str = "d", network: NetworkSettings | None = None, **spec: Any) -> Detector:
    platform = PLATFORM.model_copy(update={"network": network or NetworkSettings()})
    return replace(make_detector(**spec), name=name, platform=platform)


def policies(one: Detector, **addresses: tuple[Address, ...]) -> list[Json]:
    release = make_release(one, RolloutState(), None, one.spec.policy)
    return [
        child.body
        for child in build_network_policies(one, Wanted(release, RolloutState(), None, addresses=addresses))
    ]


def pod(component: Component, name: str = "d", namespace: str = "n") -> Pod:
    return Pod.of(namespace, labels(detector(name), COMPONENTS[component].label))


def part(one: Part, namespace: str = "fraud-platform") -> Pod:
    return Pod.of(
        namespace, {"app.kubernetes.io/instance": "fraud-platform", "app.kubernetes.io/component": one.value}
    )


def allowed(source: reach.Party, target: reach.Party, port: int) -> bool:
    return any(way.port in (None, port) and source in way.sources for way in reach.ways_to(target))


def test_a_detectors_pods_reach_each_other_as_the_table_says() -> None:
    """Of all pairs of components and all ports, those of the table are open, and no others."""
    built = policies(detector())
    differing = [
        (source, target, port)
        for source in Component
        for target in Component
        for port in PORTS
        if connects(built, pod(source), pod(target), port) != allowed(source, target, port)
    ]
    assert differing == []


def test_the_platforms_pods_reach_a_detectors_as_the_table_says() -> None:
    """Operator, helm's test and the trial's Prometheus have their ports; no trial store has any. The doors are open to all."""
    built = policies(detector())
    doors = {way.target for way in reach.WAYS if Outside.CLIENTS in way.sources}
    differing = [
        (source, target, port)
        for source in Part
        for target in Component
        for port in PORTS
        if connects(built, part(source), pod(target), port)
        != (allowed(source, target, port) or (target in doors and port == 8080))
    ]
    assert differing == []


@pytest.mark.parametrize(
    "other",
    [
        FOREIGN,
        pod(Component.WORKER, "other"),
        pod(Component.WORKER, "d", "elsewhere"),
        part(Part.OPERATOR, "foreign"),
    ],
)
def test_a_foreign_pod_reaches_the_doors_alone(other: Pod) -> None:
    """Another namespace's Pod, another detector's, and one that has the right labels in another namespace."""
    built = [*policies(detector()), *policies(detector("other"))]
    open_ports = [
        (target, port)
        for target in Component
        for port in PORTS
        if connects(
            [one for one in built if one["metadata"]["name"].startswith("d-")], other, pod(target), port
        )
    ]
    assert open_ports == [(Component.DECISION_SERVICE, 8080), (Component.CONSOLE, 8080)]


def test_where_clients_are_named_nobody_else_reaches_the_doors() -> None:
    """The chart's network.clients closes them, but for helm's test, the operator and Prometheus, and opens Kafka to those named."""
    shop = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}
    one = detector(network=NetworkSettings(clients=(shop,)))
    built = policies(one)
    door = pod(Component.DECISION_SERVICE)
    assert not connects(built, FOREIGN, door, 8080)
    assert connects(built, Pod.of("shop", {}), door, 8080)
    assert connects(built, part(Part.TEST), door, 8080)
    assert not connects(built, Pod.of("shop", {}), door, 9090)
    assert shop in _listener(one)["networkPolicyPeers"]


def test_engines_operators_are_found_by_namespace_and_label() -> None:
    """Either alone is not enough for Flink's REST or for Ray's jobs."""
    built = policies(detector(network=NetworkSettings(ray_operator="rays")))
    for target, port, namespace, name in (
        (Component.FEATURES, 8081, "flink-operator", "flink-kubernetes-operator"),
        (Component.TRAINING, 8265, "rays", "kuberay-operator"),
    ):
        label = {"app.kubernetes.io/name": name}
        assert connects(built, Pod.of(namespace, label), pod(target), port)
        assert not connects(built, Pod.of(namespace, {}), pod(target), port)
        assert not connects(built, Pod.of("foreign", label), pod(target), port)


def test_a_prometheus_of_ones_own_is_let_in_by_its_namespace() -> None:
    """The chart's monitoring.namespace opens the ports with metrics, and no others."""
    other = Pod.of("monitoring", {})
    before, after = policies(detector()), policies(detector(network=NetworkSettings(monitoring="monitoring")))
    worker, features = pod(Component.WORKER), pod(Component.FEATURES)
    assert not connects(before, other, worker, 9090)
    assert connects(after, other, worker, 9090) and connects(after, other, features, 9249)
    assert not connects(after, other, features, 8081)


def test_a_detectors_pods_reach_the_trial_stores_that_they_use() -> None:
    """By the stores' own Pods in the platform's namespace: a Pod elsewhere with the same port is out of reach."""
    built = policies(detector(storage={"uri": "s3://fraud-platform/n.d"}))
    stores = (Part.REDIS, Part.POSTGRES, Part.MLFLOW, Part.OBJECTS, Part.PROMETHEUS, Part.OPERATOR)
    differing = [
        (source, store)
        for source in Component
        for store in stores
        for port in [reach.ways_to(store)[0].port]
        if port is not None
        if connects(built, pod(source), part(store), port) != allowed(source, store, port)
        or connects(built, pod(source), part(store, "foreign"), port)
    ]
    assert differing == []


def test_only_what_has_a_token_reaches_the_api_server() -> None:
    """Decision service, worker and Flink; where its addresses are named, those alone."""
    server, other = Pod(address="10.0.0.1"), Pod(address="10.0.0.2")
    anywhere = policies(detector())
    named = policies(detector(network=NetworkSettings(api_server_cidrs=("10.0.0.1/32",))))
    reaching = {one for one in Component if connects(anywhere, pod(one), server, 6443)}
    assert reaching == {Component.DECISION_SERVICE, Component.WORKER, Component.FEATURES}
    assert connects(named, pod(Component.WORKER), server, 6443)
    assert not connects(named, pod(Component.WORKER), other, 6443)


def test_every_pod_asks_for_names() -> None:
    """DNS is wherever it is, by UDP and TCP."""
    built = policies(detector())
    for component in Component:
        for protocol in ("UDP", "TCP"):
            assert connects(built, pod(component), Pod(address="169.254.20.10"), 53, protocol)


@pytest.mark.parametrize(
    ("url", "reached", "refused"),
    [
        ("rediss://u:p@cache.example.com:6390/0", [("", "52.1.2.3", 6390)], [("", "52.1.2.3", 6379)]),
        ("redis://10.1.2.3", [("", "10.1.2.3", 6379), ("data", "10.9.9.9", 6379)], [("", "10.1.2.3", 80)]),
        ("redis://cache.data.svc:80", [("data", "", 6379)], [("other", "", 6379), ("", "52.1.2.3", 80)]),
        ("no address", [("", "52.1.2.3", 6379)], [("", "52.1.2.3", 6390)]),
    ],
)
def test_a_store_of_ones_own_is_reached_where_its_secret_says(
    url: str, reached: list[tuple[str, str, int]], refused: list[tuple[str, str, int]]
) -> None:
    """By its port anywhere, also where it is a number, which may be a Service's; by its namespace where it is a Service's name."""
    one = detector(stores={"redis": {"secretRef": {"name": "mine"}}})
    built = policies(one, redis=addresses_in(url, 6379))
    for places, expected in ((reached, True), (refused, False)):
        for namespace, address, port in places:
            target = Pod(namespace, (), address)
            assert connects(built, pod(Component.WORKER), target, port) is expected
            assert not connects(built, pod(Component.CONSOLE), target, port)


def test_where_a_role_opens_the_object_store_pods_may_ask_for_it() -> None:
    """AWS's and EKS's own addresses on the node, by plain HTTP, and nothing else so."""
    platform = PLATFORM.model_copy(update={"storage": StorageSettings(uri="s3://b")})
    built = policies(replace(make_detector(), platform=platform))
    for component, expected in ((Component.LAKE_SINK, True), (Component.CONSOLE, False)):
        assert connects(built, pod(component), Pod(address="169.254.169.254"), 80) is expected
        assert connects(built, pod(component), Pod(address="52.1.2.3"), 443) is expected
        assert not connects(built, pod(component), Pod(address="52.1.2.3"), 80)


def test_a_managed_kafka_is_for_the_detector_and_the_operator() -> None:
    """Its listener names the components that use it; nobody else of the namespace is a peer."""
    one = detector()
    listener = _listener(one)
    rule = {"from": listener["networkPolicyPeers"], "ports": [{"protocol": "TCP", "port": listener["port"]}]}
    spec = {
        "podSelector": {"matchLabels": dict(BROKER.labels)},
        "policyTypes": ["Ingress"],
        "ingress": [rule],
    }
    built = [*policies(one), {"metadata": {"namespace": "n"}, "spec": spec}]
    reaching = {one for one in Component if connects(built, pod(one), BROKER, listener["port"])}
    assert reaching == set(Component) - {Component.PREDICTOR, Component.CONSOLE}
    assert connects(built, part(Part.OPERATOR), BROKER, listener["port"])
    assert not connects(built, Pod.of("n", {}), BROKER, listener["port"])
    assert not connects(built, pod(Component.WORKER, "other"), BROKER, listener["port"])


@pytest.mark.parametrize(
    "servers",
    ["a.example.com:9094,b.example.com:9095", "10.0.0.1:9094,10.0.0.2:9095", "k.data.svc:9094,10.0.0.2:9095"],
)
def test_a_kafka_of_ones_own_is_reached_at_the_ports_of_its_bootstrap(servers: str) -> None:
    """By port to anywhere, as brokers have other addresses than the first one asked."""
    kafka = {"external": {"bootstrapServers": servers}, "partitions": 1}
    built = policies(detector(kafka=kafka))
    broker = Pod(address="52.1.2.3")
    worker, console = pod(Component.WORKER), pod(Component.CONSOLE)
    assert [port for port in (9092, 9094, 9095) if connects(built, worker, broker, port)] == [9094, 9095]
    assert not connects(built, console, broker, 9094)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis://:p%40ss@Host:1/0", [("host", 1)]),
        ("postgresql://u:p@a:1,b/db", [("a", 1), ("b", 5)]),
        ("https://[fd00::1]:9000", [("fd00::1", 9000)]),
        ("http://m", [("m", 80)]),
        ("redis://host:99999", [("host", 5)]),
        ("", [("", 5)]),
        ("redis://", [("", 5)]),
        ("redis://:p[w@host:1", [("host", 1)]),
        ("redis://:p\u2100w@host", [("host", 5)]),
        ("kafka://a[b:9092,c:2", [("", 5), ("c", 2)]),
        ("redis://host:\u0663", [("host", 5)]),
    ],
)
def test_an_address_is_host_and_port(text: str, expected: list[tuple[str, int]]) -> None:
    """Several hosts are several; what says nothing, or nonsense, is the usual port of wherever, and never an error."""
    assert [(one.host, one.port) for one in addresses_in(text, 5)] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://adm:p[w@host/db", [("host", 5432)]),
        ("postgresql:///db?host=h&port=6432", [("h", 6432)]),
        ("host=a,b port=1,2 password='x host=c y'", [("a", 1), ("b", 2)]),
        ("postgresql://u:p@a:1,b/db", [("a", 1), ("b", 5432)]),
        ("host=a,b port=7", [("a", 7), ("b", 7)]),
        ("host=a hostaddr=10.1.2.3", [("10.1.2.3", 5432)]),
        ("host=/tmp", [("", 5432)]),
        ("host=a port=99999", [("a", 5432)]),
        ("pass word", [("", 5432)]),
        ("postgresql://u:%zz@h/d", [("", 5432)]),
        ("", [("", 5432)]),
        ("host=" + "a," * 3000, [("", 5432)]),
    ],
)
def test_an_address_of_postgres_is_read_as_its_client_does(
    text: str, expected: list[tuple[str, int]]
) -> None:
    """Keywords, a query, quoted passwords; of what libpq can't read, or nobody would write, the usual port of wherever."""
    assert [(one.host, one.port) for one in addresses_of("postgres", text)] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis+sentinel://u:p@a,b:26380/main", [("a", 26379), ("b", 26380), ("a", 6379), ("b", 6379)]),
        ("rediss+sentinel://a/main?nodes=c:6380,d", [("a", 26379), ("c", 6380), ("d", 6379)]),
        ("redis+sentinel://u:p@a,b", [("a", 6379), ("b", 6379)]),
        ("rediss://u:p@a:6390/0", [("a", 6390)]),
    ],
)
def test_sentinels_and_the_servers_that_they_name_are_reached(
    text: str, expected: list[tuple[str, int]]
) -> None:
    """The servers are on the Sentinels' hosts unless the address says where."""
    assert [(one.host, one.port) for one in addresses_of("redis", text)] == expected


def test_no_address_breaks_a_pass() -> None:
    """A detector whose addresses nobody can read has its policies, and so has every other beside a platform's of that kind."""
    unreadable = StoreAddresses(redis_url="redis://:p[w@h]", postgres_dsn="postgresql://u:p[w@[h/db")
    kafka = {"external": {"bootstrapServers": "a[b:9092"}, "partitions": 1}
    one = detector(kafka=kafka)
    one = replace(one, platform=PLATFORM.model_copy(update={"stores": unreadable}))
    built = policies(one)
    assert len(built) == len(Component)
    assert connects(built, pod(Component.WORKER), Pod(address="52.1.2.3"), 9092)


def test_a_namespace_that_no_label_could_bear_is_none() -> None:
    """The API server would refuse the whole policy for it, and leave the Pods open."""
    one = detector(stores={"redis": {"secretRef": {"name": "mine"}}})
    built = policies(one, redis=addresses_in("redis://cache.b$d_.svc", 6379))
    assert connects(built, pod(Component.WORKER), Pod(address="52.1.2.3"), 6379)


def test_a_secret_that_isnt_there_says_nothing() -> None:
    """Nor does one whose value is no base64: the store's own condition tells of both."""
    one = detector(stores={"redis": {"secretRef": {"name": "mine"}}})
    assert secret_addresses(one, lambda _: None) == {}
    assert secret_addresses(one, lambda _: {"data": {"REDIS_URL": "%"}}) == {"redis": (Address("", 6379),)}


def _listener(one: Detector) -> Json:
    release = make_release(one, RolloutState(), None, one.spec.policy)
    (kafka,) = build_kafka(one, Wanted(release, RolloutState(), None))
    (listener,) = kafka.body["spec"]["kafka"]["listeners"]
    return dict(listener)
