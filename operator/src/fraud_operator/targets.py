"""What Prometheus may scrape, in the form of its HTTP service discovery: the platform's Pods that say where metrics are.

A Prometheus without rights in the cluster, or built without Kubernetes discovery, asks the operator at ``/targets``. A
Prometheus operator finds the same Pods by the PodMonitors.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from fraud_contracts import names

PLATFORM_PODS: Final = f"{names.PART_OF_LABEL}={names.PART_OF}"
_COPIED: Final = {
    "component": names.COMPONENT_LABEL,
    "detector_name": names.DETECTOR_LABEL,
    "slot": names.SLOT_LABEL,
}


def targets(pods: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One group a Pod that runs and asks to be scraped; labels as the dashboards use them."""
    groups = []
    for pod in pods:
        meta, status = pod["metadata"], pod.get("status", {})
        annotations = meta.get("annotations", {})
        scraped = annotations.get(names.SCRAPE_ANNOTATION) == "true"
        if not scraped or status.get("phase") != "Running" or not status.get("podIP"):
            continue
        labels = {
            "namespace": meta["namespace"],
            "pod": meta["name"],
            "__metrics_path__": annotations.get(names.SCRAPE_PATH_ANNOTATION, "/metrics"),
        }
        labels |= {
            name: meta["labels"][key] for name, key in _COPIED.items() if key in meta.get("labels", {})
        }
        groups.append(
            {
                "targets": [f"{status['podIP']}:{annotations.get(names.SCRAPE_PORT_ANNOTATION, '9090')}"],
                "labels": labels,
            }
        )
    return groups
