"""The HTTP server of a process that has no other: ``/metrics`` and pages of the process, answered on threads of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from fraud_contracts.background import thread

log = logging.getLogger(__name__)

TEXT: Final = "text/plain"
JSON: Final = "application/json"


class Page(NamedTuple):
    status: int
    kind: str
    body: bytes


def probe(good: bool, otherwise: str) -> Page:
    """The answer to a kubelet's probe: 200, or 503 with the reason for people."""
    return Page(200, TEXT, b"ok\n") if good else Page(503, TEXT, f"{otherwise}\n".encode())


class HealthServer:
    """Answers GET of ``/metrics`` and of each path in ``pages``; anything else with 404. Port 0 takes a free one."""

    def __init__(
        self, port: int, registry: CollectorRegistry, pages: Mapping[str, Callable[[], Page]]
    ) -> None:
        every = {
            "/metrics": lambda: Page(200, CONTENT_TYPE_LATEST, generate_latest(registry)),
            **pages,
        }

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page = every[self.path]() if self.path in every else Page(404, TEXT, b"not found\n")
                self.send_response(page.status)
                self.send_header("Content-Type", page.kind)
                self.send_header("Content-Length", str(len(page.body)))
                try:
                    self.end_headers()
                    self.wfile.write(page.body)
                except ConnectionError:
                    log.debug("the caller hung up")

            def log_message(self, *_: object) -> None:
                """Probes come every few seconds; a line for each would drown the log."""

        self._server = ThreadingHTTPServer(("", port), Handler)
        self.port = int(self._server.server_address[1])

    def start(self) -> None:
        thread("health", self._server.serve_forever)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
