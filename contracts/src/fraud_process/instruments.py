"""prometheus-client objects for the metrics that ``fraud_contracts.metrics`` defines."""

from __future__ import annotations

import logging
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from fraud_contracts.metrics import UNREADABLE, Metric

_log = logging.getLogger(__name__)


class Instruments:
    """Creates each metric once per registry. ``bound`` holds the labels that are the same for all, as the detector."""

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
        """Removes the series with these labels, if there is one."""
        if self._children.pop((metric.name, tuple(labels.values())), None) is not None:
            self._metrics[metric.name].remove(*self._values(metric, labels))

    def unreadable(self, what: str, **where: Any) -> None:
        """Counts and logs that stored bytes couldn't be read as ``what``; ``where`` names their place, never the bytes."""
        _log.warning("unreadable, taken for missing", extra={"data": {"what": what, **where}})
        self(UNREADABLE, what=what).inc()

    def show(self, *metrics: Metric) -> None:
        """Creates these now, so that help and type are shown before there is a series, and no two threads create one."""
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
