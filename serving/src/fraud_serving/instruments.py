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
        self._made: dict[str, Any] = {}
        self._children: dict[tuple[str, tuple[str, ...]], Any] = {}

    def __call__(self, metric: Metric, **labels: str) -> Any:
        """The child with these labels; cached, since prometheus-client's own lookup takes a lock each time."""
        key = (metric.name, tuple(labels.values()))
        found = self._children.get(key)
        if found is None:
            found = self._children[key] = self._child(metric, labels)
        return found

    def unreadable(self, what: str, **where: Any) -> None:
        """Counts and tells that stored bytes weren't ``what`` they should be; ``where`` names their place, never the bytes."""
        _log.warning("unreadable, taken for missing", extra={"data": {"what": what, **where}})
        self(UNREADABLE, what=what).inc()

    def _child(self, metric: Metric, labels: dict[str, str]) -> Any:
        made = self._made.get(metric.name)
        if made is None:
            more: dict[str, Any] = {"registry": self.registry}
            if metric.kind == "histogram" and metric.buckets:
                more["buckets"] = metric.buckets
            kind = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}[metric.kind]
            made = self._made[metric.name] = kind(metric.name, metric.help, metric.labels, **more)
        values = {name: labels.get(name, self._bound.get(name, "")) for name in metric.labels}
        return made.labels(**values) if metric.labels else made
