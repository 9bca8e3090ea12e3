"""``/metrics``, ``/healthz`` (the loop turns) and ``/readyz`` (partitions were asked for, a release is there) on threads of their own.

A loop that stands still ends its process: a call of the Kafka client was seen to ignore its time limit for minutes after
a broker's restart (docs/decisions/0003), and a successor is at work in seconds.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from fraud_contracts.background import thread

# Every call of the loop is limited to half of this.
STILL: Final = 20.0
_log = logging.getLogger(__name__)


class Health:
    def __init__(self, port: int, registry: CollectorRegistry, release: Callable[[], str | None]) -> None:
        self.turned = time.monotonic()
        self.ready = False
        health = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, kind, body = health.answer(self.path, registry, release)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                """Probes are not worth a line each."""

        self._server = ThreadingHTTPServer(("", port), Handler)
        self._server.daemon_threads = True
        thread("health", self._server.serve_forever)
        self._stopped = threading.Event()
        thread("watchdog", self._watch)

    def _alive(self) -> bool:
        return time.monotonic() - self.turned < STILL

    def _watch(self) -> None:
        while not self._stopped.wait(1.0):
            if not self._alive():
                _log.critical("the loop stands still; the process ends", extra={"data": {"seconds": STILL}})
                faulthandler.dump_traceback(all_threads=True)
                # No orderly end: it would wait for the very call that doesn't return.
                os._exit(1)

    def answer(
        self, path: str, registry: CollectorRegistry, release: Callable[[], str | None]
    ) -> tuple[int, str, bytes]:
        if path == "/metrics":
            return 200, CONTENT_TYPE_LATEST, generate_latest(registry)
        if path == "/healthz":
            alive = self._alive()
            return 200 if alive else 503, "application/json", json.dumps({"alive": alive}).encode()
        if path == "/readyz":
            told = {"ready": self.ready, "release": release()}
            return 200 if self.ready else 503, "application/json", json.dumps(told).encode()
        return 404, "text/plain", b"not found\n"

    def stop(self) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()
