"""The manifest of the demo's own Pod: it sends the traffic from inside the cluster and leaves evidence on the storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fraud_contracts import config, names
from fraud_local.demo.demo_cluster import DemoCluster

NAME = "demo-traffic"
CODE = "/opt/demo"
# The traffic goes on until this file lies beside its input.
STOP = "stop"
MODULES = ("drive.py", "evidence.py", "leaks.py", "leaks_stores.py")


def code(namespace: str) -> dict[str, Any]:
    """The Pod's own modules as a ConfigMap, since no image holds the demo."""
    folder = Path(__file__).parent
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME, "namespace": namespace},
        "data": {name: (folder / name).read_text() for name in MODULES},
    }


def manifest(
    detector: str, namespace: str, cluster: DemoCluster, rate: float, settle: float, until_stopped: bool
) -> dict[str, Any]:
    """A Pod of the serving image with the detector's own configuration and Secrets; it ends by itself."""
    storage = str(cluster.storage)
    arguments = [
        "--input", f"{storage}/demo/live.jsonl.gz", "--out", f"{storage}/demo/evidence",
        "--rate", str(rate), "--settle", str(settle), "--url", f"http://{names.decision_service(detector)}:{config.HTTP_PORT}",
    ]  # fmt: skip
    if until_stopped:
        arguments += ["--stop", f"{storage}/demo/{STOP}"]
    # The image's own path must stay, and Kubernetes can't refer to it.
    start = f'PYTHONPATH={CODE}:$PYTHONPATH exec python -m fraud_local.demo.drive "$@"'
    files = [{"key": name, "path": f"fraud_local/demo/{name}"} for name in MODULES]
    secrets = [{"secretRef": {"name": names.keys(detector)}}, {"secretRef": {"name": names.stores(detector)}}]
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
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000},
            "containers": [
                {
                    "name": "traffic",
                    "image": "fraud-platform/serving:dev",
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sh", "-c", start, "drive", *arguments],
                    "env": [{"name": config.CONFIG_ENV, "value": config.CONFIG_PATH}],
                    "envFrom": secrets,
                    "volumeMounts": [
                        {"name": "code", "mountPath": CODE},
                        {"name": "config", "mountPath": "/etc/fraud/config"},
                        {"name": "storage", "mountPath": storage},
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
                {"name": "config", "configMap": {"name": names.config(detector)}},
                {"name": "storage", "hostPath": {"path": storage, "type": "Directory"}},
                {"name": "tmp", "emptyDir": {}},
            ],
        },
    }
