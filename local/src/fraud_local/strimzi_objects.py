"""What the Strimzi stand-in makes of a Kafka and its node pools. Pure.

Names, labels and ports are those of Strimzi 1.2.0, so what reads them can't tell the difference; one
StatefulSet per pool takes the place of a StrimziPodSet.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from fraud_local.kube import Json, owner

API = "kafka.strimzi.io/v1"
CLUSTER_LABEL = "strimzi.io/cluster"
CONTROLLER_PORT = 9090
REPLICATION_PORT = 9091
DATA = "/var/lib/kafka"
IMAGE = "fraud-platform/kafka:dev"
# What a user may not set, as in Strimzi: it would take the cluster apart.
FORBIDDEN_CONFIG = (
    "listeners",
    "advertised.",
    "broker.",
    "listener.",
    "node.id",
    "process.roles",
    "controller",
    "log.dir",
    "security.",
    "sasl.",
    "ssl.",
    "authorizer.",
)
ALLOWED_CONFIG = ("controller.quorum.election", "controller.quorum.fetch")
LOGGING = """<Configuration><Appenders><Console name="console"><PatternLayout pattern="%d %p %c{1} %m%n"/></Console></Appenders>
<Loggers><Root level="INFO"><AppenderRef ref="console"/></Root></Loggers></Configuration>
"""
# The ordinal is the node's id; storage that was formatted by an earlier Pod is kept.
RUN = r"""#!/bin/bash
set -e
ID=${HOSTNAME##*-}
DIRECTORY="$KAFKA_DATA/kafka-log$ID"
mkdir -p "$DIRECTORY"
sed "s#@ID@#$ID#g; s#@POD@#$HOSTNAME#g; s#@DIRECTORY@#$DIRECTORY#g" /etc/kafka/server.properties > /tmp/server.properties
JAVA="$JAVA_HOME/bin/java"
export CLASSPATH="$KAFKA_LIBS/*"
"$JAVA" -Xmx256m -XX:TieredStopAtLevel=1 -Dlog4j2.configurationFile=/etc/kafka/log4j2.xml kafka.tools.StorageTool format \
  --ignore-formatted -t "$CLUSTER_ID" -c /tmp/server.properties
# The second compiler would take both cores of a small node for minutes before it paid for itself.
exec "$JAVA" $KAFKA_HEAP_OPTS -XX:+UseG1GC -XX:TieredStopAtLevel=1 -Dlog4j2.configurationFile=/etc/kafka/log4j2.xml kafka.Kafka /tmp/server.properties
"""


def component_labels(cluster: str, pool: Json | None = None) -> dict[str, str]:
    base = {
        CLUSTER_LABEL: cluster,
        "strimzi.io/kind": "Kafka",
        "strimzi.io/name": f"{cluster}-kafka",
        "app.kubernetes.io/name": "kafka",
        "app.kubernetes.io/instance": cluster,
        "app.kubernetes.io/managed-by": "strimzi-cluster-operator",
    }
    if pool is None:
        return base
    roles = pool["spec"]["roles"]
    return {
        **base,
        "strimzi.io/pool-name": pool["metadata"]["name"],
        "strimzi.io/broker-role": str("broker" in roles).lower(),
        "strimzi.io/controller-role": str("controller" in roles).lower(),
    }


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
    """Internal listeners without TLS; the node's clients are all inside it."""
    return [
        one
        for one in kafka["spec"]["kafka"]["listeners"]
        if one.get("type") == "internal" and not one.get("tls")
    ]


def unsupported(kafka: Json) -> str | None:
    """Why this stand-in can't run what is asked for; None if it can."""
    for one in kafka["spec"]["kafka"]["listeners"]:
        if one.get("type") != "internal" or one.get("tls") or one.get("authentication"):
            return f"listener {one.get('name')}: the local stand-in has internal listeners without TLS or authentication only"
    return None


def user_config(config: Json) -> dict[str, str]:
    """The user's broker settings less the forbidden ones."""

    def text(value: Any) -> str:
        return str(value).lower() if isinstance(value, bool) else str(value)

    return {
        key: text(value)
        for key, value in config.items()
        if key.startswith(ALLOWED_CONFIG) or not key.startswith(FORBIDDEN_CONFIG)
    }


def server_properties(kafka: Json, pool: Json, voters: Sequence[tuple[int, str]]) -> str:
    """A node's settings, with the id, Pod name and directory left for the start script."""
    cluster, namespace = kafka["metadata"]["name"], kafka["metadata"]["namespace"]
    roles = pool["spec"]["roles"]
    domain = f"@POD@.{cluster}-kafka-brokers.{namespace}.svc"
    own: list[tuple[str, str, int]] = []
    if "controller" in roles:
        own.append(("CONTROLPLANE-9090", "CONTROLPLANE-9090", CONTROLLER_PORT))
    if "broker" in roles:
        own.append(("REPLICATION-9091", "REPLICATION-9091", REPLICATION_PORT))
        own += [
            (f"{one['name'].upper()}-{one['port']}", one["name"], one["port"]) for one in listeners(kafka)
        ]
    advertised = [(name, port) for name, _, port in own if name != "CONTROLPLANE-9090"] or [
        ("CONTROLPLANE-9090", CONTROLLER_PORT)
    ]
    names = {"CONTROLPLANE-9090", "REPLICATION-9091", *(name for name, _, _ in own)}
    properties = {
        "process.roles": ",".join(sorted(roles)),
        "node.id": "@ID@",
        "listeners": ",".join(f"{name}://0.0.0.0:{port}" for name, _, port in own),
        "advertised.listeners": ",".join(f"{name}://{domain}:{port}" for name, port in advertised),
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in sorted(names)),
        "controller.listener.names": "CONTROLPLANE-9090",
        "controller.quorum.voters": ",".join(f"{node}@{host}:{CONTROLLER_PORT}" for node, host in voters),
        "log.dirs": "@DIRECTORY@",
        # A broker of the local node is small and alone; these are its ergonomics, not its behaviour.
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.num.partitions": "4",
        "group.initial.rebalance.delay.ms": "0",
        "log.cleaner.dedupe.buffer.size": "16777216",
        "num.network.threads": "2",
        "num.io.threads": "4",
        "background.threads": "2",
        **({"inter.broker.listener.name": "REPLICATION-9091"} if "broker" in roles else {}),
        **user_config(kafka["spec"]["kafka"].get("config", {})),
    }
    return "".join(f"{key}={value}\n" for key, value in properties.items())


def build(
    kafka: Json, pools: Sequence[Json], ids: dict[str, list[int]], cluster_id: str, image: str = IMAGE
) -> list[Json]:
    """Every object of a cluster: Services, and per pool a ConfigMap and a StatefulSet."""
    cluster, namespace = kafka["metadata"]["name"], kafka["metadata"]["namespace"]
    voters = [
        (node, f"{cluster}-{pool['metadata']['name']}-{node}.{cluster}-kafka-brokers.{namespace}.svc")
        for pool in pools
        if "controller" in pool["spec"]["roles"]
        for node in ids[pool["metadata"]["name"]]
    ]
    objects = [_bootstrap(kafka), _headless(kafka)]
    for pool in pools:
        data = {
            "server.properties": server_properties(kafka, pool, voters),
            "log4j2.xml": LOGGING,
            "run.sh": RUN,
        }
        objects += [
            _config(kafka, pool, data),
            _stateful_set(kafka, pool, ids[pool["metadata"]["name"]], data, cluster_id, image),
        ]
    return objects


def _meta(kafka: Json, name: str, labels: dict[str, str]) -> Json:
    return {
        "name": name,
        "namespace": kafka["metadata"]["namespace"],
        "labels": labels,
        "ownerReferences": [owner(kafka)],
    }


def _service_ports(kafka: Json) -> list[Json]:
    ports = [
        ("tcp-replication", REPLICATION_PORT),
        *((f"tcp-{one['name']}", one["port"]) for one in listeners(kafka)),
    ]
    return [{"name": name, "port": port, "targetPort": port, "protocol": "TCP"} for name, port in ports]


def _bootstrap(kafka: Json) -> Json:
    cluster = kafka["metadata"]["name"]
    labels = component_labels(cluster)
    selector = {
        CLUSTER_LABEL: cluster,
        "strimzi.io/kind": "Kafka",
        "strimzi.io/name": f"{cluster}-kafka",
        "strimzi.io/broker-role": "true",
    }
    spec = {"type": "ClusterIP", "selector": selector, "ports": _service_ports(kafka)}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _meta(kafka, f"{cluster}-kafka-bootstrap", labels),
        "spec": spec,
    }


def _headless(kafka: Json) -> Json:
    cluster = kafka["metadata"]["name"]
    labels = component_labels(cluster)
    ports = [
        {"name": "tcp-ctrlplane", "port": CONTROLLER_PORT, "targetPort": CONTROLLER_PORT, "protocol": "TCP"},
        *_service_ports(kafka),
    ]
    selector = {CLUSTER_LABEL: cluster, "strimzi.io/kind": "Kafka", "strimzi.io/name": f"{cluster}-kafka"}
    spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": selector, "ports": ports}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _meta(kafka, f"{cluster}-kafka-brokers", labels),
        "spec": spec,
    }


def _config(kafka: Json, pool: Json, data: dict[str, str]) -> Json:
    cluster = kafka["metadata"]["name"]
    name = f"{cluster}-{pool['metadata']['name']}-config"
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _meta(kafka, name, component_labels(cluster, pool)),
        "data": data,
    }


def _stateful_set(
    kafka: Json, pool: Json, ids: list[int], data: dict[str, str], cluster_id: str, image: str
) -> Json:
    cluster = kafka["metadata"]["name"]
    name = f"{cluster}-{pool['metadata']['name']}"
    labels = component_labels(cluster, pool)
    template = (pool["spec"].get("template") or kafka["spec"]["kafka"].get("template") or {}).get("pod", {})
    volumes, mounts, claims = _storage(pool)
    options = pool["spec"].get("jvmOptions") or kafka["spec"]["kafka"].get("jvmOptions") or {}
    heap = f"-Xms{options.get('-Xms', '256m')} -Xmx{options.get('-Xmx', '512m')}"
    first_port = listeners(kafka)[0]["port"] if "broker" in pool["spec"]["roles"] else CONTROLLER_PORT
    ports = (
        [CONTROLLER_PORT]
        if "broker" not in pool["spec"]["roles"]
        else [one["port"] for one in listeners(kafka)]
    )
    probe = {"tcpSocket": {"port": first_port}, "periodSeconds": 2, "failureThreshold": 60}
    container = {
        "name": "kafka",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/bash", "/etc/kafka/run.sh"],
        "env": [
            {"name": "CLUSTER_ID", "value": cluster_id},
            {"name": "KAFKA_HEAP_OPTS", "value": heap},
            {"name": "KAFKA_DATA", "value": f"{DATA}/data-0"},
        ],
        "ports": [{"name": f"tcp-{port}", "containerPort": port, "protocol": "TCP"} for port in ports],
        "readinessProbe": probe,
        "resources": pool["spec"].get("resources") or kafka["spec"]["kafka"].get("resources") or {},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/kafka"},
            {"name": "tmp", "mountPath": "/tmp"},
            *mounts,
        ],
    }
    annotations = {
        "strimzi.io/config-hash": hashlib.sha256(
            json.dumps([data, heap], sort_keys=True).encode()
        ).hexdigest()[:12]
    }
    pod = {
        "metadata": {
            "labels": {**labels, **template.get("metadata", {}).get("labels", {})},
            "annotations": {**annotations, **template.get("metadata", {}).get("annotations", {})},
        },
        "spec": {
            "containers": [container],
            "enableServiceLinks": False,
            "securityContext": {"runAsUser": 1001, "runAsGroup": 1001, "fsGroup": 1001, "runAsNonRoot": True},
            "terminationGracePeriodSeconds": template.get("terminationGracePeriodSeconds", 30),
            "volumes": [
                {"name": "config", "configMap": {"name": f"{name}-config"}},
                {"name": "tmp", "emptyDir": {}},
                *volumes,
            ],
        },
    }
    spec: Json = {
        "replicas": len(ids),
        "ordinals": {"start": ids[0] if ids else 0},
        "serviceName": f"{cluster}-kafka-brokers",
        "podManagementPolicy": "Parallel",
        "selector": {
            "matchLabels": {CLUSTER_LABEL: cluster, "strimzi.io/pool-name": pool["metadata"]["name"]}
        },
        "template": pod,
        "volumeClaimTemplates": claims,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": _meta(kafka, name, labels),
        "spec": spec,
    }


def _storage(pool: Json) -> tuple[list[Json], list[Json], list[Json]]:
    """Volumes, mounts and claims of a pool's first volume; ``data-0`` is Strimzi's name for it."""
    storage = pool["spec"]["storage"]
    volume = storage["volumes"][0] if storage["type"] == "jbod" else storage
    mounts = [{"name": "data-0", "mountPath": f"{DATA}/data-0"}]
    if volume["type"] == "ephemeral":
        return [{"name": "data-0", "emptyDir": {}}], mounts, []
    spec: Json = {
        "accessModes": ["ReadWriteOnce"],
        "volumeMode": "Filesystem",
        "resources": {"requests": {"storage": volume["size"]}},
    }
    if volume.get("class"):
        spec["storageClassName"] = volume["class"]
    return (
        [],
        mounts,
        [{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data-0"}, "spec": spec}],
    )
