"""The multiplexed connection: order, lateness, reconnect."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from pathlib import Path

import pytest

from fraud_contracts.errors import StoreError
from fraud_process.store_address import StoreAddress
from fraud_serving.clients.redis_link import RedisLink
from fraud_testing import detectors, redis
from fraud_testing.kafka import wait_for
from fraud_testing.required import require

pytestmark = pytest.mark.integration


def test_replies_reach_their_callers_and_lateness_is_bounded() -> None:
    """Many at once get their own replies; a silent server costs the timeout; after it comes back, late replies don't mix."""
    require(redis.missing())

    async def run(server: redis.Server) -> None:
        link = RedisLink(StoreAddress(server.url))
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


def test_a_rotated_login_costs_no_call(tmp_path: Path) -> None:
    """While the address's file is replaced under load and the old user then goes, every call has its reply."""
    require(redis.missing())
    identity = detectors.detector("unused:9092").identity
    file, key = tmp_path / "REDIS_URL", identity.redis_claim("e")
    old, new = f"{identity.redis_logins}00000001", f"{identity.redis_logins}00000002"

    async def run(server: redis.Server) -> None:
        link, done = RedisLink(StoreAddress(file=file)), asyncio.Event()
        await link.start()

        async def load() -> None:
            while not done.is_set():
                assert (await link.many([("SET", key, 1), ("GET", key)], 2.0))[1] == b"1"

        def moved() -> bool:
            users = listed(server)
            return f"user={new} " in users and f"user={old} " not in users

        loads = [asyncio.create_task(load()) for _ in range(4)]
        await asyncio.gather(*(link.call("GET", key, seconds=2.0) for _ in range(100)))
        file.write_text(server.login(identity, new, "second"))
        await asyncio.to_thread(wait_for, moved, 20, "the new user's connection")
        server.command("ACL", "DELUSER", old)
        await asyncio.gather(*(link.call("GET", key, seconds=2.0) for _ in range(100)))
        done.set()
        await asyncio.gather(*loads)
        await link.stop()

    with redis.server() as server:
        file.write_text(server.login(identity, old, "first"))
        asyncio.run(run(server))


def listed(server: redis.Server) -> str:
    """The server's connections, as it lists them."""
    return subprocess.run(
        ["redis-cli", "-p", str(server.port), "CLIENT", "LIST"], capture_output=True, text=True, check=True
    ).stdout


def test_the_urls_database_is_used_and_a_wrong_address_is_refused() -> None:
    """Only redis and rediss addresses are accepted."""
    with pytest.raises(ValueError, match="redis://"):
        RedisLink(StoreAddress("http://x"))
