"""What NetworkPolicies let through, by Kubernetes' own rules: for tests that need no cluster."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

Json = dict[str, Any]
NAMESPACE_LABEL: Final = "kubernetes.io/metadata.name"
_DIRECTIONS: Final = {"Ingress": ("ingress", "from"), "Egress": ("egress", "to")}


@dataclass(frozen=True)
class Pod:
    """A Pod, or with an address and without a namespace something outside of the cluster."""

    namespace: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    address: str = ""

    @classmethod
    def of(cls, namespace: str, labels: Mapping[str, str]) -> Pod:
        return cls(namespace, tuple(sorted(labels.items())))


def selects(selector: Json | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector finds these labels; an empty one finds all."""
    selector = selector or {}
    for expression in selector.get("matchExpressions", []):
        value = labels.get(expression["key"])
        if expression["operator"] not in ("In", "Exists"):
            raise ValueError(f"no policy of ours has needed {expression['operator']} so far")
        if value is None or (expression["operator"] == "In" and value not in expression["values"]):
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def connects(policies: Iterable[Json], source: Pod, target: Pod, port: int, protocol: str = "TCP") -> bool:
    """Whether ``source`` may open a connection to ``port`` of ``target``: both of them must be let."""
    every = list(policies)
    out = _allows(every, "Egress", source, target, port, protocol)
    return out and _allows(every, "Ingress", target, source, port, protocol)


def _allows(policies: list[Json], way: str, own: Pod, other: Pod, port: int, protocol: str) -> bool:
    """What applies to ``own`` adds up; where nothing does, all is allowed."""
    rules, peers = _DIRECTIONS[way]
    applying = [
        policy["spec"]
        for policy in policies
        if policy["metadata"]["namespace"] == own.namespace
        and way in policy["spec"]["policyTypes"]
        and selects(policy["spec"]["podSelector"], dict(own.labels))
    ]
    if not applying:
        return True
    return any(
        _is_at(rule.get("ports"), port, protocol) and _is_with(rule.get(peers), other, own.namespace)
        for spec in applying
        for rule in spec.get(rules) or []
    )


def _is_at(ports: list[Json] | None, port: int, protocol: str) -> bool:
    return not ports or any(
        one.get("protocol", "TCP") == protocol and one.get("port", port) == port for one in ports
    )


def _is_with(peers: list[Json] | None, other: Pod, namespace: str) -> bool:
    return not peers or any(_is_peer(peer, other, namespace) for peer in peers)


def _is_peer(peer: Json, other: Pod, namespace: str) -> bool:
    """``namespace`` is the policy's, in which a peer is that names no other."""
    if "ipBlock" in peer:
        network = ipaddress.ip_network(peer["ipBlock"]["cidr"])
        return bool(other.address) and ipaddress.ip_address(other.address) in network
    if not other.namespace:
        return False
    if "namespaceSelector" in peer:
        inside = selects(peer["namespaceSelector"], {NAMESPACE_LABEL: other.namespace})
    else:
        inside = other.namespace == namespace
    return inside and selects(peer.get("podSelector"), dict(other.labels))
