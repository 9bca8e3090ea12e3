"""Service accounts, the rights that go with them, and which Pod may be reached from where."""

from __future__ import annotations

from typing import Any, Final

from fraud_contracts import names
from fraud_contracts.config import FLINK_METRICS_PORT, HTTP_PORT, METRICS_PORT
from fraud_operator.desired.common import Child, any_pod, child, metadata
from fraud_operator.detector import Detector

RBAC: Final = "rbac.authorization.k8s.io/v1"
ACCOUNTS: Final = ("decision", "worker", "features", "training", "predictor", "sinks", "console")
_RELEASE_READERS: Final = ("decision", "worker")


def _subject(detector: Detector, component: str) -> dict[str, str]:
    return {
        "kind": "ServiceAccount",
        "name": names.service_account(detector.name, component),
        "namespace": detector.namespace,
    }


def build_service_accounts(detector: Detector) -> list[Child]:
    return [
        child(
            "v1",
            "ServiceAccount",
            metadata(detector, names.service_account(detector.name, component), component),
        )
        for component in ACCOUNTS
    ]


def build_release_access(detector: Detector) -> list[Child]:
    """The decision service and worker may read one ConfigMap, the release pointer, and nothing else."""
    name = names.release_pointer(detector.name)
    role = child(
        RBAC,
        "Role",
        metadata(detector, name, "release"),
        rules=[
            {
                "apiGroups": [""],
                "resources": ["configmaps"],
                "resourceNames": [name],
                "verbs": ["get", "list", "watch"],
            }
        ],
    )
    binding = child(
        RBAC,
        "RoleBinding",
        metadata(detector, name, "release"),
        roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        subjects=[_subject(detector, component) for component in _RELEASE_READERS],
    )
    return [role, binding]


def build_flink_access(detector: Detector) -> Child:
    """Flink's JobManager makes its TaskManagers and keeps its HA records in ConfigMaps: the chart's ClusterRole, here only."""
    return child(
        RBAC,
        "RoleBinding",
        metadata(detector, names.service_account(detector.name, "features"), "features"),
        roleRef={
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": detector.platform.flink.cluster_role,
        },
        subjects=[_subject(detector, "features")],
    )


def _policy(detector: Detector, part: str, pods: dict[str, Any], ingress: list[dict[str, Any]]) -> Child:
    return child(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        metadata(detector, f"{detector.name}-{part}", part),
        spec={"podSelector": pods, "policyTypes": ["Ingress"], "ingress": ingress},
    )


def build_network_policies(detector: Detector) -> list[Child]:
    """Pods of a detector talk among themselves; from outside: the two doors, metrics, and the engines' operators."""
    own = any_pod(detector)
    platform = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": detector.platform.namespace}}
    }

    def component(*labels: str) -> dict[str, Any]:
        return {
            "matchLabels": own["matchLabels"],
            "matchExpressions": [{"key": names.COMPONENT_LABEL, "operator": "In", "values": list(labels)}],
        }

    def ports(*numbers: int) -> list[dict[str, Any]]:
        return [{"protocol": "TCP", "port": number} for number in numbers]

    return [
        _policy(detector, "within", own, [{"from": [{"podSelector": own}, platform]}]),
        _policy(detector, "metrics", own, [{"ports": ports(METRICS_PORT, FLINK_METRICS_PORT)}]),
        _policy(detector, "doors", component("decision", "console"), [{"ports": ports(HTTP_PORT)}]),
        # KServe's, Flink's and KubeRay's operators ask these for health; they live in namespaces that we don't know.
        _policy(
            detector,
            "engines",
            component("predictor", "features", "training"),
            [{"ports": ports(HTTP_PORT, 8081, 8265)}],
        ),
    ]
