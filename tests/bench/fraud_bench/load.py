"""An open-loop HTTP client that costs little: it shares two cores with what it measures.

Requests are due at random times (Poisson arrivals), whatever the server does, and a latency counts from the time at which
the request was due. A closed loop would send less exactly when the server is slow, and so hide the slowness.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import orjson

CONNECTIONS = 64
# Of a request: its number, seconds from due to answered, the status, the body.
Told = Callable[[int, float, str, bytes], None]
# Requests that had no answer so long after the last was due count as lost.
PATIENCE = 20.0


@dataclass
class Answers:
    """What came back: per request seconds from due to answered, counts by status and by what an answer was degraded by."""

    seconds: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    elapsed: float = 0.0
    lost: int = 0

    def at(self, share: float) -> float:
        """Milliseconds that ``share`` of the requests stayed within."""
        return quantile(self.seconds, share) * 1000


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


class _Connection(asyncio.Protocol):
    """One request at a time; the next waiting one is sent as soon as an answer is whole."""

    def __init__(self, load: Load) -> None:
        self._load, self._buffer, self._due, self._number = load, b"", 0.0, 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._load.idle.append(self)

    def send(self, due: float, number: int, request: bytes) -> None:
        self._due, self._number = due, number
        assert self._transport is not None
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer = self._buffer + data if self._buffer else data
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = buffer[:end].lower()
        start = head.index(b"content-length:") + 15
        size = int(head[start : head.find(b"\r", start) if b"\r" in head[start:] else len(head)])
        if len(buffer) < end + 4 + size:
            return
        self._buffer = b""
        status, body = buffer[9:12].decode(), buffer[end + 4 : end + 4 + size]
        self._load.answered(self, self._due, self._number, status, body)

    def connection_lost(self, error: Exception | None) -> None:
        self._load.closed(self)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Load:
    """Sends ``make(i)`` to ``path`` at a rate for some seconds; the first ``warm`` seconds aren't counted. ``told`` hears of every answer."""

    def __init__(
        self,
        url: str,
        path: str,
        headers: dict[str, str],
        make: Callable[[int], bytes],
        connections: int = CONNECTIONS,
        told: Told = lambda number, seconds, status, body: None,
    ) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._head = f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\n{more}Content-Length: "
        self._make, self._told, self._connections = make, told, connections
        self.idle: deque[_Connection] = deque()
        self.connections: list[_Connection] = []
        self._waiting: deque[tuple[float, int, bytes]] = deque()
        self._from = 0.0
        self._open = 0  # sent or waiting, not answered yet
        self._all_sent = False
        self._done = asyncio.Event()
        self.answers = Answers()

    async def run(self, rate: float, seconds: float, warm: float = 2.0) -> Answers:
        loop = asyncio.get_running_loop()
        for _ in range(self._connections):
            _, connection = await loop.create_connection(lambda: _Connection(self), self._host, self._port)
            self.connections.append(connection)
        start = due = time.perf_counter()
        self._from = start + warm
        sent = 0
        while True:
            due += random.expovariate(rate)
            if due > start + warm + seconds:
                break
            wait = due - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            self._submit(due, sent, self._make(sent))
            sent += 1
        self._all_sent = True
        if self._open:
            await asyncio.wait({asyncio.create_task(self._done.wait())}, timeout=PATIENCE)
        self.answers.elapsed = time.perf_counter() - self._from
        self.answers.lost = self._open
        for connection in self.connections:
            connection.close()
        return self.answers

    def _submit(self, due: float, number: int, body: bytes) -> None:
        self._open += 1
        request = f"{self._head}{len(body)}\r\n\r\n".encode() + body
        if self.idle:
            self.idle.popleft().send(due, number, request)
        else:
            self._waiting.append((due, number, request))

    def answered(self, connection: _Connection, due: float, number: int, status: str, body: bytes) -> None:
        now = time.perf_counter()
        self._open -= 1
        self._told(number, now - due, status, body)
        if self._all_sent and not self._open:
            self._done.set()
        if due >= self._from:
            self.answers.seconds.append(now - due)
            self.answers.outcomes[status] += 1
            if b'"degraded":[]' not in body and status == "200":
                for mark in orjson.loads(body).get("degraded", ()):
                    self.answers.outcomes[mark] += 1
        if self._waiting:
            connection.send(*self._waiting.popleft())
        else:
            self.idle.append(connection)

    def closed(self, connection: _Connection) -> None:
        """By the server: what was asked on it is lost."""
        if connection in self.idle:
            self.idle.remove(connection)
