"""The decision API: a Deployment, its Service and its disruption budget."""

from __future__ import annotations

from fraud_contracts import names
from fraud_contracts.config import HTTP_PORT
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

LABEL = COMPONENTS[Component.DECISION_SERVICE].label


def build_decision_service(detector: Detector) -> list[Child]:
    name = names.decision_service(detector.name)
    replicas = detector.replicas(Component.DECISION_SERVICE, COMPONENTS[Component.DECISION_SERVICE].replicas)
    template = pod_template(
        detector,
        Component.DECISION_SERVICE,
        image=detector.platform.images.serving,
        command=["python", "-m", "fraud_serving.decision"],
        port_name="http",
        port=HTTP_PORT,
        service_account=names.service_account(detector.name, LABEL),
        token=True,
        release=True,
    )
    template["spec"]["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector(detector, LABEL)},
        }
    ]
    deployment = child(
        "apps/v1",
        "Deployment",
        metadata(detector, name, LABEL),
        spec={
            "replicas": replicas,
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": selector(detector, LABEL)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": template,
        },
    )
    service = child(
        "v1",
        "Service",
        metadata(detector, name, LABEL),
        spec={
            "selector": selector(detector, LABEL),
            "ports": [{"name": "http", "port": HTTP_PORT, "targetPort": "http", "protocol": "TCP"}],
        },
    )
    return [deployment, service, disruption_budget(detector, name, LABEL)]
