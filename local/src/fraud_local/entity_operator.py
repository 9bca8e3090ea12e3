"""What Strimzi's two entity operators have in common: whether they run and may act, and one connection to each cluster.

They act as long as their Deployment has a Pod and their account and rights exist, by the settings in that Deployment's environment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from fraud_local import strimzi_entity as entity
from fraud_local.api_client import ApiClient, Json
from fraud_local.strimzi_objects import CLUSTER_LABEL
from fraud_local.strimzi_secrets import client_certificates
from fraud_process.kafka import client_settings

ClusterKey = tuple[str, str]
C = TypeVar("C")


def by_cluster(items: Iterable[Json], known: Iterable[ClusterKey]) -> dict[ClusterKey, list[Json]]:
    """What each cluster is asked for, by the label of its name; of one that is ``known`` and asked for nothing, an empty list."""
    clusters: dict[ClusterKey, list[Json]] = {key: [] for key in known}
    for item in items:
        cluster = (item["metadata"].get("labels") or {}).get(CLUSTER_LABEL)
        if cluster:
            clusters.setdefault((item["metadata"]["namespace"], cluster), []).append(item)
    return clusters


class Connections(Generic[C]):
    """By (namespace, cluster). ``part`` is the entity operator's (``topic``, ``user``); ``connect`` takes librdkafka's settings."""

    def __init__(self, kube: ApiClient, part: str, connect: Callable[[dict[str, Any]], C]) -> None:
        self._kube, self._part, self._connect = kube, part, connect
        self._open: dict[ClusterKey, C] = {}

    def environment(self, key: ClusterKey) -> dict[str, str] | None:
        """The operator's environment; None where it isn't there, or may do nothing."""
        namespace, cluster = key
        name = entity.name(cluster)
        deployment = self._kube.get("apps/v1", "Deployment", namespace, name)
        if deployment is None or not (deployment.get("status") or {}).get("availableReplicas"):
            return None
        rights = (
            ("v1", "ServiceAccount", name),
            ("rbac.authorization.k8s.io/v1", "Role", name),
            ("rbac.authorization.k8s.io/v1", "RoleBinding", f"{cluster}-entity-{self._part}-operator-role"),
        )
        if any(self._kube.get(api, kind, namespace, one) is None for api, kind, one in rights):
            return None
        return entity.environment(deployment, f"{self._part}-operator")

    def get(self, key: ClusterKey, environment: dict[str, str]) -> C:
        if key not in self._open:
            namespace, cluster = key
            host, _, port = environment[entity.BOOTSTRAP].partition(":")
            certificates = client_certificates(
                self._kube, namespace, cluster, f"entity-{self._part}-operator"
            )
            address = client_settings(f"{host}.{namespace}.svc.cluster.local:{port}")
            self._open[key] = self._connect({**address, **certificates})
        return self._open[key]

    def forget(self, key: ClusterKey) -> None:
        self._open.pop(key, None)
