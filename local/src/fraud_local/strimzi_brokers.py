"""The brokers that the Strimzi stand-in runs: their settings, a ConfigMap for each, a StatefulSet for each pool. Pure.

The StatefulSet takes the place of Strimzi's StrimziPodSet, by the same name, labels and owner. As there, a Pod needs its account and
its own ConfigMap: without them it doesn't start.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from fraud_local import paths
from fraud_local.api_client import Json
from fraud_local.strimzi_objects import (
    AGENT_PORT,
    CONTROLLER_PORT,
    METRICS_PORT,
    REPLICATION_PORT,
    SCRAM,
    component,
    container_security,
    listeners,
    pod_settings,
    port_name,
    selector,
    thing,
)
from fraud_local.strimzi_pki import principal

DATA = "/var/lib/kafka"
CONFIG = "/etc/kafka"
IMAGE = "fraud-platform/kafka:dev"
# The listeners of nodes and operators among themselves.
INNER = ("CONTROLPLANE-9090", "REPLICATION-9091")
SCRAM_MODULE = "org.apache.kafka.common.security.scram.ScramLoginModule"
# Of each node's heap, where several share this machine: on a real cluster each has a machine to itself.
SHARED_HEAP = "320m"
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
# Kafka reads key and certificate from one file. Storage that was formatted by an earlier Pod is kept.
RUN = r"""#!/bin/bash
set -e
cd "/etc/kafka/${HOSTNAME##*-}"
cat tls.key tls.crt >/tmp/keystore.pem
mkdir -p "$(sed -n 's/^log.dirs=//p' server.config)"
JAVA="$JAVA_HOME/bin/java"
export CLASSPATH="$KAFKA_LIBS/*"
"$JAVA" -Xmx256m -XX:TieredStopAtLevel=1 -Dlog4j2.configurationFile="$PWD/log4j2.xml" kafka.tools.StorageTool format \
  --ignore-formatted -t "$(cat cluster.id)" -c server.config
# The second compiler would take both cores of a small node for minutes before it paid for itself.
exec "$JAVA" $KAFKA_HEAP_OPTS -XX:+UseG1GC -XX:TieredStopAtLevel=1 -Dlog4j2.configurationFile="$PWD/log4j2.xml" kafka.Kafka server.config
"""


def user_config(config: Json) -> dict[str, str]:
    """The user's broker settings less the forbidden ones."""

    def text(value: Any) -> str:
        return str(value).lower() if isinstance(value, bool) else str(value)

    return {
        key: text(value)
        for key, value in config.items()
        if key.startswith(ALLOWED_CONFIG) or not key.startswith(FORBIDDEN_CONFIG)
    }


def pod_name(kafka: Json, pool: Json, node: int) -> str:
    return f"{kafka['metadata']['name']}-{pool['metadata']['name']}-{node}"


def host(kafka: Json, pool: Json, node: int) -> str:
    cluster, namespace = kafka["metadata"]["name"], kafka["metadata"]["namespace"]
    return f"{pod_name(kafka, pool, node)}.{cluster}-kafka-brokers.{namespace}.svc"


def _name(listener: Json) -> str:
    return f"{listener['name'].upper()}-{listener['port']}"


def _protocol(listener: Json) -> str:
    transport = "SSL" if listener.get("tls") else "PLAINTEXT"
    return f"SASL_{transport}" if listener.get("authentication") else transport


def _security(kafka: Json, node: int) -> dict[str, str]:
    """Certificates of all listeners, logins of the clients', and who may do what. The inner ones are for bearers of our certificates."""
    spec, cluster = kafka["spec"]["kafka"], kafka["metadata"]["name"]
    properties = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": "/tmp/keystore.pem",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": f"{CONFIG}/{node}/ca.crt",
        # The first compiler, which is all that these brokers have, makes AES of 134 µs for a record of 1.5 KB, and this of 33.
        "ssl.cipher.suites": "TLS_CHACHA20_POLY1305_SHA256",
        **{f"listener.name.{name.lower()}.ssl.client.auth": "required" for name in INNER},
    }
    for one in listeners(kafka):
        if one.get("authentication"):
            prefix = f"listener.name.{_name(one).lower()}"
            properties[f"{prefix}.sasl.enabled.mechanisms"] = SCRAM.upper()
            properties[f"{prefix}.{SCRAM}.sasl.jaas.config"] = f"{SCRAM_MODULE} required;"
    if spec.get("authorization"):
        own = [f"{cluster}-kafka", f"{cluster}-entity-topic-operator", f"{cluster}-entity-user-operator"]
        users = [principal(name) for name in (*own, "cluster-operator")]
        users += spec["authorization"].get("superUsers") or []
        properties["authorizer.class.name"] = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
        properties["super.users"] = ";".join(f"User:{user}" for user in users)
    return properties


def certificate_hosts(kafka: Json, pools: Sequence[Json], ids: dict[str, list[int]]) -> dict[str, list[str]]:
    """By Pod the names under which clients and other nodes reach it."""
    cluster, namespace = kafka["metadata"]["name"], kafka["metadata"]["namespace"]
    shared = [f"{cluster}-kafka-{service}.{namespace}.svc" for service in ("bootstrap", "brokers")]
    hosts = {}
    for pool in pools:
        for node in ids[pool["metadata"]["name"]]:
            own = [*shared, host(kafka, pool, node)]
            hosts[pod_name(kafka, pool, node)] = [*own, *(f"{name}.cluster.local" for name in own)]
    return hosts


def server_properties(kafka: Json, pool: Json, node: int, voters: Sequence[tuple[int, str]]) -> str:
    """One node's settings."""
    roles, domain = pool["spec"]["roles"], host(kafka, pool, node)
    own: list[tuple[str, int]] = []
    if "controller" in roles:
        own.append(("CONTROLPLANE-9090", CONTROLLER_PORT))
    if "broker" in roles:
        own.append(("REPLICATION-9091", REPLICATION_PORT))
        own += [(_name(one), one["port"]) for one in listeners(kafka)]
    advertised = [one for one in own if one[1] != CONTROLLER_PORT] or own
    names = {"CONTROLPLANE-9090", "REPLICATION-9091", *(name for name, _ in own)}
    protocols = dict.fromkeys(INNER, "SSL") | {_name(one): _protocol(one) for one in listeners(kafka)}
    properties = {
        "node.id": str(node),
        "process.roles": ",".join(sorted(roles)),
        "listeners": ",".join(f"{name}://0.0.0.0:{port}" for name, port in own),
        "advertised.listeners": ",".join(f"{name}://{domain}:{port}" for name, port in advertised),
        "listener.security.protocol.map": ",".join(f"{name}:{protocols[name]}" for name in sorted(names)),
        **_security(kafka, node),
        "controller.listener.names": "CONTROLPLANE-9090",
        "controller.quorum.voters": ",".join(f"{node}@{host}:{CONTROLLER_PORT}" for node, host in voters),
        "log.dirs": f"{DATA}/data-0/kafka-log{node}",
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
    kafka: Json,
    pools: Sequence[Json],
    ids: dict[str, list[int]],
    cluster_id: str,
    certificates: Mapping[str, str],
) -> list[Json]:
    """A ConfigMap for each node, and what runs each pool. All of it belongs to the pool.

    ``certificates`` is by Pod a digest of what its Secret holds: other ones restart it.
    """
    voters = [
        (node, host(kafka, pool, node))
        for pool in pools
        if "controller" in pool["spec"]["roles"]
        for node in ids[pool["metadata"]["name"]]
    ]
    heap = SHARED_HEAP if sum(map(len, ids.values())) > 1 else ""
    things = []
    for pool in pools:
        nodes = ids[pool["metadata"]["name"]]
        data = {node: _data(kafka, pool, node, voters, cluster_id) for node in nodes}
        labels = component(kafka, "kafka") | {"strimzi.io/pool-name": pool["metadata"]["name"]}
        for node in nodes:
            name = pod_name(kafka, pool, node)
            things.append(
                thing(pool, "v1", "ConfigMap", name, labels | {"strimzi.io/pod-name": name}, data=data[node])
            )
        name = f"{kafka['metadata']['name']}-{pool['metadata']['name']}"
        own = [certificates[pod_name(kafka, pool, node)] for node in nodes]
        spec = _stateful_set(kafka, pool, labels, data, heap, own)
        things.append(thing(pool, "apps/v1", "StatefulSet", name, labels, spec=spec))
    return things


def _data(
    kafka: Json, pool: Json, node: int, voters: Sequence[tuple[int, str]], cluster_id: str
) -> dict[str, str]:
    return {
        "cluster.id": cluster_id,
        "metadata.version": metadata_version(),
        "server.config": server_properties(kafka, pool, node, voters),
        "log4j2.xml": LOGGING,
        "run.sh": RUN,
    }


def metadata_version() -> str:
    return f"{'.'.join(paths.KAFKA_VERSION.split('.')[:2])}-IV0"


def _stateful_set(
    kafka: Json,
    pool: Json,
    labels: dict[str, str],
    data: dict[int, dict[str, str]],
    most: str,
    certificates: Sequence[str],
) -> Json:
    """``most``: the heap in place of the one asked for; empty where that will do."""
    cluster, roles = kafka["metadata"]["name"], pool["spec"]["roles"]
    template = (pool["spec"].get("template") or {}) | (kafka["spec"]["kafka"].get("template") or {})
    pod = template.get("pod") or {}
    volumes, mounts, claims = _storage(pool)
    options = pool["spec"].get("jvmOptions") or kafka["spec"]["kafka"].get("jvmOptions") or {}
    heap = f"-Xms{most or options.get('-Xms', '256m')} -Xmx{most or options.get('-Xmx', '512m')}"
    own = listeners(kafka) if "broker" in roles else []
    ports = [("tcp-kafkaagent", AGENT_PORT), ("tcp-ctrlplane", CONTROLLER_PORT)]
    if own:
        ports += [("tcp-replication", REPLICATION_PORT), *((port_name(one), one["port"]) for one in own)]
    if kafka["spec"]["kafka"].get("metricsConfig"):
        ports.append(("tcp-prometheus", METRICS_PORT))
    ready = {
        "tcpSocket": {"port": own[0]["port"] if own else CONTROLLER_PORT},
        "periodSeconds": 2,
        "failureThreshold": 60,
    }
    container = {
        "name": "kafka",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/bash", "-c", 'exec bash "/etc/kafka/${HOSTNAME##*-}/run.sh"'],
        "env": [
            {"name": "KAFKA_CLUSTER_NAME", "value": cluster},
            {"name": "KAFKA_HEAP_OPTS", "value": heap},
        ],
        "ports": [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in ports],
        "readinessProbe": ready,
        "resources": pool["spec"].get("resources") or kafka["spec"]["kafka"].get("resources") or {},
        **container_security(template.get("kafkaContainer")),
        "volumeMounts": [
            {"name": "kafka-metrics-and-logging", "mountPath": CONFIG},
            {"name": "strimzi-tmp", "mountPath": "/tmp"},
            *mounts,
        ],
    }
    # Each node's files in a folder of its own: a StatefulSet's Pods all have the same volumes.
    sources = [
        {
            "configMap": {
                "name": pod_name(kafka, pool, node),
                "items": [{"key": key, "path": f"{node}/{key}"} for key in files],
            }
        }
        for node, files in data.items()
    ]
    sources += [source for node in data for source in _certificate_files(kafka, pool, node)]
    configuration = json.dumps([data, heap, certificates], sort_keys=True).encode()
    more = pod.get("metadata") or {}
    return {
        "replicas": len(data),
        "ordinals": {"start": min(data, default=0)},
        "serviceName": f"{cluster}-kafka-brokers",
        "podManagementPolicy": "Parallel",
        "selector": {
            "matchLabels": {**selector(kafka, "kafka"), "strimzi.io/pool-name": pool["metadata"]["name"]}
        },
        "template": {
            "metadata": {
                "labels": {
                    **labels,
                    "strimzi.io/broker-role": str("broker" in roles).lower(),
                    "strimzi.io/controller-role": str("controller" in roles).lower(),
                    "strimzi.io/controller": "strimzipodset",
                    "strimzi.io/controller-name": f"{cluster}-{pool['metadata']['name']}",
                    **more.get("labels", {}),
                },
                "annotations": {
                    "strimzi.io/configuration-hash": hashlib.sha256(configuration).hexdigest()[:8],
                    "strimzi.io/kafka-version": paths.KAFKA_VERSION,
                    **more.get("annotations", {}),
                },
            },
            "spec": {
                "containers": [container],
                "automountServiceAccountToken": False,
                "serviceAccountName": f"{cluster}-kafka",
                "enableServiceLinks": False,
                **pod_settings(pod, persistent=bool(claims)),
                "terminationGracePeriodSeconds": pod.get("terminationGracePeriodSeconds", 30),
                "volumes": [
                    {"name": "kafka-metrics-and-logging", "projected": {"sources": sources}},
                    {"name": "strimzi-tmp", "emptyDir": {}},
                    *volumes,
                ],
            },
        },
        "volumeClaimTemplates": claims,
    }


def _certificate_files(kafka: Json, pool: Json, node: int) -> list[Json]:
    """From the Secret of the Pod's name, and of the authority that vouches for all nodes."""
    pod, authority = pod_name(kafka, pool, node), f"{kafka['metadata']['name']}-cluster-ca-cert"
    files = {f"{pod}.key": "tls.key", f"{pod}.crt": "tls.crt"}
    items = [{"key": key, "path": f"{node}/{file}"} for key, file in files.items()]
    return [
        {"secret": {"name": pod, "items": items}},
        {"secret": {"name": authority, "items": [{"key": "ca.crt", "path": f"{node}/ca.crt"}]}},
    ]


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
