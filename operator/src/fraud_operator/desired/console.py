"""The analysts' console: a Deployment and its Service."""

from __future__ import annotations

from fraud_contracts import names
from fraud_contracts.config import HTTP_PORT
from fraud_contracts.detector import Component
from fraud_operator.desired.common import COMPONENTS, Child, child, metadata, pod_template, selector
from fraud_operator.detector import Detector

LABEL = COMPONENTS[Component.CONSOLE].label


def build_console(detector: Detector) -> list[Child]:
    name = names.console(detector.name)
    deployment = child(
        "apps/v1",
        "Deployment",
        metadata(detector, name, LABEL),
        spec={
            "replicas": detector.replicas(Component.CONSOLE, COMPONENTS[Component.CONSOLE].replicas),
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": selector(detector, LABEL)},
            "template": pod_template(
                detector,
                Component.CONSOLE,
                image=detector.platform.images.console,
                command=["python", "-m", "fraud_console"],
                port_name="http",
                port=HTTP_PORT,
                service_account=names.service_account(detector.name, LABEL),
            ),
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
    return [deployment, service]
