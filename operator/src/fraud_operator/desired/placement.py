"""Where a detector's Pods run: which nodes they may use, how those of one component spread, what their images are pulled with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from fraud_contracts import names
from fraud_contracts.detector import Component
from fraud_operator.desired.child import selector
from fraud_operator.desired.components import COMPONENTS, replicas
from fraud_operator.detector import Detector
from fraud_operator.objects import Json

HOST: Final = "kubernetes.io/hostname"
ZONE: Final = "topology.kubernetes.io/zone"
# The taints of a node that is lost, and how long our Pods stay bound to it: another is made elsewhere then. Kubernetes waits five
# minutes unless told.
LOST: Final = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
LOST_SECONDS: Final = 30


def shared_settings(detector: Detector) -> Json:
    """What the platform gives every Pod of a detector, those of other projects' operators too."""
    platform = detector.platform
    pod: Json = {}
    if platform.pull_secrets:
        pod["imagePullSecrets"] = [{"name": names.pull_secret(detector.name)}]
    if platform.scheduling.tolerations:
        pod["tolerations"] = [dict(toleration) for toleration in platform.scheduling.tolerations]
    if platform.scheduling.priority_class:
        pod["priorityClassName"] = platform.scheduling.priority_class
    return pod


def spread(labels: Mapping[str, str]) -> Json:
    """Pods with these labels lie on different nodes, and in different zones, where they can.

    Zones are no second constraint: the scheduler counts none of a Pod's constraints on a node that lacks the label of one, so in a
    cluster without zones nothing would spread at all.
    """
    same = {"labelSelector": {"matchLabels": dict(labels)}}
    across_nodes = {"maxSkew": 1, "topologyKey": HOST, "whenUnsatisfiable": "ScheduleAnyway", **same}
    across_zones = {"weight": 100, "podAffinityTerm": {"topologyKey": ZONE, **same}}
    return {
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [across_zones]}},
        "topologySpreadConstraints": [across_nodes],
    }


def node_settings(detector: Detector, component: Component) -> Json:
    """Of a Pod of this component that has nobody to keep away from."""
    override = detector.override(component)
    pod: Json = {}
    if override is not None and override.node_selector:
        pod["nodeSelector"] = dict(override.node_selector)
    return {**pod, **shared_settings(detector)}


def _leaving_lost_nodes(tolerations: Sequence[Json]) -> list[Json]:
    """With how long a lost node is borne, unless the platform says that already."""

    def says(toleration: Json, taint: str) -> bool:
        key, effect = toleration.get("key"), toleration.get("effect")
        return key in (taint, None) and effect in ("NoExecute", None)

    short = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": LOST_SECONDS}
    unsaid = [taint for taint in LOST if not any(says(one, taint) for one in tolerations)]
    return [*tolerations, *({"key": taint, **short} for taint in unsaid)]


def placement(detector: Detector, component: Component, more_labels: Mapping[str, str] | None = None) -> Json:
    """Of a Pod of this component; two or more spread. ``more_labels`` tell those apart that share the component's label."""
    pod = node_settings(detector, component)
    pod["tolerations"] = _leaving_lost_nodes(pod.get("tolerations", []))
    if replicas(detector, component) < 2:
        return pod
    return {**pod, **spread({**selector(detector, COMPONENTS[component].label), **(more_labels or {})})}
