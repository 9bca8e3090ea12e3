"""What the operator tells Prometheus to scrape."""

from __future__ import annotations

from typing import Any

from fraud_operator.targets import targets


def pod(phase: str = "Running", **annotations: str) -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": "payments",
            "name": "p-0",
            "labels": {"app.kubernetes.io/component": "worker"},
            "annotations": {f"prometheus.io/{key}": value for key, value in annotations.items()},
        },
        "status": {"phase": phase, "podIP": "10.0.0.7"},
    }


def test_a_running_pod_that_asks_for_it_is_a_target() -> None:
    """Address, path and component come from the Pod itself."""
    (group,) = targets([pod(scrape="true", port="9249", path="/")])
    assert group["targets"] == ["10.0.0.7:9249"]
    assert group["labels"] == {
        "namespace": "payments",
        "pod": "p-0",
        "__metrics_path__": "/",
        "component": "worker",
    }


def test_a_pod_that_is_going_or_does_not_ask_is_none() -> None:
    """A finished Pod and one without the annotation are left out."""
    assert targets([pod("Succeeded", scrape="true"), pod()]) == []
