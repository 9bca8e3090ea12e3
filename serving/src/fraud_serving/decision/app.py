"""HTTP of the inline door: who may ask, how errors look, when the replica is ready. Plain Starlette, bytes in and out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from fraud_contracts import metrics
from fraud_contracts.background import watched
from fraud_contracts.config import MAX_EVENT_BYTES
from fraud_contracts.detector_clients import Scope as KeyScope
from fraud_contracts.errors import AccessError, EventError, Reason, StoreError
from fraud_process.access import KeyCheck, KeyState
from fraud_serving.decision import labels
from fraud_serving.decision.admission import Admission
from fraud_serving.decision.arrival import ARRIVED
from fraud_serving.decision.errors import (
    NoReleaseError,
    OverloadedError,
    RequestRefusedError,
    UnknownIdError,
)
from fraud_serving.decision.openapi import openapi_document
from fraud_serving.decision.service import DecisionService
from fraud_serving.decision.stream_watch import StreamWatch
from fraud_serving.release_watch import ReleaseWatch

# Of requests other than decisions; while decisions are refused, and else.
OTHERS_WHEN_BUSY: Final = 4
OTHERS: Final = 64
# Until then a replica that has just started may wait for what says that the profiles aren't behind; else it answers with the mark.
PROFILES_SECONDS: Final = 5.0
DRAIN_SECONDS: Final = 10.0
_JSON: Final = "application/json"
# Scope's key: the request counts as under way.
_ADMITTED: Final = "fraud.admitted"
_log = logging.getLogger(__name__)
Handler = Callable[[Request], Awaitable[Response]]
Quick = Callable[[Scope, Receive, Send], Awaitable[None]]


async def read_body(request: Request) -> bytes:
    """The body, read no further than the limit."""
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > MAX_EVENT_BYTES:
        raise EventError(Reason.TOO_LARGE, f"the body is larger than {MAX_EVENT_BYTES} bytes")
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_EVENT_BYTES:
            raise EventError(Reason.TOO_LARGE, f"the body is larger than {MAX_EVENT_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)


class DecisionFastPath:
    """ASGI in front of Starlette: the path that must be quick skips its layers, which cost more than a decision's features do."""

    def __init__(self, decide: Quick, app: ASGIApp) -> None:
        self._decide, self._app = decide, app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/v1/decisions" and scope["method"] == "POST":
            await self._decide(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class Api:
    """Routes over a DecisionService. ``ready`` is latched: a store that comes and goes degrades answers, it doesn't unready a Pod."""

    def __init__(
        self, service: DecisionService, keys: KeyCheck, watch: ReleaseWatch, stream: StreamWatch
    ) -> None:
        self._service, self._keys, self._watch, self._stream = service, keys, watch, stream
        self._admission, self._others = Admission(), 0
        self._decide = self._authenticated(KeyScope.DECIDE, self.decide)
        # Made once: under load it is what the process writes most.
        self._refusal = OverloadedError()
        self._overloaded = self._error(self._refusal)
        self.ready = False
        self._closing = False
        self._reports = service.identity.topic("label-reports")
        self._openapi = orjson.dumps(openapi_document(service.config.spec, str(service.identity)))

    def application(self) -> DecisionFastPath:
        find = self._bounded(self._authenticated(KeyScope.READ, self.find))
        label = self._bounded(self._authenticated(KeyScope.LABEL, self.label))
        release = self._bounded(self._authenticated(KeyScope.READ, self.release))
        routes = [
            Route("/v1/decisions", self._decide, methods=["POST"]),
            Route("/v1/decisions/{id:path}", find, methods=["GET"]),
            Route("/v1/labels", label, methods=["POST"]),
            Route("/v1/release", release, methods=["GET"]),
            Route("/healthz", self.healthz, methods=["GET"]),
            Route("/readyz", self.readyz, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
            Route("/openapi.json", self.openapi, methods=["GET"]),
        ]
        errors = {HTTPException: self.no_route}
        return DecisionFastPath(
            self.quick, Starlette(routes=routes, lifespan=self.lifespan, exception_handlers=errors)
        )

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        service = self._service
        await service.redis.start()
        self._watch.start()
        self._stream.start()
        preparing = watched(asyncio.create_task(self._prepare(), name="prepare"))
        yield
        preparing.cancel()
        await asyncio.gather(preparing, return_exceptions=True)
        await service.drain(DRAIN_SECONDS)
        await self._watch.stop()
        await self._stream.stop()
        await service.log.stop()
        await service.redis.stop()
        service.scorer.close()

    def closing(self) -> None:
        """Not ready any more, but still answering: callers learn of it a moment later. Kept connections end with their next answer."""
        self.ready, self._closing = False, True
        self._overloaded.headers["Connection"] = "close"

    async def _prepare(self) -> None:
        """Ready once there is a release, the clients are known, Kafka has our topics and the code is warm."""
        service = self._service
        topics = (service.identity.topic("accepted"), self._reports)
        logged = False
        while not (
            service.release.ruling is not None
            and self._keys.state is not KeyState.MISSING
            and all([await service.log.has_topic(topic) for topic in topics])
        ):
            if not logged:
                _log.info("waiting for the release, the clients and Kafka's topics")
                logged = True
            await asyncio.sleep(0.5)
        await service.warm_up()
        await self._stream.first_known(PROFILES_SECONDS)
        self.ready = not self._closing
        _log.info("ready", extra={"data": {"detector": str(service.identity), "set": service.features.hash6}})

    async def quick(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A decision. Who comes too late, or while too many are under way, is refused before anything else is done for them."""
        if ARRIVED in scope and not self._admit(scope):
            response = self._refused_as_overloaded()
        else:
            try:
                response = await self._decide(Request(scope, receive))
            finally:
                if scope.pop(_ADMITTED, False):
                    self._admission.leave()
        await response(scope, receive, send)

    def _admit(self, scope: Scope) -> bool:
        """Whether the request may begin; it then has a place, until ``quick`` frees it."""
        now, deadline = time.perf_counter(), self._service.deadline
        admitted = self._admission.admit(now, now - scope.setdefault(ARRIVED, now), deadline)
        scope[_ADMITTED] = admitted
        return admitted

    def _bounded(self, handler: Handler) -> Handler:
        """Of these there are few at once, and fewer while decisions are refused."""

        async def bounded(request: Request) -> Response:
            if self._others >= (OTHERS_WHEN_BUSY if self._admission.is_busy(time.perf_counter()) else OTHERS):
                return self._refused_as_overloaded()
            self._others += 1
            try:
                return await handler(request)
            finally:
                self._others -= 1

        return bounded

    def _authenticated(self, scope: KeyScope, handler: Handler) -> Handler:
        """Lets in who may, and turns every failure into a JSON error with a code."""

        async def authenticated(request: Request) -> Response:
            try:
                self._keys.admit(request.headers.get("x-api-key", "").encode("latin-1"), scope)
            except AccessError as error:
                return self._refused(
                    RequestRefusedError(
                        error.status, error.code, error.message, retry_after=error.retry_after
                    )
                )
            try:
                response = await handler(request)
                if self._closing:
                    response.headers["Connection"] = "close"
                return response
            except EventError as error:
                status = 413 if error.reason is Reason.TOO_LARGE else 400
                return self._refused(RequestRefusedError(status, error.reason, error.message, error.field))
            except RequestRefusedError as error:
                return self._refused(error)
            except StoreError as error:
                code, message = f"{error.store}_unavailable", f"{error.store} is not available now"
                return self._refused(RequestRefusedError(503, code, message))
            except ClientDisconnect:
                return self._refused(RequestRefusedError(400, "disconnected", "the client went away"))
            except Exception:  # the caller gets a code, the log the trace
                _log.exception("request failed")
                return self._refused(RequestRefusedError(500, "internal", "an internal error; it was logged"))

        return authenticated

    def _refused(self, error: RequestRefusedError) -> Response:
        self._service.instruments(metrics.REFUSED, reason=str(error.code)).inc()
        return self._error(error)

    def _refused_as_overloaded(self) -> Response:
        self._service.instruments(metrics.REFUSED, reason=self._refusal.code).inc()
        return self._overloaded

    @staticmethod
    def _error(error: RequestRefusedError) -> Response:
        fault = {"code": error.code, "message": error.message, "field": error.field}
        headers = None if error.retry_after is None else {"Retry-After": str(error.retry_after)}
        return Response(orjson.dumps({"error": fault}), error.status, headers, _JSON)

    async def decide(self, request: Request) -> Response:
        body, scope = await read_body(request), request.scope
        if _ADMITTED not in scope and not self._admit(scope):  # a body that came later than its head
            raise OverloadedError
        return Response(await self._service.decide(body, scope[ARRIVED]), 200, media_type=_JSON)

    async def find(self, request: Request) -> Response:
        stored = await self._service.find(request.path_params["id"])
        if stored is None:
            raise UnknownIdError
        return Response(stored, 200, media_type=_JSON)

    async def label(self, request: Request) -> Response:
        report = labels.parse_label(
            await read_body(request), self._service.config.spec, int(time.time() * 1000)
        )
        await self._service.log.append(self._reports, report["id"].encode(), orjson.dumps(report))
        return Response(orjson.dumps(report), 202, media_type=_JSON)

    async def release(self, _: Request) -> Response:
        ruling = self._service.release.ruling
        if ruling is None:
            raise NoReleaseError
        release = ruling.release

        def package(arm: str) -> dict[str, str] | None:
            chosen = getattr(release, arm)
            return (
                None
                if chosen is None
                else {"version": chosen.version, "digest": chosen.digest, "slot": chosen.slot}
            )

        document = {
            "name": release.name,
            "policy_revision": release.policy_revision,
            "stable": package("stable"),
            "candidate": package("candidate"),
            "share": release.split.share if release.split else None,
            "feature_set": self._service.features.hash,
            "problems": ruling.problems,
        }
        return Response(orjson.dumps(document), 200, media_type=_JSON)

    async def no_route(self, _: Request, error: Exception) -> Response:
        """No such path or method, in the form of every other error."""
        status = error.status_code if isinstance(error, HTTPException) else 404
        code = "not_found" if status == 404 else "method_not_allowed"
        message = "there is no such path" if status == 404 else "not with this method"
        return self._refused(RequestRefusedError(status, code, message))

    async def healthz(self, _: Request) -> Response:
        return Response(b'{"alive":true}', 200, media_type=_JSON)

    async def readyz(self, _: Request) -> Response:
        state = {"ready": self.ready, "release": self._service.release.name, "clients": self._keys.state}
        return Response(orjson.dumps(state), 200 if self.ready else 503, media_type=_JSON)

    async def metrics(self, _: Request) -> Response:
        instruments = self._service.instruments
        instruments(metrics.UNDER_WAY).set(self._admission.under_way)
        instruments(metrics.UNDER_WAY_BOUND).set(self._admission.bound)
        body = generate_latest(instruments.registry)
        return Response(body, 200, media_type=CONTENT_TYPE_LATEST)

    async def openapi(self, _: Request) -> Response:
        return Response(self._openapi, 200, media_type=_JSON)
