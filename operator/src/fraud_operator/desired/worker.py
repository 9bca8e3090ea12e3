"""The decision worker: a StatefulSet, since a Pod's ordinal is its transactional id."""

from __future__ import annotations

from fraud_contracts import names
from fraud_contracts.config import METRICS_PORT
from fraud_contracts.detector import Component
from fraud_operator.desired.common import (
    COMPONENTS,
    Child,
    child,
    disruption_budget,
    metadata,
    pod_template,
    selector,
)
from fraud_operator.detector import Detector

LABEL = COMPONENTS[Component.WORKER].label


def build_worker(detector: Detector) -> list[Child]:
    name = names.worker(detector.name)
    template = pod_template(
        detector,
        Component.WORKER,
        image=detector.platform.images.serving,
        command=["python", "-m", "fraud_serving.worker"],
        port_name="metrics",
        port=METRICS_PORT,
        service_account=names.service_account(detector.name, LABEL),
        token=True,
        release=True,
    )
    stateful_set = child(
        "apps/v1",
        "StatefulSet",
        metadata(detector, name, LABEL),
        spec={
            "replicas": detector.replicas(Component.WORKER, COMPONENTS[Component.WORKER].replicas),
            "revisionHistoryLimit": 3,
            "serviceName": name,
            # Ordinals don't wait for one another: each owns partitions of its own.
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": selector(detector, LABEL)},
            "template": template,
        },
    )
    service = child(
        "v1",
        "Service",
        metadata(detector, name, LABEL),
        spec={
            "clusterIP": "None",
            "selector": selector(detector, LABEL),
            "ports": [{"name": "metrics", "port": METRICS_PORT, "targetPort": "metrics", "protocol": "TCP"}],
        },
    )
    return [stateful_set, service, disruption_budget(detector, name, LABEL)]
