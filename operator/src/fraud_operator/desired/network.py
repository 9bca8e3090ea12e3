"""Who may reach a detector's Pods and whom they may reach: one NetworkPolicy a component, made from the table in ``reach``.

Each denies both directions but for the table's lines. A NetworkPolicy knows labels, namespaces and addresses, no names: a store
in the cluster is its Pods or its namespace, any other its port. An address that is a number is no better than a name: it may be a
Service's, and behind that a policy sees the Pod's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from fraud_contracts import names
from fraud_contracts.detector import Component
from fraud_operator.addresses import HTTPS_PORT, PLAIN_HTTP_PORT, Address, addresses_in, platform_addresses
from fraud_operator.desired import reach
from fraud_operator.desired.child import Child, Wanted, broker_selector, child, metadata, selector
from fraud_operator.desired.components import COMPONENTS
from fraud_operator.desired.reach import Outside, Part, Party
from fraud_operator.detector import Detector
from fraud_operator.objects import Json

NAMESPACE_LABEL: Final = "kubernetes.io/metadata.name"
# Of the operators' Pods, as their projects' charts label them.
ENGINE_LABELS: Final = {
    Outside.FLINK_OPERATOR: {"app.kubernetes.io/name": "flink-kubernetes-operator"},
    Outside.RAY_OPERATOR: {"app.kubernetes.io/name": "kuberay-operator"},
}
# The clients' own, of an address without one.
_KAFKA_PORT: Final = 9092
_NAME: Final = "[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_SERVICE: Final = re.compile(rf"(?:{_NAME}\.)+?(?P<namespace>{_NAME})\.svc(?:\..*)?")
# Where a Pod asks for its role's keys: AWS's instance metadata, ECS's and EKS's agents. The keys come from 443.
_ROLE_HOSTS: Final = ("169.254.169.254", "169.254.170.2", "169.254.170.23")


def build_network_policies(detector: Detector, wanted: Wanted) -> list[Child]:
    return [_policy(detector, wanted, component) for component in Component]


def _policy(detector: Detector, wanted: Wanted, component: Component) -> Child:
    label = COMPONENTS[component].label
    spec: Json = {
        "podSelector": {"matchLabels": selector(detector, label)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": _ingress(detector, component),
        "egress": _egress(detector, wanted, component),
    }
    meta = metadata(detector, names.network_policy(detector.name, label), label)
    return child("networking.k8s.io/v1", "NetworkPolicy", meta, spec=spec)


def _ingress(detector: Detector, component: Component) -> list[Json]:
    rules: list[Json] = []
    for way in reach.ways_to(component):
        ports = {"ports": [_tcp(way.port)]} if way.port is not None else {}
        if Outside.CLIENTS in way.sources and not detector.platform.network.clients:
            rules.append(ports)
            continue
        sources = _peers(detector, way.sources)
        if sources:  # an empty list would let in everybody
            rules.append({"from": sources, **ports})
    return rules


def kafka_clients(detector: Detector) -> list[Json]:
    """Peers of a managed Kafka's listener. Strimzi puts them into its own policy, in which its other ports have theirs."""
    (way,) = reach.ways_to(Outside.KAFKA)
    return _peers(detector, way.sources)


def _peers(detector: Detector, parties: Iterable[Party]) -> list[Json]:
    """Who connects, as Kubernetes writes it; nobody where the platform wasn't told who that is."""
    own = [COMPONENTS[party].label for party in parties if isinstance(party, Component)]
    others = [
        peer for party in parties if not isinstance(party, Component) for peer in _others(detector, party)
    ]
    return [*([_own_pods(detector, own)] if own else []), *others]


def _own_pods(detector: Detector, components: Sequence[str]) -> Json:
    """In the detector's namespace, with its label and that of one of these components."""
    if len(components) == 1:
        return {"podSelector": {"matchLabels": selector(detector, components[0])}}
    among = {"key": names.COMPONENT_LABEL, "operator": "In", "values": list(components)}
    return {
        "podSelector": {"matchLabels": {names.DETECTOR_LABEL: detector.name}, "matchExpressions": [among]}
    }


def _others(detector: Detector, party: Part | Outside) -> list[Json]:
    network = detector.platform.network
    if isinstance(party, Part):
        return [_platform_pods(detector, party)]
    match party:
        case Outside.CLIENTS | Outside.NAMED_CLIENTS:
            return [dict(peer) for peer in network.clients]
        case Outside.MONITORING:
            return [_namespace(network.monitoring)] if network.monitoring else []
        case Outside.FLINK_OPERATOR | Outside.RAY_OPERATOR:
            flink = party is Outside.FLINK_OPERATOR
            namespace = network.flink_operator if flink else network.ray_operator
            return [{**_namespace(namespace), "podSelector": {"matchLabels": dict(ENGINE_LABELS[party])}}]
        case _:
            raise ValueError(f"{party} connects to no Pod of a detector")


def _egress(detector: Detector, wanted: Wanted, component: Component) -> list[Json]:
    rules: list[Json] = []
    for way in reach.ways_from(component):
        for rule in _ways_out(detector, wanted, way):
            if rule not in rules:
                rules.append(rule)
    return rules


def _ways_out(detector: Detector, wanted: Wanted, way: reach.Way) -> list[Json]:
    target = way.target
    if isinstance(target, Component):
        pods = _own_pods(detector, [COMPONENTS[target].label])
        return [{"to": [pods], **({"ports": [_tcp(way.port)]} if way.port is not None else {})}]
    if isinstance(target, Part):
        return _to_store(detector, wanted, target)
    match target:
        case Outside.DNS:
            # Wherever it answers: Pods, the node, or a cache on the node's own addresses.
            return [{"ports": [{"protocol": protocol, "port": way.port} for protocol in ("UDP", "TCP")]}]
        case Outside.KAFKA:
            return _to_kafka(detector)
        case Outside.API_SERVER:
            # No Pod, so a selector can't find it; policies see its own port and address, not the Service's.
            network = detector.platform.network
            to = (
                {"to": [_block(cidr) for cidr in network.api_server_cidrs]}
                if network.api_server_cidrs
                else {}
            )
            return [{**to, "ports": [_tcp(port) for port in network.api_server_ports]}]
        case _:
            raise ValueError(f"no Pod of a detector connects to {target}")


def _to_kafka(detector: Detector) -> list[Json]:
    addresses = addresses_in(f"kafka://{detector.bootstrap}", _KAFKA_PORT)
    if not detector.managed_kafka:
        # Its brokers are where they say, whatever the first one was called.
        anywhere = [{"ports": [_tcp(address.port)]} for address in addresses]
        return [*_to(detector, addresses, None), *anywhere]
    brokers = {"podSelector": {"matchLabels": broker_selector(detector)}}
    return [{"to": [brokers], "ports": [_tcp(address.port)]} for address in addresses]


def _to_store(detector: Detector, wanted: Wanted, store: Part) -> list[Json]:
    if store is Part.OBJECTS:
        if detector.storage_path is not None:
            return []
        if detector.storage_secret is None:
            hosts = [_block(f"{host}/32") for host in _ROLE_HOSTS]
            return [{"ports": [_tcp(HTTPS_PORT)]}, {"to": hosts, "ports": [_tcp(PLAIN_HTTP_PORT)]}]
    known = {**platform_addresses(detector), **wanted.addresses}
    return _to(detector, known.get(store.value) or addresses_in("", _usual_port(store)), store)


def _usual_port(store: Part) -> int:
    """Of a store whose address nobody says."""
    port = reach.ways_to(store)[0].port
    assert port is not None
    return port


def _to(detector: Detector, addresses: Iterable[Address], store: Part | None) -> list[Json]:
    """Rules that lead to addresses of the cluster or of elsewhere; ``store`` is what the platform's own is called."""
    rules = []
    for address in addresses:
        ports: Json = {"ports": [_tcp(address.port)]}
        service = _SERVICE.fullmatch(address.host)
        if store is not None and address.host.removesuffix(".cluster.local") == _own_host(detector, store):
            rules.append({"to": [_platform_pods(detector, store)], **ports})
        elif service is not None:
            # Any port: a policy sees the Pod's, and the Service may have another.
            rules.append({"to": [_namespace(service["namespace"])]})
        else:
            rules.append(ports)
    return rules


def _own_host(detector: Detector, store: Part) -> str:
    platform = detector.platform
    return f"{platform.release}-{store.value}.{platform.namespace}.svc"


def _platform_pods(detector: Detector, part: Part) -> Json:
    labels = {"app.kubernetes.io/instance": detector.platform.release, names.COMPONENT_LABEL: part.value}
    return {**_namespace(detector.platform.namespace), "podSelector": {"matchLabels": labels}}


def _namespace(name: str) -> Json:
    return {"namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: name}}}


def _block(cidr: str) -> Json:
    return {"ipBlock": {"cidr": cidr}}


def _tcp(port: int) -> Json:
    return {"protocol": "TCP", "port": port}
