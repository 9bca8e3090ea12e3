"""Which ports a Prometheus operator scrapes. Flink's and KServe's Pods carry our labels too."""

from __future__ import annotations

from fraud_contracts import names
from fraud_operator.desired.child import Child, Wanted, any_pod, child, metadata
from fraud_operator.detector import Detector


def build_pod_monitor(detector: Detector, _: Wanted) -> list[Child]:
    monitor = child(
        "monitoring.coreos.com/v1",
        "PodMonitor",
        metadata(
            detector,
            names.pod_monitor(detector.name),
            "metrics",
            more_labels=detector.platform.monitor_labels,
        ),
        spec={
            "selector": any_pod(detector),
            "podTargetLabels": [names.COMPONENT_LABEL, names.SLOT_LABEL],
            "podMetricsEndpoints": [
                {"port": "metrics", "path": "/metrics", "interval": "15s"},
                {"port": "http", "path": "/metrics", "interval": "15s"},
                {"port": "http1", "path": "/metrics", "interval": "15s"},
            ],
        },
    )
    return [monitor]
