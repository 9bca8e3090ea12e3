"""The manifest of the demo's own Pod: it sends the traffic from inside the cluster and leaves evidence in the object store."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from fraud_contracts import config, names
from fraud_contracts.clients import API_KEY
from fraud_local import paths
from fraud_local.demo import places
from fraud_local.demo.kubectl import Kubectl
from fraud_process import kafka

NAME = "demo-traffic"
CODE = "/opt/demo"
LIBRARIES = "/opt/demo-packages"
# The traffic goes on until this file is in the Pod.
STOP = "/tmp/stop"
# While this one is, nothing is sent by the topic.
HOLD = "/tmp/hold"
MODULES = (
    "data.py",
    "drive.py",
    "evidence.py",
    "leaks.py",
    "leaks_objects.py",
    "leaks_stores.py",
    "places.py",
)
# Searches the stores; no image has it, since only the demo needs it.
PACKAGE = "ahocorasick_rs"
PACKAGES = f"{NAME}-packages"
STORES = f"{NAME}-stores"
# The authority that certified the trial stores.
AUTHORITY = "/etc/demo"


def code(namespace: str) -> dict[str, Any]:
    """The Pod's own modules as a ConfigMap, since no image holds the demo."""
    folder = Path(__file__).parent
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME, "namespace": namespace},
        "data": {name: (folder / name).read_text() for name in MODULES},
    }


def package_files() -> dict[str, bytes]:
    """What of the package is imported, by file name, from the environment that the demo has on this machine."""
    folder = paths.site_packages("serving") / PACKAGE
    return {
        path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in (".py", ".so")
    }


def package(namespace: str) -> dict[str, Any]:
    """The package as a ConfigMap of its own: both together are beyond what one may hold."""
    files = {name: base64.b64encode(data).decode() for name, data in package_files().items()}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": PACKAGES, "namespace": namespace},
        "binaryData": files,
    }


def stores(kube: Kubectl, platform: str, namespace: str) -> dict[str, Any]:
    """The trial stores' own logins as a Secret: the search reads what every detector left, which a detector's own login can't."""
    passwords = kube.get("-n", platform, "secret", f"{platform}-stores")["data"]
    redis, postgres, mlflow, authority = (
        base64.b64decode(passwords[key]).decode()
        for key in ("REDIS_PASSWORD", "POSTGRES_PASSWORD", "MLFLOW_PASSWORD", config.CA_CERT)
    )
    file = f"{AUTHORITY}/{config.CA_CERT}"
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": STORES, "namespace": namespace},
        "stringData": {
            config.REDIS_URL: f"rediss://:{redis}@{platform}-redis.{platform}.svc:6379/0?ssl_ca_certs={file}",
            config.POSTGRES_DSN: f"postgresql://fraud:{postgres}@{platform}-postgres.{platform}.svc:5432/postgres"
            f"?sslmode=verify-full&sslrootcert={file}",
            config.MLFLOW_TRACKING_URI: f"http://fraud:{mlflow}@{platform}-mlflow.{platform}.svc:5000",
            config.CA_CERT: authority,
        },
    }


def policies(detector: str, namespace: str, platform: str) -> list[dict[str, Any]]:
    """What lets the Pod in where only a detector's own may: it sends to Kafka, and searches the stores for what mustn't be there."""
    pod = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": NAME}}}
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    brokers = {"matchLabels": {"strimzi.io/cluster": detector}}
    stores = {
        "key": names.COMPONENT_LABEL,
        "operator": "In",
        "values": ["redis", "postgres", "mlflow", "objects"],
    }
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": NAME, "namespace": where},
            "spec": {
                "podSelector": selector,
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [{**here, **pod}]}],
            },
        }
        for where, selector in ((namespace, brokers), (platform, {"matchExpressions": [stores]}))
    ]


def objects(
    kube: Kubectl,
    platform: str,
    detector: str,
    namespace: str,
    folder: str,
    rate: float,
    settle: float,
    until_stopped: bool,
    resend: int,
) -> dict[str, Any]:
    """The Pod, what it imports and what lets it in, as one list. Its image is the decision service's, which has the rest.

    ``folder`` is the demo's, as a URI of the object store.
    """
    service = kube.get("-n", namespace, "deployment", names.decision_service(detector))
    image = service["spec"]["template"]["spec"]["containers"][0]["image"]
    pod = manifest(detector, namespace, folder, image, rate, settle, until_stopped, resend)
    items = [
        code(namespace),
        package(namespace),
        stores(kube, platform, namespace),
        kafka_user(detector, namespace),
        *policies(detector, namespace, platform),
        pod,
    ]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def kafka_user(detector: str, namespace: str) -> dict[str, Any]:
    """Who sends the traffic and reads what came of it: a user as a payment system's own would be (docs/integrate.md)."""
    identity = names.Identity(namespace, detector)

    def rule(kind: str, name: str, *operations: str, pattern: str = "literal") -> dict[str, Any]:
        resource = {"type": kind, "name": name, "patternType": pattern}
        return {"resource": resource, "operations": list(operations)}

    acls = [
        *(
            rule("topic", identity.topic(noun), "Write", "Describe")
            for noun in ("transactions", "label-reports")
        ),
        rule("topic", f"{identity}.", "Read", "Describe", pattern="prefix"),
        rule("group", identity.group("demo-"), "Read", pattern="prefix"),
    ]
    return {
        "apiVersion": "kafka.strimzi.io/v1",
        "kind": "KafkaUser",
        "metadata": {
            "name": NAME,
            "namespace": namespace,
            "labels": {"strimzi.io/cluster": names.kafka(detector)},
        },
        "spec": {
            "authentication": {"type": "scram-sha-512"},
            "authorization": {"type": "simple", "acls": acls},
        },
    }


def kafka_login(detector: str) -> dict[str, Any]:
    """The volume of its login. The user is called as the Pod is."""

    def source(kind: str, name: str, key: str, path: str) -> dict[str, Any]:
        return {kind: {"name": name, "items": [{"key": key, "path": path}]}}

    named = [{"path": kafka.USERNAME, "fieldRef": {"fieldPath": "metadata.name"}}]
    sources = [
        source("secret", NAME, "password", kafka.PASSWORD),
        source("secret", names.kafka_authority(detector), "ca.crt", kafka.AUTHORITY),
        source("configMap", names.config(detector), config.KAFKA_MECHANISM_KEY, kafka.MECHANISM),
        {"downwardAPI": {"items": named}},
    ]
    return {"name": "kafka", "projected": {"sources": sources}}


def manifest(
    detector: str,
    namespace: str,
    folder: str,
    image: str,
    rate: float,
    settle: float,
    until_stopped: bool,
    resend: int,
) -> dict[str, Any]:
    """A Pod with the detector's own configuration and Secrets, and with the stores' own logins; it ends by itself."""
    arguments = [
        "--folder", folder, "--rate", str(rate), "--settle", str(settle), "--resend", str(resend), "--url", f"http://{names.decision_service(detector)}:{config.HTTP_PORT}",
    ]  # fmt: skip
    if until_stopped:
        arguments += ["--stop", STOP, "--hold", HOLD]
    # The image's own path must stay, and Kubernetes can't refer to it.
    start = f'PYTHONPATH={CODE}:{LIBRARIES}${{PYTHONPATH:+:$PYTHONPATH}} exec python -m fraud_local.demo.drive "$@"'
    files = [{"key": name, "path": f"fraud_local/demo/{name}"} for name in MODULES]
    # Of a variable that two of them have the last one's value counts.
    secrets = [
        {"secretRef": {"name": name}} for name in (names.keys(detector), names.stores(detector), STORES)
    ]
    keys = [
        {
            "name": variable,
            "valueFrom": {"secretKeyRef": {"name": names.client(detector, client), "key": API_KEY}},
        }
        for variable, client in places.CLIENT_KEYS.items()
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": NAME,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/name": NAME, names.COMPONENT_LABEL: "demo"},
        },
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "traffic",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sh", "-c", start, "drive", *arguments],
                    "env": [{"name": config.CONFIG_ENV, "value": config.CONFIG_PATH}, *keys],
                    "envFrom": secrets,
                    "volumeMounts": [
                        {"name": "code", "mountPath": CODE},
                        {"name": "packages", "mountPath": f"{LIBRARIES}/{PACKAGE}"},
                        {"name": "config", "mountPath": "/etc/fraud/config"},
                        {"name": "stores", "mountPath": AUTHORITY},
                        {"name": "kafka", "mountPath": config.KAFKA_LOGIN_PATH},
                        {"name": "tmp", "mountPath": "/tmp"},
                    ],
                    "resources": {
                        "requests": {"cpu": "100m", "memory": "256Mi"},
                        "limits": {"cpu": "2", "memory": "4Gi"},
                    },
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
            "volumes": [
                {"name": "code", "configMap": {"name": NAME, "items": files}},
                {"name": "packages", "configMap": {"name": PACKAGES}},
                {"name": "config", "configMap": {"name": names.config(detector)}},
                {
                    "name": "stores",
                    "secret": {
                        "secretName": STORES,
                        "items": [{"key": config.CA_CERT, "path": config.CA_CERT}],
                    },
                },
                kafka_login(detector),
                {"name": "tmp", "emptyDir": {}},
            ],
        },
    }
