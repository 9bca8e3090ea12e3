"""A small HTTP/1.1 client for predictors: kept connections, one request on each at a time, a deadline by abort.

General clients cost up to ten times the model call. What they do beyond this (redirects, cookies, chunked bodies) a
predictor doesn't need; an answer that isn't plain is an error.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final, cast
from urllib.parse import urlsplit

import orjson

from fraud_contracts.errors import StoreError
from fraud_contracts.release import ModelPackage
from fraud_serving.clients.addresses import AddressBook, Turns, time_for
from fraud_serving.ruling import Prediction

MAX_CONNECTIONS: Final = 64


def target(package: ModelPackage, service: str) -> tuple[str, int, str]:
    """Host, port and path of a package's inference; ``service`` is the InferenceService's name."""
    parts = urlsplit(package.url if "//" in package.url else f"//{package.url}")
    if not parts.hostname:
        raise StoreError("predictor", f"the release gives no address for model {package.version}")
    path = parts.path.rstrip("/")
    if not path.endswith("/infer"):
        path = f"{path}/v2/models/{service}/infer"
    return parts.hostname, parts.port or 80, path


def request_body(rows: Sequence[Sequence[float | None]], explain: bool = True) -> bytes:
    """V2 inference in JSON; orjson writes NaN as null, which the predictor reads as NaN."""
    tensor = {"name": "features", "shape": [len(rows), len(rows[0])], "datatype": "FP32"}
    tensor["data"] = [value for row in rows for value in row]
    whole: dict[str, Any] = {"inputs": [tensor]}
    if not explain:
        whole["outputs"] = [{"name": "probability"}]
    return orjson.dumps(whole)


def read_predictions(package: ModelPackage, status: int, body: bytes, rows: int) -> list[Prediction]:
    """One prediction a row; StoreError where the predictor failed or serves another model than the release."""
    if status != 200:
        raise StoreError("predictor", f"HTTP {status}: {body[:200].decode(errors='replace')}")
    try:
        answer = orjson.loads(body)
        outputs = {output["name"]: output["data"] for output in answer["outputs"]}
        version, digest = (str(answer["parameters"][name]) for name in ("model_version", "digest"))
        probabilities = outputs["probability"]
        columns, added = outputs.get("reasons", ()), outputs.get("contributions", ())
        each = len(columns) // rows
        predictions = []
        for i, probability in enumerate(probabilities):
            row = slice(i * each, (i + 1) * each)
            contributions = tuple((j, c) for j, c in zip(columns[row], added[row], strict=True) if j >= 0)
            predictions.append(Prediction(float(probability), contributions, version, digest))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise StoreError("predictor", f"no V2 inference answer: {error}") from error
    if digest != package.digest:
        raise StoreError("predictor", f"serves {digest[:15]}, the release says {package.digest[:15]}")
    if len(predictions) != rows:
        raise StoreError("predictor", f"{len(predictions)} scores for {rows} rows")
    return predictions


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.answer: asyncio.Future[tuple[int, bytes, bool]] | None = None
        self.buffer = b""
        self.used = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own class, same methods

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, complete, body = self.buffer.partition(b"\r\n\r\n")
        if not complete or self.answer is None or self.answer.done():
            return
        length = keep = None
        lines = head.split(b"\r\n")
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            name = name.strip().lower()
            if name == b"content-length":
                length = int(value)
            elif name == b"connection":
                keep = value.strip().lower() != b"close"
        if length is None:
            self.answer.set_exception(StoreError("predictor", "answer without content-length"))
        elif len(body) >= length:
            self.buffer = b""
            self.answer.set_result((int(lines[0].split(b" ", 2)[1]), body[:length], keep is not False))

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(ConnectionResetError(str(error or "closed by the predictor")))


def _late(answer: asyncio.Future[tuple[int, bytes, bool]]) -> None:
    if not answer.done():
        answer.set_exception(TimeoutError())


class ModelClient:
    """``score`` asks a package's predictors in turns; connections are kept per address."""

    def __init__(self, addresses: AddressBook | None = None) -> None:
        self._addresses = addresses or AddressBook()
        # By name and port, then by address.
        self._idle: dict[tuple[str, int], dict[str, list[_Connection]]] = {}

    async def score(
        self, package: ModelPackage, service: str, rows: Sequence[Sequence[float | None]], seconds: float
    ) -> list[Prediction]:
        """Of the predictor whose turn it is, else of another one; StoreError where none answers in time."""
        host, port, path = target(package, service)
        body = request_body(rows)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode()
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        turns = await self._turns(host, until)
        pool = self._idle.setdefault((host, port), {})
        for gone in pool.keys() - set(turns.addresses):
            _close(pool.pop(gone))
        order = turns.order(time.monotonic())
        problem = StoreError("predictor", f"no answer within {seconds * 1000:.0f} ms")
        for number, address in enumerate(order):
            left = until - loop.time()
            if left <= 0:
                break
            at = loop.time() + time_for(len(order) - number, left)
            try:
                status, answer = await self._ask(
                    pool.setdefault(address, []), (address, port), head + body, at
                )
                predictions = read_predictions(package, status, answer, len(rows))
            except OSError as error:
                if not isinstance(error, TimeoutError):
                    problem = StoreError("predictor", f"{type(error).__name__}: {error}")
                    problem.__cause__ = error
            except StoreError as error:
                problem = error
            else:
                turns.answered(address)
                return predictions
            turns.failed(address, time.monotonic())
        raise problem

    async def _turns(self, host: str, until: float) -> Turns:
        asked = self._addresses.ask(host)
        try:
            if asked.done():
                return asked.result()
            async with asyncio.timeout_at(until):
                return await asyncio.shield(asyncio.wrap_future(asked))
        except OSError as error:  # TimeoutError is one
            raise StoreError("predictor", f"no address of {host}: {error or 'no answer'}") from error

    async def _ask(
        self, idle: list[_Connection], address: tuple[str, int], request: bytes, until: float
    ) -> tuple[int, bytes]:
        try:
            return await self._send(idle, address, request, until)
        except ConnectionResetError:
            # A kept connection that the predictor closed meanwhile. Scoring changes nothing, so once more.
            return await self._send(idle, address, request, until, fresh=True)

    async def _send(
        self,
        idle: list[_Connection],
        address: tuple[str, int],
        request: bytes,
        until: float,
        fresh: bool = False,
    ) -> tuple[int, bytes]:
        """``until`` is the loop's time; TimeoutError past it."""
        connection = None
        while idle and not fresh and connection is None:
            kept = idle.pop()
            connection = kept if kept.transport is not None else None
        loop = asyncio.get_running_loop()
        if connection is None:
            async with asyncio.timeout_at(until):
                _, connection = await loop.create_connection(_Connection, *address)
        assert connection.transport is not None
        connection.answer = loop.create_future()
        late = loop.call_at(until, _late, connection.answer)
        done = False
        try:
            connection.transport.write(request)
            status, body, keep = await connection.answer
            done = keep
            return status, body
        finally:
            late.cancel()
            if done and len(idle) < MAX_CONNECTIONS and connection.transport is not None:
                idle.append(connection)
            elif connection.transport is not None:
                connection.transport.abort()  # late or broken: what would still come must not meet the next request

    def close(self) -> None:
        for pool in self._idle.values():
            for connections in pool.values():
                _close(connections)
        self._idle.clear()


def _close(connections: list[_Connection]) -> None:
    for connection in connections:
        if connection.transport is not None:
            connection.transport.close()
