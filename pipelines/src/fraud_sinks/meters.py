"""Everything that a sink counts, labelled with its detector."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry

from fraud_contracts import metrics
from fraud_process.instruments import Instruments

log = logging.getLogger(__name__)


class Meters:
    def __init__(self, detector: str, sink: str) -> None:
        self.registry = CollectorRegistry()
        self._instruments = Instruments(self.registry, detector=detector, sink=sink)
        self.rows = self._instruments(metrics.SINK_ROWS)
        self.lag = self._instruments(metrics.SINK_LAG)
        self.refused = self._instruments(metrics.SINK_REFUSED)
        self.retries = self._instruments(metrics.SINK_RETRIES)
        self.losses = self._instruments(metrics.SINK_LOSSES)
        self._rereads = self._instruments(metrics.SINK_REREADS)
        self.freshness = self._instruments(metrics.FRESHNESS_SECONDS)
        # Shown with its help and type from the start, its series once there are conflicts.
        self._instruments.show(metrics.CONFLICTS)

    def conflict(self, door: str) -> None:
        self._instruments(metrics.CONFLICTS, door=door).inc()

    def reread(self, why: str, where: Mapping[str, Any]) -> None:
        """A topic, or a partition of it, is read from its beginning, because offsets mean other records than they did."""
        self._rereads.inc()
        log.error("reading from the beginning", extra={"data": {"why": why, **where}})
