"""Service accounts, the rights that go with them, and which Pod may be reached from where."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fraud_contracts import names
from fraud_contracts.config import FLINK_METRICS_PORT, HTTP_PORT, METRICS_PORT
from fraud_contracts.detector import Component
from fraud_operator.desired.child import Child, Wanted, any_pod, child, metadata
from fraud_operator.desired.components import COMPONENTS
from fraud_operator.desired.workloads import HTTP, WORKLOADS
from fraud_operator.detector import Detector
from fraud_operator.objects import Json

RBAC: Final = "rbac.authorization.k8s.io/v1"
ACCOUNTS: Final = tuple(dict.fromkeys(defaults.account for defaults in COMPONENTS.values()))
_STORAGE_ACCOUNTS: Final = frozenset(defaults.account for defaults in COMPONENTS.values() if defaults.storage)
_RELEASE_READERS: Final = tuple(workload.component for workload in WORKLOADS if workload.data_path)
_DOORS: Final = tuple(workload.component for workload in WORKLOADS if workload.port is HTTP)
# Made by other projects' operators, which ask them for health.
_ENGINES: Final = (Component.PREDICTOR, Component.FEATURES, Component.TRAINING)


def _subject(detector: Detector, component: Component) -> dict[str, str]:
    return {
        "kind": "ServiceAccount",
        "name": names.service_account(detector.name, COMPONENTS[component].account),
        "namespace": detector.namespace,
    }


def build_service_accounts(detector: Detector, _: Wanted) -> list[Child]:
    """Where no Secret opens the object store, those that use it bear the annotations that give them a role with it."""
    by_role = detector.storage_path is None and detector.storage_secret is None
    annotations = detector.platform.storage.account_annotations if by_role else {}
    return [
        child(
            "v1",
            "ServiceAccount",
            metadata(
                detector,
                names.service_account(detector.name, account),
                account,
                annotations=annotations if account in _STORAGE_ACCOUNTS else None,
            ),
        )
        for account in ACCOUNTS
    ]


def build_release_access(detector: Detector, _: Wanted) -> list[Child]:
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


def build_flink_access(detector: Detector, _: Wanted) -> list[Child]:
    """Flink's JobManager makes its TaskManagers and keeps its HA records in ConfigMaps: the chart's role, here only."""
    features = COMPONENTS[Component.FEATURES]
    binding = child(
        RBAC,
        "RoleBinding",
        metadata(detector, names.service_account(detector.name, features.account), features.label),
        roleRef={
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole" if detector.platform.cluster_scoped else "Role",
            "name": detector.platform.flink.role,
        },
        subjects=[_subject(detector, Component.FEATURES)],
    )
    return [binding]


def _policy(detector: Detector, part: str, pods: Json, ingress: list[Json]) -> Child:
    return child(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        metadata(detector, names.network_policy(detector.name, part), part),
        spec={"podSelector": pods, "policyTypes": ["Ingress"], "ingress": ingress},
    )


def build_network_policies(detector: Detector, _: Wanted) -> list[Child]:
    """Pods of a detector talk among themselves; from outside: the two doors, metrics, and the engines' operators."""
    own = any_pod(detector)
    platform = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": detector.platform.namespace}}
    }

    def pods_of(components: Iterable[Component]) -> Json:
        labels = [COMPONENTS[component].label for component in components]
        return {
            "matchLabels": own["matchLabels"],
            "matchExpressions": [{"key": names.COMPONENT_LABEL, "operator": "In", "values": labels}],
        }

    def ports(*numbers: int) -> list[Json]:
        return [{"protocol": "TCP", "port": number} for number in numbers]

    return [
        _policy(detector, "within", own, [{"from": [{"podSelector": own}, platform]}]),
        _policy(detector, "metrics", own, [{"ports": ports(METRICS_PORT, FLINK_METRICS_PORT)}]),
        _policy(detector, "doors", pods_of(_DOORS), [{"ports": ports(HTTP_PORT)}]),
        # KServe's, Flink's and KubeRay's operators ask these for health; they live in namespaces that we don't know.
        _policy(
            detector,
            "engines",
            pods_of(_ENGINES),
            [{"ports": ports(HTTP_PORT, 8081, 8265)}],
        ),
    ]
