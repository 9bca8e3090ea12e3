"""Every Pod that comes of a detector, those that other projects' operators make of our objects too, as the API server gets them."""

from __future__ import annotations

import copy
from typing import Any

from fraud_testing.operator_process import find

Pod = dict[str, Any]


def pods_of(child: dict[str, Any], chart: list[dict[str, Any]]) -> dict[str, Pod]:
    """Name to Pod spec, of one child; ``chart`` are the chart's objects, of which a predictor is made, too."""
    kind, name = child["kind"], child["metadata"]["name"]
    spec = child.get("spec", {})
    if kind == "Deployment":
        return {name: spec["template"]["spec"]}
    if kind == "FlinkDeployment":
        return _flink(name, spec)
    if kind == "RayJob":
        head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
        return {f"{name}-head": head, f"{name}-submitter": spec["submitterPodTemplate"]["spec"]}
    if kind == "InferenceService":
        return {name: _predictor(spec["predictor"], chart)}
    if kind == "Kafka":
        return _strimzi(name, spec)
    return {}


def _flink(name: str, spec: dict[str, Any]) -> dict[str, Pod]:
    """Flink puts its image into the main container, and the TaskManagers' own template over the common one."""
    manager = copy.deepcopy(spec["podTemplate"]["spec"])
    manager["containers"][0]["image"] = spec["image"]
    own = spec["taskManager"].get("podTemplate", {}).get("spec", {})
    return {f"{name}-jobmanager": manager, f"{name}-taskmanager": {**manager, **own}}


def _predictor(predictor: dict[str, Any], chart: list[dict[str, Any]]) -> Pod:
    """KServe lays the Pod's own fields over those of the runtime and puts the initializer before its container."""
    runtime = find(chart, "ClusterServingRuntime", predictor["model"]["runtime"])["spec"]
    storage = find(chart, "ClusterStorageContainer", predictor["storageContainerName"])["spec"]["container"]
    of_kserve = (
        "annotations",
        "labels",
        "model",
        "minReplicas",
        "storageContainerName",
        "deploymentStrategy",
    )
    own = {key: value for key, value in predictor.items() if key not in of_kserve}
    return {
        **own,
        "containers": runtime["containers"],
        "volumes": [*runtime["volumes"], *own["volumes"]],
        "initContainers": [storage],
    }


def _strimzi(name: str, spec: dict[str, Any]) -> dict[str, Pod]:
    """Strimzi's default provider gives neither Pod nor container a security context of its own."""

    def pod(template: dict[str, Any], container: str) -> Pod:
        settings = {key: value for key, value in template[container].items() if key != "env"}
        return {**template.get("pod", {}), "containers": [{"name": "c", "image": "strimzi/x:1", **settings}]}

    return {
        f"{name}-broker": pod(spec["kafka"]["template"], "kafkaContainer"),
        f"{name}-entity-operator": pod(spec["entityOperator"]["template"], "topicOperatorContainer"),
    }
