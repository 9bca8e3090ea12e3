"""The Pods of the demo's namespaces that the API server sees from here alone: its own, and those that the stand-ins make.

All others go through the real admission in operator/tests/integration (test_restricted.py, test_chart.py).
"""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from fraud_local import flink_objects, paths, strimzi_brokers, strimzi_entity, strimzi_objects
from fraud_local.demo import demo_cluster, pod

Json = dict[str, Any]
# Of the volumes that the level allows, those that are used.
VOLUMES = {"configMap", "emptyDir", "projected", "secret", "persistentVolumeClaim"}


def golden() -> list[Json]:
    """The children of the production example, as a server has them."""
    text = (paths.CLONE / "tests/golden/production/expected.yaml").read_text()
    children = [one for one in yaml.load_all(text, yaml.CSafeLoader) if one]
    for child in children:
        child["metadata"] |= {"uid": "u", "generation": 1}
    return children


def pods() -> dict[str, Json]:
    """Pod specs by the name of what makes them."""
    children = golden()

    def of(kind: str) -> list[Json]:
        return [child for child in children if child["kind"] == kind]

    (kafka,), (fd,), pools = of("Kafka"), of("FlinkDeployment"), of("KafkaNodePool")
    ids = strimzi_objects.node_ids(pools)
    hosts = strimzi_brokers.certificate_hosts(kafka, pools, ids)
    made = [
        *strimzi_brokers.build(kafka, pools, ids, "id", dict.fromkeys(hosts, "c")),
        *strimzi_entity.build(kafka),
        *flink_objects.build(fd, fd["spec"], "ab12", None),
    ]
    templates = {
        one["metadata"]["name"]: one["spec"]["template"]["spec"]
        for one in made
        if one["kind"] in ("Deployment", "StatefulSet")
    }
    traffic = pod.manifest("production", "payments", "s3://bank/demo", "any:1", 200, 180, True, 0)
    return {**templates, pod.NAME: traffic["spec"]}


PODS = pods()


def test_each_kind_of_pod_is_looked_at() -> None:
    """Brokers, the topic operator, JobManager, TaskManagers and the traffic."""
    assert len(PODS) == 5


@pytest.mark.parametrize("name", PODS)
def test_a_pod_passes_the_level_restricted(name: str) -> None:
    """No root, no capability, no way to more rights, the runtime's system calls only, nothing of the node."""
    spec = PODS[name]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    for container in (*spec["containers"], *spec.get("initContainers", [])):
        context = {**spec.get("securityContext", {}), **container["securityContext"]}
        assert (context["runAsNonRoot"], context["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
        assert (context["allowPrivilegeEscalation"], context["capabilities"]) == (False, {"drop": ["ALL"]})
        assert context.get("runAsUser") != 0 and "privileged" not in context
        assert all("hostPort" not in port for port in container.get("ports", []))
    assert {kind for volume in spec["volumes"] for kind in volume.keys() - {"name"}} <= VOLUMES


def test_the_demos_namespaces_enforce_it() -> None:
    """By the labels that the API server's admission reads, of its own newest version."""
    labels = demo_cluster.restricted_namespace("payments")["metadata"]["labels"]
    assert labels == {
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/enforce-version": "latest",
    }
