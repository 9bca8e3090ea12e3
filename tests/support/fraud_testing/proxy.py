"""A TCP proxy between a process and a server, for what a server's death doesn't show: silence, slowness, refused connections.

Clients that are told another address by the server (Kafka) must be told this one: ``Broker(advertised=proxy.port)``.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any


class Fault(StrEnum):
    STALL = "stall"  # connections stand and are accepted, no byte passes
    CUT = "cut"  # connections break, new ones are closed at once
    SLOW = "slow"  # each piece is held back for ``delay`` seconds


class Proxy:
    """Runs on a thread of its own. ``fault`` may change at any time; bytes held back by a stall pass when it ends."""

    def __init__(self, port: int, target: int) -> None:
        self.port, self._target = port, target
        self.delay = 0.0
        self._fault: Fault | None = None
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name=f"proxy-{port}")

    def _call(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def start(self) -> None:
        self._thread.start()
        self._call(self._start())

    async def _start(self) -> None:
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    def set(self, fault: Fault | None, delay: float = 0.0) -> None:
        self._call(self._set(fault, delay))

    async def _set(self, fault: Fault | None, delay: float) -> None:
        assert self._flowing is not None
        self._fault, self.delay = fault, delay if fault is Fault.SLOW else 0.0
        if fault is Fault.STALL:
            self._flowing.clear()
        else:
            self._flowing.set()
        if fault is Fault.CUT:
            for writer in self._writers:
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._fault is Fault.CUT:
            writer.transport.abort()
            return
        try:
            upstream = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:  # the server itself is down: the client sees a connection that breaks
            writer.transport.abort()
            return
        self._writers |= {writer, upstream[1]}
        try:
            await asyncio.gather(self._pipe(reader, upstream[1]), self._pipe(upstream[0], writer))
        finally:
            self._writers -= {writer, upstream[1]}

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._flowing is not None
        try:
            while data := await reader.read(65_536):
                if self.delay:
                    await asyncio.sleep(self.delay)
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # either end broke; the other is told below
        finally:
            writer.close()

    def stop(self) -> None:
        self.set(Fault.CUT)
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


@contextmanager
def proxy(port: int, target: int) -> Iterator[Proxy]:
    """A proxy on ``port`` before the server on ``target``."""
    running = Proxy(port, target)
    running.start()
    try:
        yield running
    finally:
        running.stop()
