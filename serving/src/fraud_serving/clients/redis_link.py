"""One multiplexed Redis connection: callers' commands share it, replies come back in order.

Everything that callers of one loop turn write goes out in one segment, so a request costs little more than the round
trip. There is no retry: a decision has a deadline, and the caller knows what to do without Redis. The address may change, as
where its password is rotated, and so may the master that Sentinels name: calls then go over a new connection as soon as it is there,
and the old one ends with its last reply. A server that takes no writes any more isn't the master; that connection counts as lost.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import ssl
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, NamedTuple, cast

import hiredis

from fraud_contracts.background import watched
from fraud_contracts.errors import StoreError
from fraud_process.redis_address import Place, RedisAddress, parse
from fraud_process.store_address import StoreAddress
from fraud_serving.clients.redis_sentinel import master_of

Argument = str | bytes | int
_SILENCE: Final = 1.0  # a connection on which calls time out and nothing arrives for so long is given up
_BACKOFF: Final = (0.02, 1.0)
_CONNECT: Final = 2.0
_LOOK: Final = 2.0  # how often the address is read, and Sentinels are asked


def wrong_type(reply: Any) -> bool:
    """Whether the command's key holds another type than it is for, as only another program leaves."""
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith("WRONGTYPE")


def no_room(reply: Any) -> bool:
    """Whether Redis has no memory left for what the command would write; what reads is answered as ever."""
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith("OOM")


class _Target(NamedTuple):
    """The server that an address leads to now."""

    url: str
    address: RedisAddress
    tls: ssl.SSLContext | None
    place: Place


def _demoted(reply: Any) -> bool:
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith("READONLY")


class _Wire(asyncio.Protocol):
    def __init__(self) -> None:
        self.waiting: collections.deque[asyncio.Future[Any]] = collections.deque()
        self.reader = hiredis.Reader()
        self.transport: asyncio.Transport | None = None
        self.unsent: list[bytes] = []
        self.heard = time.monotonic()
        self.lost = asyncio.Event()
        self.leaving = False
        self.demoted = False

    def leave(self) -> None:
        """Ends the connection once every call has its reply."""
        self.leaving = True
        if not self.waiting and self.transport is not None:
            self.transport.close()

    def send(self, commands: list[tuple[Argument, ...]]) -> None:
        """Queues commands; one write carries what all callers of this turn of the loop send."""
        if not self.unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self.unsent += [hiredis.pack_command(command) for command in commands]

    def _flush(self) -> None:
        if self.transport is not None:
            self.transport.write(b"".join(self.unsent))
        self.unsent.clear()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own class, same methods

    def data_received(self, data: bytes) -> None:
        self.heard = time.monotonic()
        self.reader.feed(data)
        while (reply := self.reader.gets()) is not False:
            self.demoted = self.demoted or _demoted(reply)
            future = self.waiting.popleft()
            if not future.done():  # one that timed out left its place in the queue, so that the order holds
                future.set_result(reply)
        if self.leaving:
            self.leave()
        if self.demoted and self.transport is not None:
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        for future in self.waiting:
            if not future.done():
                future.set_exception(
                    StoreError("redis", f"connection lost: {error or 'closed by the server'}")
                )
        self.waiting.clear()
        self.lost.set()


class RedisLink:
    """``many`` sends commands together and gives their replies; StoreError where one failed or came late."""

    def __init__(self, address: StoreAddress) -> None:
        """ValueError where the address is none."""
        parse(address.read())
        self._address = address
        self._wire: _Wire | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._first = asyncio.Event()
        # Called with each new connection: another server may be behind it, or an earlier state of the same.
        self.on_connection: Callable[[], Coroutine[Any, Any, None]] | None = None
        self._calls: set[asyncio.Task[None]] = set()

    async def start(self, wait: float = 2.0) -> None:
        """Connects in the background for as long as the process lives; waits a moment for the first connection."""
        self._keeper = watched(asyncio.create_task(self._keep(), name="redis"))
        await asyncio.wait({asyncio.create_task(self._first.wait())}, timeout=wait)

    async def stop(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._wire is not None and self._wire.transport is not None:
            self._wire.transport.close()

    @property
    def connected(self) -> bool:
        return self._wire is not None and self._wire.transport is not None

    async def _keep(self) -> None:
        pause, logged = _BACKOFF[0], False
        while True:
            try:
                target = await self._locate()
                wire = await self._connect(target)
            except (OSError, TimeoutError, StoreError, ValueError) as error:
                if not logged:
                    logging.getLogger(__name__).warning(
                        "redis is away", extra={"data": {"error": str(error)}}
                    )
                    logged = True
                await asyncio.sleep(pause)
                pause = min(pause * 2, _BACKOFF[1])
                continue
            if logged:
                logging.getLogger(__name__).info("redis is back")
            earlier, self._wire, pause, logged = self._wire, wire, _BACKOFF[0], False
            if earlier is not None:
                earlier.leave()
            self._first.set()
            if self.on_connection is not None:
                call = watched(asyncio.create_task(self.on_connection(), name="redis is there"))
                self._calls.add(call)
                call.add_done_callback(self._calls.discard)
            await self._until_lost_or_moved(wire, target)
            if wire.demoted:
                await asyncio.sleep(pause)

    async def _locate(self) -> _Target:
        """StoreError or ValueError where the address, or its Sentinels, lead nowhere."""
        url = self._address.read()
        address = parse(url)
        tls = ssl.create_default_context(cafile=self._address.authority) if address.tls else None
        return _Target(url, address, tls, await master_of(address, tls))

    async def _until_lost_or_moved(self, wire: _Wire, target: _Target) -> None:
        """A wire whose address leads elsewhere by now stays in use until its successor is there."""
        while not wire.lost.is_set():
            try:
                async with asyncio.timeout(_LOOK):
                    await wire.lost.wait()
            except TimeoutError:
                if await self._is_elsewhere(target):
                    return
        self._wire = None

    async def _is_elsewhere(self, target: _Target) -> bool:
        try:
            if self._address.read() != target.url:
                return True
            return await master_of(target.address, target.tls) != target.place
        except StoreError:
            return False

    async def _connect(self, target: _Target) -> _Wire:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_CONNECT):
            _, wire = await loop.create_connection(_Wire, *target.place, ssl=target.tls)
        await self._greet(wire, target.address)
        return wire

    async def _greet(self, wire: _Wire, address: RedisAddress) -> None:
        """Signs in and chooses the database. While Redis loads its data it refuses; that counts as away."""
        hello: list[tuple[Argument, ...]] = [("AUTH", *address.login.words)] if address.login.words else []
        hello += [("SELECT", address.database), ("PING",)]
        try:
            for reply in await self._ask(wire, hello, _CONNECT):
                if isinstance(reply, hiredis.ReplyError):
                    raise StoreError("redis", str(reply))
        except StoreError:
            if wire.transport is not None:
                wire.transport.abort()
            raise

    async def many(self, commands: list[tuple[Argument, ...]], seconds: float) -> list[Any]:
        """Replies in order. An error reply of any command is raised, as is a timeout."""
        replies = await self.each(commands, seconds)
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise StoreError("redis", str(reply))
        return replies

    async def each(self, commands: list[tuple[Argument, ...]], seconds: float) -> list[Any]:
        """As ``many``, but a command whose key is of another type, or for which there is no room, has that error as its reply."""
        wire = self._wire
        if wire is None:
            raise StoreError("redis", "not connected")
        replies = await self._ask(wire, commands, seconds)
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError) and not (wrong_type(reply) or no_room(reply)):
                raise StoreError("redis", str(reply))
        return replies

    async def call(self, *command: Argument, seconds: float) -> Any:
        return (await self.many([command], seconds))[0]

    def post(self, commands: list[tuple[Argument, ...]]) -> None:
        """Sends commands whose replies nobody waits for; without a connection they are dropped."""
        wire = self._wire
        if wire is None or wire.transport is None:
            return
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in commands]
        for future in futures:
            future.cancel()  # keeps its place in the queue of replies
        wire.waiting.extend(futures)
        wire.send(commands)

    @staticmethod
    async def _ask(wire: _Wire, commands: list[tuple[Argument, ...]], seconds: float) -> list[Any]:
        if wire.transport is None:
            raise StoreError("redis", "not connected")
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in commands]
        wire.waiting.extend(futures)
        wire.send(commands)
        late = loop.call_later(seconds, _late, futures[-1], wire)
        try:
            await futures[-1]
            return [future.result() for future in futures]
        finally:
            late.cancel()
            for future in futures:
                if future.done() and not future.cancelled():
                    future.exception()  # seen; else asyncio complains about those nobody asked for


def _late(future: asyncio.Future[Any], wire: _Wire) -> None:
    if not future.done():
        future.set_exception(StoreError("redis", "no answer in time"))
    if time.monotonic() - wire.heard > _SILENCE and wire.transport is not None:
        wire.transport.abort()
