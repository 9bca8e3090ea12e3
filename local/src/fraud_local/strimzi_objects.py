"""What the Strimzi stand-in makes of a Kafka beside its brokers: Services, accounts, rights, policies, budgets. Pure.

Names, labels, owners and ports are those that Strimzi 1.2.0 was seen to write: all of a Kafka's own labels but ``app.kubernetes.io/*``
stand on everything made of it, and nobody is its controller.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fraud_local.api_client import Json, owner

API = "kafka.strimzi.io/v1"
CLUSTER_LABEL = "strimzi.io/cluster"
AGENT_PORT = 8443
CONTROLLER_PORT = 9090
REPLICATION_PORT = 9091
METRICS_PORT = 9404
# Ports whose Strimzi name is not made of their listener's.
PORT_NAMES = {("plain", 9092): "tcp-clients", ("tls", 9093): "tcp-clientstls"}
APP = "app.kubernetes.io/"
SCRAM = "scram-sha-512"
# Of a template's Pod: what Strimzi puts into the Pod's spec as it stands.
_OF_THE_POD = (
    "imagePullSecrets",
    "tolerations",
    "affinity",
    "topologySpreadConstraints",
    "priorityClassName",
)


def component(kafka: Json, kind: str) -> dict[str, str]:
    """Labels of one part (``kafka``, ``entity-operator``, ``entity-topic-operator``), the Kafka's own ones first."""
    cluster = kafka["metadata"]["name"]
    own = kafka["metadata"].get("labels") or {}
    return {
        **{key: value for key, value in own.items() if not key.startswith(APP)},
        CLUSTER_LABEL: cluster,
        "strimzi.io/component-type": kind,
        "strimzi.io/kind": "Kafka",
        "strimzi.io/name": f"{cluster}-{kind}",
        f"{APP}name": kind,
        f"{APP}instance": cluster,
        f"{APP}part-of": f"strimzi-{cluster}",
        f"{APP}managed-by": "strimzi-cluster-operator",
    }


def selector(kafka: Json, kind: str) -> dict[str, str]:
    """What finds the Pods of one part."""
    labels = component(kafka, kind)
    return {key: labels[key] for key in (CLUSTER_LABEL, "strimzi.io/kind", "strimzi.io/name")}


def thing(owning: Json, api: str, kind: str, name: str, labels: dict[str, str], **rest: Any) -> Json:
    """An object that goes with ``owning``, a Kafka or a KafkaNodePool."""
    meta = {
        "name": name,
        "namespace": owning["metadata"]["namespace"],
        "labels": labels,
        "ownerReferences": [owner(owning)],
    }
    return {"apiVersion": api, "kind": kind, "metadata": meta, **rest}


def pod_settings(template: Json | None, *, persistent: bool = False) -> Json:
    """What a template asks of a Pod. ``persistent``: it has a claim, which it may write to by Strimzi's own group, unless told otherwise."""
    asked = template or {}
    security = asked.get("securityContext") or ({"fsGroup": 0} if persistent else {})
    return {"securityContext": dict(security), **{key: asked[key] for key in _OF_THE_POD if key in asked}}


def container_security(template: Json | None) -> Json:
    """By default none: namespaces that enforce more than ``baseline`` refuse Strimzi's Pods as they are."""
    context = (template or {}).get("securityContext")
    return {"securityContext": context} if context else {}


def node_ids(pools: Sequence[Json]) -> dict[str, list[int]]:
    """Ids per pool: those in its status are kept, the rest are the lowest free ones in a row."""
    taken = {node for pool in pools for node in (pool.get("status") or {}).get("nodeIds", [])}
    result: dict[str, list[int]] = {}
    for pool in pools:
        wanted, kept = (
            pool["spec"]["replicas"],
            list((pool.get("status") or {}).get("nodeIds", []))[: pool["spec"]["replicas"]],
        )
        start = kept[0] if kept else 0
        if not kept:
            while any(node in taken for node in range(start, start + wanted)):
                start += 1
        result[pool["metadata"]["name"]] = list(range(start, start + wanted))
        taken.update(result[pool["metadata"]["name"]])
    return result


def listeners(kafka: Json) -> list[Json]:
    """Internal ones; the node's clients are all inside it."""
    return [one for one in kafka["spec"]["kafka"]["listeners"] if one.get("type") == "internal"]


def unsupported(kafka: Json) -> str | None:
    """Why this stand-in can't run what is asked for; None if it can."""
    for one in kafka["spec"]["kafka"]["listeners"]:
        login = (one.get("authentication") or {}).get("type")
        if one.get("type") != "internal" or login not in (None, SCRAM):
            return f"listener {one.get('name')}: the local stand-in has internal listeners with {SCRAM} or without authentication only"
    authorization = (kafka["spec"]["kafka"].get("authorization") or {}).get("type")
    if authorization not in (None, "simple"):
        return f"authorization {authorization}: the local stand-in has simple authorization only"
    return None


def port_name(listener: Json) -> str:
    return PORT_NAMES.get((listener["name"], listener["port"]), f"tcp-{listener['name']}")


def build(kafka: Json, pods: Sequence[str]) -> list[Json]:
    """What a cluster needs before its nodes, whose Pods have these names; in Strimzi's order."""
    cluster, labels = kafka["metadata"]["name"], component(kafka, "kafka")
    name, matching = f"{cluster}-kafka", selector(kafka, "kafka")
    own = [(port_name(one), one["port"]) for one in listeners(kafka)]
    replication = ("tcp-replication", REPLICATION_PORT)
    secrets = {
        "apiGroups": [""],
        "resources": ["secrets"],
        "resourceNames": [f"{cluster}-trustbundle", f"{cluster}-cluster-ca-cert", *pods],
        "verbs": ["get"],
    }
    headless = [("tcp-ctrlplane", CONTROLLER_PORT), replication, ("tcp-kafkaagent", AGENT_PORT), *own]
    bootstrap = {"type": "ClusterIP", "selector": {**matching, "strimzi.io/broker-role": "true"}}
    brokers = {
        "type": "ClusterIP",
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": matching,
    }
    return [
        policy(kafka, "kafka", f"{cluster}-network-policy-kafka", _doors(kafka)),
        *rights(kafka, "kafka", name, f"{name}-role", labels, [secrets]),
        thing(
            kafka, "v1", "Service", f"{name}-bootstrap", {**labels, "strimzi.io/discovery": "true"},
            spec={**bootstrap, "ports": _ports([replication, *own])},
        ),
        thing(kafka, "v1", "Service", f"{name}-brokers", labels, spec={**brokers, "ports": _ports(headless)}),
        # One may be missing.
        budget(kafka, "kafka", name, {"minAvailable": max(0, len(pods) - 1)}),
    ]  # fmt: skip


def rights(
    kafka: Json, kind: str, name: str, binding: str, binding_labels: dict[str, str], rules: Sequence[Json]
) -> list[Json]:
    """An account with a Role of its name."""
    labels, api = component(kafka, kind), "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "name": name, "namespace": kafka["metadata"]["namespace"]}
    reference = {"apiGroup": api, "kind": "Role", "name": name}
    return [
        thing(kafka, "v1", "ServiceAccount", name, labels),
        thing(kafka, f"{api}/v1", "Role", name, labels, rules=list(rules)),
        thing(
            kafka, f"{api}/v1", "RoleBinding", binding, binding_labels, roleRef=reference, subjects=[subject]
        ),
    ]


def policy(kafka: Json, kind: str, name: str, ingress: Sequence[Json]) -> Json:
    spec = {
        "podSelector": {"matchLabels": selector(kafka, kind)},
        "policyTypes": ["Ingress"],
        "ingress": list(ingress),
    }
    return thing(kafka, "networking.k8s.io/v1", "NetworkPolicy", name, component(kafka, kind), spec=spec)


def budget(kafka: Json, kind: str, name: str, limit: Json) -> Json:
    spec = {**limit, "selector": {"matchLabels": selector(kafka, kind)}}
    return thing(kafka, "policy/v1", "PodDisruptionBudget", name, component(kafka, kind), spec=spec)


def _ports(ports: Sequence[tuple[str, int]]) -> list[Json]:
    return [{"name": name, "port": port, "targetPort": name, "protocol": "TCP"} for name, port in ports]


def _doors(kafka: Json) -> list[Json]:
    """Who may reach which port of a node; the metrics are everybody's, and so is a listener that names no peers."""
    cluster = kafka["metadata"]["name"]

    def pods(labels: dict[str, str]) -> Json:
        return {"podSelector": {"matchLabels": labels}}

    operator = {"namespaceSelector": {}, **pods({"strimzi.io/kind": "cluster-operator"})}
    nodes = pods(selector(kafka, "kafka"))
    others = [
        pods({"strimzi.io/name": f"{cluster}-{part}"})
        for part in ("entity-operator", "kafka-exporter", "cruise-control")
    ]

    def door(port: int, *who: Json) -> Json:
        opened: Json = {"ports": [{"port": port, "protocol": "TCP"}]}
        return {"from": list(who), **opened} if who else opened

    metrics = [door(METRICS_PORT)] if kafka["spec"]["kafka"].get("metricsConfig") else []
    return [
        door(CONTROLLER_PORT, nodes, operator),
        door(REPLICATION_PORT, operator, nodes, *others),
        door(AGENT_PORT, operator),
        *(door(one["port"], *one.get("networkPolicyPeers", [])) for one in listeners(kafka)),
        *metrics,
    ]
