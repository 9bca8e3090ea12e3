"""The console's HTTP side: a page without data in it, and an API that asks for a key with the scope Read."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from importlib import resources
from typing import Any, Final

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fraud_console.ledger import Ledger
from fraud_contracts import metrics
from fraud_contracts.detector_clients import Scope
from fraud_contracts.errors import AccessError, EventError, NotReadyError, StoreError
from fraud_contracts.event_values import identifier
from fraud_process.access import KeyCheck, KeyState
from fraud_process.instruments import Instruments

log = logging.getLogger(__name__)

MAX_LIMIT: Final = 200
# After which a caller may ask again while the ledger is away.
RETRY_SECONDS: Final = 5
NEWEST: Final = (2**62, "")

# What comes from transactions is foreign text: the page sets it as text only, and no script or style but ours runs.
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_FILES: Final = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}
Answer = tuple[int, Any]


class Console:
    def __init__(self, ledger: Ledger, keys: KeyCheck, instruments: Instruments) -> None:
        self._ledger, self._keys, self._instruments = ledger, keys, instruments
        self.closing = False
        self._asking, self._ledger_problem = threading.Lock(), "the ledger was never asked"
        self._instruments.show(metrics.CONSOLE_REQUESTS, metrics.CONSOLE_SECONDS)

    def close(self) -> None:
        """Not ready any more; what is asked meanwhile is still answered."""
        self.closing = True

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                *(Route(path, self._file(path)) for path in _FILES),
                Route("/api/alerts", self._api("alerts", self.alerts)),
                Route("/api/transactions/{id:path}", self._api("transaction", self.transaction)),
                Route("/healthz", lambda _: Response("ok\n")),
                Route("/readyz", self.ready),
                Route("/metrics", self.metrics),
            ]
        )

    def alerts(self, request: Request) -> Answer:
        """``limit`` of the latest alerts (50); ``before=<decided>,<id>`` goes on from the last one seen."""
        try:
            limit = int(request.query_params.get("limit", "50"))
        except ValueError:
            limit = 0
        if not 1 <= limit <= MAX_LIMIT:
            return _problem(400, "invalid_limit", f"limit must be 1 to {MAX_LIMIT}")
        before = NEWEST
        if "before" in request.query_params:
            decided, _, event_id = request.query_params["before"].partition(",")
            if not decided.isascii() or not decided.isdigit() or len(decided) > 16 or not _possible(event_id):
                return _problem(400, "invalid_before", "before must be <decided>,<id> of an alert")
            before = (int(decided), event_id)
        return 200, {"alerts": self._ledger.alerts(limit, before)}

    def transaction(self, request: Request) -> Answer:
        """Everything about one id: its decision, label, reports and conflicting decisions."""
        event_id = request.path_params["id"]
        transaction = self._ledger.transaction(event_id) if _possible(event_id) else None
        if transaction is None:
            return _problem(404, "not_found", "no decision or report of this id is in the ledger")
        return 200, transaction

    def ready(self, _: Request) -> Response:
        if self.closing:
            return Response("closing\n", 503)
        problem = self._problem()
        if problem:
            log.warning("not ready", extra={"data": {"error": problem}})
            return Response("not ready\n", 503)
        return Response("ok\n")

    def _problem(self) -> str:
        """Why it isn't ready, empty where it is.

        Whoever asks needs no key. So one of them at a time has the ledger asked, and the others are told what that said last.
        """
        if self._keys.state is KeyState.MISSING:
            return "the file of the clients' keys was never readable"
        if self._asking.acquire(blocking=False):
            try:
                self._ledger.check()
                self._ledger_problem = ""
            except (StoreError, NotReadyError) as error:
                self._ledger_problem = str(error)
            finally:
                self._asking.release()
        return self._ledger_problem

    def metrics(self, _: Request) -> Response:
        return Response(generate_latest(self._instruments.registry), media_type=CONTENT_TYPE_LATEST)

    def _api(self, route: str, endpoint: Callable[[Request], Answer]) -> Callable[[Request], Response]:
        """A synchronous endpoint, which Starlette runs on a thread: it waits for PostgreSQL."""

        def answer(request: Request) -> Response:
            began = time.perf_counter()
            retry_after: int | None = RETRY_SECONDS
            try:
                self._keys.admit(request.headers.get("x-api-key", "").encode("latin-1"), Scope.READ)
                status, body = self._answered(request, endpoint)
            except AccessError as error:
                status, body = _problem(error.status, error.code, error.message)
                retry_after = error.retry_after
            self._instruments(metrics.CONSOLE_SECONDS, route=route).observe(time.perf_counter() - began)
            self._instruments(metrics.CONSOLE_REQUESTS, route=route, status=str(status)).inc()
            headers = {**_HEADERS, "Retry-After": str(retry_after)} if status in (429, 503) else _HEADERS
            return Response(_json(body), status, headers, "application/json")

        return answer

    @staticmethod
    def _answered(request: Request, endpoint: Callable[[Request], Answer]) -> Answer:
        try:
            return endpoint(request)
        except NotReadyError as error:
            return _problem(503, "not_ready", error.message)
        except StoreError as error:
            log.error("ledger unavailable", extra={"data": {"error": str(error)}})
            return _problem(503, "ledger_unavailable", "the ledger can't be read now")

    @staticmethod
    def _file(path: str) -> Callable[[Request], Response]:
        name, kind = _FILES[path]
        body = resources.files("fraud_console").joinpath(name).read_bytes()
        return lambda _: Response(body, headers=_HEADERS, media_type=kind)


def _json(body: Any) -> bytes:
    """Slower where a record in the ledger holds a number of more than 64 bits, which PostgreSQL takes and orjson doesn't."""
    try:
        return orjson.dumps(body)
    except TypeError:
        return json.dumps(body).encode()


def _problem(status: int, code: str, message: str) -> Answer:
    return status, {"error": {"code": code, "message": message}}


def _possible(event_id: str) -> bool:
    """Whether there may be a transaction of this id; PostgreSQL would refuse some others with an error."""
    try:
        identifier(event_id, "id")
    except EventError:
        return False
    return True
