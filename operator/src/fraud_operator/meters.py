"""The operator's own metrics."""

from __future__ import annotations

from dataclasses import dataclass, field

from prometheus_client import REGISTRY, CollectorRegistry

from fraud_contracts import metrics
from fraud_operator.pass_result import PassResult
from fraud_process.instruments import Instruments


@dataclass
class OperatorMeters:
    registry: CollectorRegistry = field(default_factory=lambda: REGISTRY)

    def __post_init__(self) -> None:
        self._instruments = Instruments(self.registry)
        self._instruments.show(
            metrics.RECONCILES, metrics.APPLIED, metrics.RECONCILE_SECONDS, metrics.DETECTOR_READY
        )

    def passed(self, result: str, seconds: float) -> None:
        self._instruments(metrics.RECONCILES, result=result).inc()
        self._instruments(metrics.RECONCILE_SECONDS).observe(seconds)

    def observed(self, detector: str, outcome: PassResult) -> None:
        """A detector that is gone takes its series with it."""
        for kind, _, verb in outcome.written:
            self._instruments(metrics.APPLIED, kind=kind, verb=verb).inc()
        if outcome.ready is not None:
            self._instruments(metrics.DETECTOR_READY, detector=detector).set(1 if outcome.ready else 0)
        else:
            self._instruments.forget(metrics.DETECTOR_READY, detector=detector)
