"""Who reaches the platform's own Pods by the chart's NetworkPolicies, as helm renders them."""

from __future__ import annotations

from typing import Any, Final

import pytest

from fraud_contracts.detector import Component
from fraud_operator.desired import reach
from fraud_operator.desired.child import labels
from fraud_operator.desired.components import COMPONENTS
from fraud_operator.desired.reach import Part
from fraud_operator.settings import Platform
from fraud_testing.healthy import make_detector
from fraud_testing.network_policies import Json, Pod, connects
from fraud_testing.operator_process import NODE_FOLDER, find, render

pytestmark = pytest.mark.integration
PLATFORM: Final = "fraud-platform"
PORTS: Final = sorted(
    {way.port for way in reach.WAYS if isinstance(way.target, Part) and way.port is not None}
)


def policies(*settings: str) -> list[Json]:
    """With the namespace that helm writes them into."""
    documents = [one for one in render(*settings) if one["kind"] == "NetworkPolicy"]
    for document in documents:
        document["metadata"]["namespace"] = PLATFORM
    return documents


def part(one: Part, namespace: str = PLATFORM) -> Pod:
    pods = {"app.kubernetes.io/instance": PLATFORM, "app.kubernetes.io/component": one.value}
    return Pod.of(namespace, pods)


def component(one: Component, namespace: str = "n") -> Pod:
    return Pod.of(namespace, labels(make_detector(), COMPONENTS[one].label))


def allowed(source: reach.Party, target: reach.Party, port: int) -> bool:
    return any(way.port == port and source in way.sources for way in reach.ways_to(target))


def test_the_platforms_pods_are_reached_as_the_table_says() -> None:
    """By components of detectors in any namespace and by each other, at the ports of the table and no others."""
    built = policies()
    assert {one["metadata"]["name"] for one in built} == {f"{PLATFORM}-{one.value}" for one in Part}
    differing = [
        (source, target, port)
        for source, pod in {
            **{one: component(one) for one in Component},
            **{one: part(one) for one in Part},
        }.items()
        for target in Part
        for port in PORTS
        # The operator's own ways out are open: what is asked of it is whom it is let in by.
        if connects(built, pod, part(target), port) != allowed(source, target, port)
    ]
    assert differing == []


def test_the_platforms_pods_reach_detectors_as_the_table_says() -> None:
    """No store connects to a detector's Pod; Prometheus does where metrics are, helm's test to the door, the operator may to all."""
    built = policies()
    differing = [
        (source, target, port)
        for source in set(Part) - {Part.OPERATOR}
        for target in Component
        for port in (8080, 8081, 8265, 9090, 9249)
        if connects(built, part(source), component(target), port)
        != any(way.port == port and source in way.sources for way in reach.ways_to(target))
    ]
    assert differing == []


def test_a_pod_without_a_detectors_labels_reaches_nothing() -> None:
    """In another namespace, in a detector's, and beside the platform's own."""
    built = policies()
    for namespace in ("foreign", "n", PLATFORM):
        other = Pod.of(namespace, {"app.kubernetes.io/component": "worker"})
        assert [t for t in Part for port in PORTS if connects(built, other, part(t), port)] == []


def test_where_namespaces_are_watched_a_label_elsewhere_opens_nothing() -> None:
    """Without the list a label is believed in every namespace."""
    forged = component(Component.WORKER, "foreign")
    assert connects(policies(), forged, part(Part.REDIS), 6379)
    watched = policies("operator.watchNamespaces={n}")
    assert not connects(watched, forged, part(Part.REDIS), 6379)
    assert connects(watched, component(Component.WORKER), part(Part.REDIS), 6379)


def test_stores_that_arent_made_have_no_policy() -> None:
    """MLflow then reaches the bucket wherever it is; in a folder of the node it needs nothing but names."""
    away = Pod(address="52.1.2.3")
    own = policies("trial.redis.enabled=false", "storage.existingSecret=mine")
    assert {f"{PLATFORM}-redis", f"{PLATFORM}-objects"}.isdisjoint(one["metadata"]["name"] for one in own)
    assert connects(own, part(Part.MLFLOW), away, 443)
    assert not connects(policies(*NODE_FOLDER), part(Part.MLFLOW), away, 443)
    assert not connects(policies(), part(Part.MLFLOW), away, 443)


def test_a_prometheus_of_ones_own_reads_the_operators_metrics() -> None:
    """By its namespace, which the operator is told, too, for the detectors' Pods."""
    other = Pod.of("monitoring", {})
    settings = (
        "monitoring.namespace=monitoring",
        "network.apiServer.cidrs={10.0.0.1/32}",
        "network.apiServer.ports={6443}",
    )
    assert not connects(policies(), other, part(Part.OPERATOR), 9090)
    assert connects(policies(*settings), other, part(Part.OPERATOR), 9090)
    network = platform(*settings).network
    assert (network.monitoring, network.api_server_cidrs, network.api_server_ports) == (
        "monitoring", ("10.0.0.1/32",), (6443,),
    )  # fmt: skip
    test = part(Part.TEST)
    assert connects(policies(*settings), test, Pod(address="10.0.0.1"), 6443)
    assert not connects(policies(*settings), test, Pod(address="10.0.0.2"), 6443)


def test_the_chart_gives_what_the_operator_takes_for_granted() -> None:
    """The same clients, operators' namespaces and ports, with or without the chart; and the release's name."""
    assert platform().network == Platform().network
    assert platform().release == PLATFORM


def platform(*settings: str) -> Platform:
    document: Any = find(render(*settings), "ConfigMap", f"{PLATFORM}-operator")
    return Platform.model_validate_json(document["data"]["platform.json"])
