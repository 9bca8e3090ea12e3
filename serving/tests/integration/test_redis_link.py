"""The multiplexed connection: order, lateness, reconnect."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from fraud_contracts.errors import StoreError
from fraud_serving.clients.redis_link import RedisLink
from fraud_testing import redis
from fraud_testing.required import require

pytestmark = pytest.mark.integration


def test_replies_reach_their_callers_and_lateness_is_bounded() -> None:
    """Many at once get their own replies; a silent server costs the timeout; after it comes back, late replies don't mix."""
    require(redis.missing())

    async def run(server: redis.Server) -> None:
        link = RedisLink(server.url)
        await link.start()

        async def echo(i: int) -> None:
            assert await link.many([("SET", f"k{i}", i), ("GET", f"k{i}")], 5.0) == [b"OK", str(i).encode()]

        await asyncio.gather(*(echo(i) for i in range(500)))
        with pytest.raises(StoreError, match="WRONGTYPE"):
            await link.many([("LPUSH", "k1", 1)], 5.0)
        assert server.process is not None
        server.process.send_signal(signal.SIGSTOP)
        start = time.monotonic()
        with pytest.raises(StoreError, match="in time"):
            await link.call("GET", "k1", seconds=0.05)
        assert time.monotonic() - start < 2.0
        server.process.send_signal(signal.SIGCONT)
        until = time.monotonic() + 10
        while True:
            try:
                assert await link.call("GET", "k2", seconds=1.0) == b"2"
                break
            except StoreError:
                assert time.monotonic() < until
                await asyncio.sleep(0.05)
        server.stop(signal.SIGKILL)
        with pytest.raises(StoreError):
            await link.call("GET", "k2", seconds=1.0)
        server.start()
        until = time.monotonic() + 10
        while not link.connected:
            await asyncio.sleep(0.05)
            assert time.monotonic() < until
        assert await link.call("PING", seconds=2.0) == b"PONG"
        await link.stop()

    with redis.server() as server:
        asyncio.run(run(server))


def test_the_urls_database_is_used_and_a_wrong_address_is_refused() -> None:
    """Only redis and rediss addresses are accepted."""
    with pytest.raises(ValueError, match="redis://"):
        RedisLink("http://x")
