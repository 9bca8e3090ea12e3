"""Every kind of object that a detector is made of, one entry each.

What else must know the kinds follows from this table: what the operator lists, watches and removes, its rights in the
chart (``python -m fraud_operator.rbac``), the length of a name, what the demo lists and searches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fraud_contracts import names

LABEL: Final = 63
"""Longest DNS label."""
SUBDOMAIN: Final = 253
"""Longest DNS subdomain, which a name may be where nothing asks for a label."""


@dataclass(frozen=True)
class Kind:
    """Where the API server keeps a kind of object.

    ``needs`` tells a person what to install where the kind is missing; a detector works as well without an ``optional`` one.
    ``longest_name`` is in characters. An object that ``holds_data`` is deleted only together with its detector. Where
    ``listed`` is false the operator may get objects by name, but not list them. Of a ``former`` one earlier versions made objects, which
    are removed.
    """

    api_version: str
    kind: str
    plural: str
    needs: str = ""
    longest_name: int = SUBDOMAIN
    holds_data: bool = False
    listed: bool = True
    optional: bool = False
    former: bool = False

    @property
    def group(self) -> str:
        """Empty for the core's own kinds."""
        return self.api_version.rpartition("/")[0]

    @property
    def resource(self) -> str:
        """As kubectl takes it: ``<plural>.<group>``."""
        return f"{self.plural}.{self.group}".rstrip(".")

    def path(self, namespace: str | None, name: str | None = None, part: str = "") -> str:
        """On the API server: of all objects, of one (``name``), or of a subresource (``part``)."""
        path = f"{'/apis/' if self.group else '/api/'}{self.api_version}"
        if namespace is not None:
            path += f"/namespaces/{namespace}"
        path += f"/{self.plural}"
        if name is not None:
            path += f"/{name}"
        return path + (f"/{part}" if part else "")


_STRIMZI: Final = "the Strimzi operator"
# Sources of the longest names: a DNS label for Services; what Strimzi, KServe (`<isvc>-predictor`)
# and Kubernetes add to it; the Flink operator's own pattern (45); KubeRay's limit for a RayJob (47).
CHILD_KINDS: Final = (
    Kind(
        "kafka.strimzi.io/v1", "Kafka", "kafkas", _STRIMZI, LABEL - len("-kafka-bootstrap"), holds_data=True
    ),
    Kind(
        "kafka.strimzi.io/v1", "KafkaNodePool", "kafkanodepools", _STRIMZI, LABEL - len("-0"), holds_data=True
    ),
    Kind("kafka.strimzi.io/v1", "KafkaTopic", "kafkatopics", _STRIMZI, holds_data=True),
    Kind("kafka.strimzi.io/v1", "KafkaUser", "kafkausers", _STRIMZI),
    Kind("v1", "ServiceAccount", "serviceaccounts"),
    Kind("rbac.authorization.k8s.io/v1", "Role", "roles"),
    Kind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
    Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
    Kind("v1", "Secret", "secrets", listed=False),
    Kind("v1", "ConfigMap", "configmaps"),
    Kind("v1", "Service", "services", longest_name=LABEL),
    Kind(
        "serving.kserve.io/v1beta1",
        "InferenceService",
        "inferenceservices",
        "KServe",
        LABEL - len("-predictor"),
    ),
    Kind("apps/v1", "Deployment", "deployments", longest_name=LABEL - len("-0123456789-abcde")),
    Kind("apps/v1", "StatefulSet", "statefulsets", former=True),
    Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    Kind(
        "flink.apache.org/v1beta1", "FlinkDeployment", "flinkdeployments", "the Flink Kubernetes operator", 45
    ),
    Kind("ray.io/v1", "RayJob", "rayjobs", "the KubeRay operator", 47),
    Kind("monitoring.coreos.com/v1", "PodMonitor", "podmonitors", "the Prometheus operator", optional=True),
)
LISTED_KINDS: Final = tuple(kind for kind in CHILD_KINDS if kind.listed)

NAMESPACE: Final = Kind("v1", "Namespace", "namespaces")
CRD: Final = Kind("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions")
LEASE: Final = Kind("coordination.k8s.io/v1", "Lease", "leases")
STORAGE_CLASS: Final = Kind("storage.k8s.io/v1", "StorageClass", "storageclasses")
DETECTOR: Final = Kind(names.API_VERSION, names.KIND, names.PLURAL)
BY_KIND: Final = {
    kind.kind: kind
    for kind in (*CHILD_KINDS, DETECTOR, Kind("v1", "Pod", "pods"), Kind("v1", "Event", "events"))
}
SECRET: Final = BY_KIND["Secret"]
POD: Final = BY_KIND["Pod"]
