"""The three sinks: profiles to Redis, decisions to PostgreSQL (with the label join), decisions to the lake."""

from __future__ import annotations

from fraud_contracts import names
from fraud_contracts.config import METRICS_PORT
from fraud_contracts.detector import Component
from fraud_operator.desired.common import COMPONENTS, Child, child, metadata, pod_template, selector
from fraud_operator.detector import Detector

STORES = {
    "profile": Component.PROFILE_SINK,
    "ledger": Component.LEDGER_SINK,
    "lake": Component.LAKE_SINK,
}
SERVICE_ACCOUNT = "sinks"


def build_sink(detector: Detector, store: str) -> Child:
    component = STORES[store]
    label = COMPONENTS[component].label
    return child(
        "apps/v1",
        "Deployment",
        metadata(detector, names.sink(detector.name, store), label),
        spec={
            "replicas": detector.replicas(component, COMPONENTS[component].replicas),
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": selector(detector, label)},
            # A surging Pod would take partitions from the one that is about to end anyway.
            "strategy": {"type": "Recreate"},
            "template": pod_template(
                detector,
                component,
                image=detector.platform.images.sinks,
                command=["python", "-m", f"fraud_sinks.{store}"],
                port_name="metrics",
                port=METRICS_PORT,
                service_account=names.service_account(detector.name, SERVICE_ACCOUNT),
                storage=store == "lake",
            ),
        },
    )
