"""The sinks' metrics and the small HTTP server that shows them and the process's health."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from fraud_contracts import metrics
from fraud_contracts.background import thread

log = logging.getLogger(__name__)


class Meters:
    """Everything a sink counts, labelled with its detector."""

    def __init__(self, detector: str, sink: str) -> None:
        self.registry = CollectorRegistry()
        names = {"detector": detector, "sink": sink}
        self.rows = self._counter(metrics.SINK_ROWS).labels(**names)
        self.lag = self._gauge(metrics.SINK_LAG).labels(**names)
        self.refused = self._counter(metrics.SINK_REFUSED).labels(**names)
        self.retries = self._counter(metrics.SINK_RETRIES).labels(**names)
        self.losses = self._counter(metrics.SINK_LOSSES).labels(**names)
        self._rereads = self._counter(metrics.SINK_REREADS).labels(**names)
        freshness = metrics.FRESHNESS_SECONDS
        self.freshness = Histogram(
            freshness.name,
            freshness.help,
            freshness.labels,
            registry=self.registry,
            buckets=freshness.buckets,
        ).labels(detector=detector)
        self._conflicts = self._counter(metrics.CONFLICTS)
        self._detector = detector

    def conflict(self, door: str) -> None:
        self._conflicts.labels(detector=self._detector, door=door).inc()

    def reread(self, why: str, where: Mapping[str, Any]) -> None:
        """A topic, or a partition of it, is read from its beginning, because offsets mean other records than they did."""
        self._rereads.inc()
        log.error("reading from the beginning", extra={"data": {"why": why, **where}})

    def _counter(self, metric: metrics.Metric) -> Counter:
        return Counter(metric.name, metric.help, metric.labels, registry=self.registry)

    def _gauge(self, metric: metrics.Metric) -> Gauge:
        return Gauge(metric.name, metric.help, metric.labels, registry=self.registry)


class HealthServer:
    """``/metrics``, ``/healthz`` (the loop turns) and ``/readyz`` (it has caught up once) on threads of their own."""

    def __init__(
        self, port: int, registry: CollectorRegistry, alive: Callable[[], bool], ready: Callable[[], bool]
    ) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._answer(200, generate_latest(registry), CONTENT_TYPE_LATEST)
                elif self.path in ("/healthz", "/readyz"):
                    good = alive() if self.path == "/healthz" else ready()
                    self._answer(200 if good else 503, b"ok\n" if good else b"not yet\n", "text/plain")
                else:
                    self._answer(404, b"not found\n", "text/plain")

            def _answer(self, status: int, body: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Probes come every few seconds; a line for each would drown the log."""

        self._server = ThreadingHTTPServer(("", port), Handler)
        self.port = int(self._server.server_address[1])

    def start(self) -> None:
        thread("health", self._server.serve_forever)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
