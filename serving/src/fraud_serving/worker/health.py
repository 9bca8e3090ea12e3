"""The worker's ``/metrics``, ``/healthz`` (the loop runs) and ``/readyz`` (it has a release), on threads of
their own.

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
from typing import Final

from prometheus_client import CollectorRegistry

from fraud_contracts.background import thread
from fraud_process.health import JSON, HealthServer, Page

# Every call of the loop is limited to half of this.
STILL: Final = 20.0
_log = logging.getLogger(__name__)


class Health:
    def __init__(self, port: int, registry: CollectorRegistry, release: Callable[[], str | None]) -> None:
        self.last_heartbeat = time.monotonic()
        self.ready = False
        self._release = release
        self._server = HealthServer(port, registry, {"/healthz": self.healthz, "/readyz": self.readyz})
        self._server.start()
        self._stopped = threading.Event()
        thread("watchdog", self._watch)

    def _alive(self) -> bool:
        return time.monotonic() - self.last_heartbeat < STILL

    def _watch(self) -> None:
        while not self._stopped.wait(1.0):
            if not self._alive():
                _log.critical("the loop stands still; the process ends", extra={"data": {"seconds": STILL}})
                faulthandler.dump_traceback(all_threads=True)
                # No orderly end: it would wait for the very call that doesn't return.
                os._exit(1)

    def healthz(self) -> Page:
        alive = self._alive()
        return Page(200 if alive else 503, JSON, json.dumps({"alive": alive}).encode())

    def readyz(self) -> Page:
        state = {"ready": self.ready, "release": self._release()}
        return Page(200 if self.ready else 503, JSON, json.dumps(state).encode())

    def stop(self) -> None:
        self._stopped.set()
        self._server.stop()
