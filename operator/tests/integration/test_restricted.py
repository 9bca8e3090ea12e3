"""Pod Security's level restricted, as a real API server enforces it, takes every Pod of a detector and of the chart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fraud_contracts.child_kinds import BY_KIND
from fraud_operator.desired.child import Wanted
from fraud_operator.desired.children import build_children
from fraud_operator.detector import Detector
from fraud_operator.kube import Kube, RefusedError
from fraud_operator.releases import make_release
from fraud_operator.settings import Platform
from fraud_testing.operator_process import render
from fraud_testing.pod_templates import Pod, pods_of
from fraud_testing.rollout_states import shadowing

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[3]
LEVEL = "pod-security.kubernetes.io/enforce"


@pytest.fixture(scope="module")
def restricted(server: Any) -> str:
    meta = {"name": "restricted", "labels": {LEVEL: "restricted"}}
    server.post("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    return "restricted"


def children() -> list[dict[str, Any]]:
    """Of the production example on an object store, with everything that the platform may add to a Pod."""
    body = yaml.safe_load((ROOT / "manifests/examples/production.yaml").read_text())
    platform = Platform.model_validate(
        {
            "storage": {"uri": "s3://bucket/folder"},
            "pull_secrets": ["registry"],
            "scheduling": {"tolerations": [{"key": "dedicated", "operator": "Exists"}]},
        }
    )
    detector = Detector.parse(body, platform)
    state = shadowing()
    release = make_release(detector, state, None, detector.spec.policy)
    return [child.body for child in build_children(detector, Wanted(release, state, "0" * 16))]


def try_out(kube: Kube, namespace: str, name: str, spec: Pod) -> None:
    """RefusedError where the server would not take such a Pod."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    kube._call("POST", BY_KIND["Pod"].path(namespace), {"dryRun": "All"}, pod)


def test_every_pod_of_a_detector_is_taken(server: Any, restricted: str) -> None:
    """Ours, Flink's, Ray's, KServe's with its initializer, and Strimzi's brokers and topic operator."""
    chart, refused, tried = render(), {}, set()
    for child in children():
        for name, spec in pods_of(child, chart).items():
            tried.add(child["kind"])
            try:
                try_out(server.kube(), restricted, name, spec)
            except RefusedError as error:
                refused[name] = error.message
    assert refused == {}
    assert tried == {"Kafka", "Deployment", "FlinkDeployment", "RayJob", "InferenceService"}


def test_a_pod_that_says_nothing_of_security_is_refused(server: Any, restricted: str) -> None:
    """The namespace enforces what this file asks: Strimzi's Pods without our templates don't pass."""
    with pytest.raises(RefusedError, match="restricted"):
        try_out(server.kube(), restricted, "broker", {"containers": [{"name": "kafka", "image": "x:1"}]})
