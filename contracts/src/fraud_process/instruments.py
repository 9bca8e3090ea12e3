"""prometheus-client objects made from the definitions in ``fraud_contracts.metrics``: names live there, nowhere else."""

from __future__ import annotations

import logging
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from fraud_contracts.metrics import UNREADABLE, Metric

_log = logging.getLogger(__name__)


class Instruments:
    """Makes each metric once per registry. ``bound`` holds labels that a process knows at start, as the detector."""

    def __init__(self, registry: CollectorRegistry, **bound: str) -> None:
        self.registry = registry
        self._bound = bound
        self._metrics: dict[str, Any] = {}
        self._children: dict[tuple[str, tuple[str, ...]], Any] = {}

    def __call__(self, metric: Metric, **labels: str) -> Any:
        """The child with these labels; cached, since prometheus-client's own lookup takes a lock each time."""
        key = (metric.name, tuple(labels.values()))
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._child(metric, labels)
        return child

    def forget(self, metric: Metric, **labels: str) -> None:
        """The series with these labels isn't shown any more, if it was."""
        if self._children.pop((metric.name, tuple(labels.values())), None) is not None:
            self._metrics[metric.name].remove(*self._values(metric, labels))

    def unreadable(self, what: str, **where: Any) -> None:
        """Counts and tells that stored bytes weren't ``what`` they should be; ``where`` names their place, never the bytes."""
        _log.warning("unreadable, taken for missing", extra={"data": {"what": what, **where}})
        self(UNREADABLE, what=what).inc()

    def show(self, *metrics: Metric) -> None:
        """Makes these now: their help and type are shown before there is a series, and no two threads make one at once."""
        for metric in metrics:
            self._metric(metric)

    def _child(self, metric: Metric, labels: dict[str, str]) -> Any:
        whole = self._metric(metric)
        return whole.labels(*self._values(metric, labels)) if metric.labels else whole

    def _metric(self, metric: Metric) -> Any:
        whole = self._metrics.get(metric.name)
        if whole is None:
            more: dict[str, Any] = {"registry": self.registry}
            if metric.kind == "histogram" and metric.buckets:
                more["buckets"] = metric.buckets
            kind = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}[metric.kind]
            whole = self._metrics[metric.name] = kind(metric.name, metric.help, metric.labels, **more)
        return whole

    def _values(self, metric: Metric, labels: dict[str, str]) -> list[str]:
        return [labels.get(name, self._bound.get(name, "")) for name in metric.labels]
