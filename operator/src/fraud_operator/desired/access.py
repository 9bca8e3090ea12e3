"""Service accounts and the rights that go with them."""

from __future__ import annotations

from typing import Final

from fraud_contracts import names
from fraud_contracts.detector import Component
from fraud_operator.desired.child import Child, Wanted, child, metadata
from fraud_operator.desired.components import COMPONENTS
from fraud_operator.desired.workloads import WORKLOADS
from fraud_operator.detector import Detector

RBAC: Final = "rbac.authorization.k8s.io/v1"
ACCOUNTS: Final = tuple(dict.fromkeys(defaults.account for defaults in COMPONENTS.values()))
_STORAGE_ACCOUNTS: Final = frozenset(defaults.account for defaults in COMPONENTS.values() if defaults.storage)
_RELEASE_READERS: Final = tuple(workload.component for workload in WORKLOADS if workload.data_path)


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
