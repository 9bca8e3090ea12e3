"""How many Pods of a component a person or the cluster may move at once: one, where there are two or more."""

from __future__ import annotations

from collections.abc import Mapping

from fraud_contracts import names
from fraud_contracts.detector import Component
from fraud_operator.desired.child import Child, Wanted, child, metadata, selector
from fraud_operator.desired.components import COMPONENTS, replicas
from fraud_operator.desired.flink_deployment import TASK_MANAGER, parallelism
from fraud_operator.desired.workloads import WORKLOADS
from fraud_operator.detector import Detector
from fraud_operator.objects import Json


def build_disruption_budgets(detector: Detector, wanted: Wanted) -> list[Child]:
    """Of our own processes, of each version's predictor and of the TaskManagers. Strimzi makes the brokers' itself."""

    def budget(name: str, component: Component, limit: Json, more: Mapping[str, str]) -> Child:
        label = COMPONENTS[component].label
        pods = {"matchLabels": {**selector(detector, label), **more}}
        meta = metadata(detector, name, label)
        return child("policy/v1", "PodDisruptionBudget", meta, spec={**limit, "selector": pods})

    one_away = {"maxUnavailable": 1}
    budgets = [
        budget(workload.name(detector.name), workload.component, one_away, {})
        for workload in WORKLOADS
        if replicas(detector, workload.component) > 1
    ]
    if replicas(detector, Component.PREDICTOR) > 1:
        for package in wanted.state.packages():
            name = names.predictor(names.inference_service(detector.name, package.slot))
            budgets.append(budget(name, Component.PREDICTOR, one_away, {names.SLOT_LABEL: package.slot}))
    task_managers = parallelism(detector)
    if task_managers > 1:
        # Flink's own Pods: no controller says how many there should be, so only the number that stays can be given.
        stay = {"minAvailable": task_managers - 1}
        for view in (detector, wanted.beside):
            if view is not None:
                own = {**TASK_MANAGER, "app": view.streaming_job}
                budgets.append(budget(view.streaming_job, Component.FEATURES, stay, own))
    return budgets
