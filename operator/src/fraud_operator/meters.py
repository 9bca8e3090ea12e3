"""The operator's own metrics, from their definitions in contracts."""

from __future__ import annotations

from dataclasses import dataclass, field

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from fraud_contracts import metrics
from fraud_contracts.metrics import Metric
from fraud_operator.reconcile import PassResult


def _counter(metric: Metric, registry: CollectorRegistry) -> Counter:
    return Counter(metric.name, metric.help, metric.labels, registry=registry)


@dataclass
class Meters:
    registry: CollectorRegistry = field(default_factory=lambda: REGISTRY)

    def __post_init__(self) -> None:
        self._passes = _counter(metrics.RECONCILES, self.registry)
        self._writes = _counter(metrics.APPLIED, self.registry)
        seconds, ready = metrics.RECONCILE_SECONDS, metrics.DETECTOR_READY
        self._seconds = Histogram(seconds.name, seconds.help, buckets=seconds.buckets, registry=self.registry)
        self._ready = Gauge(ready.name, ready.help, ready.labels, registry=self.registry)

    def passed(self, result: str, seconds: float) -> None:
        self._passes.labels(result).inc()
        self._seconds.observe(seconds)

    def observed(self, detector: str, outcome: PassResult) -> None:
        """A detector that is gone takes its series with it."""
        for kind, _, verb in outcome.written:
            self._writes.labels(kind, verb).inc()
        if outcome.ready is not None:
            self._ready.labels(detector).set(1 if outcome.ready else 0)
        elif (detector,) in self._ready._metrics:
            self._ready.remove(detector)
