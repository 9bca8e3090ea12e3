"""What the demo records of the cluster itself: Pods, operators, conditions, children, model, memory."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from fraud_contracts import names
from fraud_contracts.child_kinds import CHILD_KINDS
from fraud_contracts.lineage import LINEAGES_KEY, Lineages
from fraud_local import paths
from fraud_local.demo.demo_cluster import DemoCluster
from fraud_local.demo.kubectl import Kubectl, KubectlError


def memory_used_mib() -> int:
    """MiB in use on this machine, caches not counted."""
    kib = dict(re.findall(r"^(\w+):\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M))
    return (int(kib["MemTotal"]) - int(kib["MemAvailable"])) // 1024


def node_memory_mib() -> int | None:
    """Peak MiB of the native node, page cache included, from its cgroup; None where there is no such cgroup."""
    for path in (
        Path("/sys/fs/cgroup/memory") / paths.CGROUP / "memory.max_usage_in_bytes",
        Path("/sys/fs/cgroup") / paths.CGROUP / "memory.peak",
    ):
        if path.exists():
            return int(path.read_text()) // 2**20
    return None


def cluster_facts(
    kube: Kubectl, cluster: DemoCluster, detector: str, namespace: str, platform: str
) -> dict[str, Any]:
    resource = kube.get("-n", namespace, f"{names.PLURAL}.{names.GROUP}", detector)
    status = resource.get("status", {})
    release = status.get("release", {})
    return {
        "pods": [
            _pod(item) for ns in (namespace, platform) for item in kube.get("-n", ns, "pods").get("items", [])
        ],
        "operators": list(cluster.operators),
        "conditions": [
            {key: c[key] for key in ("type", "status", "reason", "message", "lastTransitionTime")}
            for c in status.get("conditions", [])
        ],
        "children": _children(kube, namespace, resource.get("metadata", {}).get("uid", "")),
        "model": {
            "version": release.get("model"),
            "digest": release.get("digest"),
            "metrics": _model_metrics(kube, platform, namespace, detector, release.get("model")),
        },
    }


def lineages(kube: Kubectl, detector: str, namespace: str) -> Lineages | None:
    """As the operator keeps them; None where it keeps none yet."""
    pointer = kube.get("-n", namespace, "configmap", names.release_pointer(detector))
    text = (pointer.get("data") or {}).get(LINEAGES_KEY)
    return Lineages.model_validate_json(text) if text else None


def _pod(item: dict[str, Any]) -> dict[str, Any]:
    statuses = item.get("status", {}).get("containerStatuses", [])
    return {
        "namespace": item["metadata"]["namespace"],
        "name": item["metadata"]["name"],
        "image": item["spec"]["containers"][0]["image"],
        "ready": bool(statuses) and all(s["ready"] for s in statuses),
        "phase": item.get("status", {}).get("phase"),
        "restarts": sum(s["restartCount"] for s in statuses),
    }


def _children(kube: Kubectl, namespace: str, uid: str) -> list[dict[str, str]]:
    children = []
    for kind in CHILD_KINDS:
        try:
            # Strimzi copies our labels to what it makes, but not who manages.
            ours = f"{names.UID_LABEL}={uid},app.kubernetes.io/managed-by={names.FIELD_MANAGER}"
            items = kube.get("-n", namespace, kind.resource, "-l", ours).get("items", [])
        except KubectlError:
            continue  # a kind whose CRD isn't installed has no children
        children += [{"kind": item["kind"], "name": item["metadata"]["name"]} for item in items]
    return children


_ASK = """
import base64, json, os, sys, urllib.parse, urllib.request
password = open(os.environ["MLFLOW_PASSWORD_FILE"], "rb").read()
login = base64.b64encode(b"fraud:" + password).decode()
def get(path, **query):
    url = "http://127.0.0.1:5000/api/2.0/mlflow/" + path + "?" + urllib.parse.urlencode(query)
    return json.load(urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": "Basic " + login}), timeout=10))
version = get("model-versions/get", name=sys.argv[1], version=sys.argv[2])["model_version"]
data = get("runs/get", run_id=version["run_id"])["run"]["data"]
tags = {tag["key"]: tag["value"] for tag in version.get("tags", [])}
print(json.dumps({"tags": tags, **{metric["key"]: metric["value"] for metric in data.get("metrics", [])}}))
"""


def _model_metrics(
    kube: Kubectl, platform: str, namespace: str, detector: str, version: str | None
) -> dict[str, Any]:
    """The registered version's tags and its evaluation's figures, asked from MLflow in its own Pod."""
    if not version:
        return {}
    model = names.Identity(namespace, detector).model
    try:
        answer = kube.kubectl(
            "-n", platform, "exec", f"deploy/{platform}-mlflow", "--", "python", "-c", _ASK, model, version
        )
    except KubectlError as error:
        return {"unavailable": str(error)[:200]}
    metrics: dict[str, Any] = json.loads(answer)
    return metrics


def pod_metrics(kube: Kubectl, namespace: str, deployment: str) -> str:
    """The text of /metrics of a Deployment's Pods, through the API server's proxy."""
    texts = []
    for item in kube.get("-n", namespace, "pods").get("items", []):
        if item["metadata"]["name"].startswith(deployment + "-"):
            path = f"/api/v1/namespaces/{namespace}/pods/{item['metadata']['name']}:9090/proxy/metrics"
            try:
                texts.append(kube.kubectl("get", "--raw", path))
            except KubectlError as error:
                texts.append(f"# unreachable: {error}")
    return "\n".join(texts)
