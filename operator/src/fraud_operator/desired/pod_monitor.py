"""Which ports a Prometheus operator scrapes: of our Pods, whose labels Flink's and KServe's carry too, and of Strimzi's brokers."""

from __future__ import annotations

from collections.abc import Iterable

from fraud_contracts import names
from fraud_operator.desired.child import Child, Wanted, any_pod, broker_selector, child, metadata
from fraud_operator.detector import Detector
from fraud_operator.objects import Json


def _monitor(
    detector: Detector, name: str, component: str, pods: Json, ports: Iterable[str], **more: object
) -> Child:
    endpoints = [{"port": port, "path": "/metrics", "interval": "15s"} for port in ports]
    return child(
        "monitoring.coreos.com/v1",
        "PodMonitor",
        metadata(detector, name, component, more_labels=detector.platform.monitor_labels),
        spec={"selector": pods, **more, "podMetricsEndpoints": endpoints},
    )


def build_pod_monitors(detector: Detector, _: Wanted) -> list[Child]:
    """One, and for a managed Kafka a second one."""
    labels = [names.COMPONENT_LABEL, names.SLOT_LABEL]
    own = _monitor(
        detector,
        names.pod_monitor(detector.name),
        "metrics",
        any_pod(detector),
        ("metrics", "http", "http1"),
        podTargetLabels=labels,
    )
    if not detector.managed_kafka:
        return [own]
    brokers = {"matchLabels": broker_selector(detector)}
    return [
        own,
        _monitor(detector, names.kafka_pod_monitor(detector.name), "kafka", brokers, ("tcp-prometheus",)),
    ]
