"""A Redis master that moves, before both doors' own code: real servers and Sentinels, the master killed, the replica promoted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from fraud_contracts.config import REDIS_URL, STORES_ENV, ca_cert
from fraud_contracts.errors import StoreError
from fraud_process.redis_address import parse
from fraud_process.redis_store import RedisStore
from fraud_process.store_address import StoreAddress, store_address
from fraud_serving import claims
from fraud_serving.clients.redis_link import RedisLink
from fraud_serving.clients.redis_sentinel import master_of
from fraud_serving.decision.service import DecisionService
from fraud_serving.worker.redis_claims import RedisClaims
from fraud_testing import certificates, redis, sentinel
from fraud_testing.batches import OF
from fraud_testing.certificates import Certificates
from fraud_testing.inline_door import Log, payment, with_service
from fraud_testing.kafka import free_port, wait_for
from fraud_testing.required import require

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    require(certificates.missing())
    return certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def group() -> Iterator[sentinel.Group]:
    require(sentinel.missing())
    with sentinel.group() as running:
        yield running


async def until(condition: Callable[[], Awaitable[bool]], seconds: float, what: str) -> None:
    """As ``wait_for``, on the test's loop."""
    end = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < end, what
        await asyncio.sleep(0.05)


def answer(call: Callable[[], list[bytes | None]]) -> list[bytes | None]:
    """The call's first answer that is no error."""

    def tried() -> list[bytes | None] | None:
        try:
            return call()
        except StoreError:
            return None

    return wait_for(tried, 30, "an answer")


def test_decisions_go_on_at_the_new_master(group: sentinel.Group) -> None:
    """Without a master an answer says what it did without; then nothing is missing, and a repeat gets the bytes of its first answer."""

    async def steps(service: DecisionService, log: Log) -> None:
        body = payment("before")
        first = await service.decide(body)
        assert "profiles_unavailable" not in orjson.loads(first)["degraded"]
        await service.drain(1.0)
        ending = asyncio.create_task(asyncio.to_thread(group.end_master))
        await until(lambda: _is_degraded(service), 30, "an answer without Redis")
        await ending

        async def whole() -> bool:
            return not await _is_degraded(service)

        await until(whole, 30, "an answer with Redis")
        assert await service.decide(body) == first
        assert [one["decision"]["id"] for one in log.appended].count("before") == 1

    with_service(group.login(OF), steps)


async def _is_degraded(service: DecisionService) -> bool:
    answer = orjson.loads(await service.decide(payment(f"at-{time.monotonic_ns()}")))
    return "profiles_unavailable" in answer["degraded"]


def take(key: str, value: bytes) -> claims.Command:
    return claims.take([claims.ClaimAttempt(key, value)], OF.redis_due, 0)


def test_a_worker_finds_its_claims_at_the_new_master(group: sentinel.Group) -> None:
    """Calls fail until the Sentinels name one; then it has what the former one had answered."""
    store, key = RedisClaims(StoreAddress(group.login(OF))), OF.redis_claim("e")
    assert store.claim(take(key, b"mine")) == [None]
    group.end_master()
    assert answer(lambda: store.claim(take(key, b"other"))) == [b"mine"]
    assert store.mark_and_read(None, [key]) == [b"mine"]


def test_a_master_that_is_demoted_costs_one_connection(group: sentinel.Group) -> None:
    """Sentinels move it while it lives, as for maintenance: writes go to the new one, without a restart."""

    async def run() -> None:
        link = RedisLink(StoreAddress(group.login(OF)))
        await link.start()
        former = group.master()
        group.failover()

        async def written() -> bool:
            try:
                await link.call("SET", OF.redis_claim("moved"), 1, seconds=1.0)
            except StoreError:
                return False
            return group.master() is not former

        await until(written, sentinel.MOVED_SECONDS, "a write at the new master")
        await link.stop()

    asyncio.run(run())


def test_a_server_that_takes_no_writes_is_left() -> None:
    """Also where one name follows the master, without Sentinels: the connection to the former one ends, and another is made."""
    require(redis.missing())
    with redis.server() as former:
        store, address = RedisClaims(StoreAddress(former.url)), StoreAddress(former.url)
        assert store.claim(take("k", b"one")) == [None]

        async def run() -> None:
            link = RedisLink(address)
            await link.start()
            before = await link.call("CLIENT", "ID", seconds=2.0)
            former.command("REPLICAOF", "127.0.0.1", str(free_port()))
            with pytest.raises(StoreError, match="READONLY"):
                await link.call("SET", "k", "two", seconds=2.0)

            async def anew() -> bool:
                try:
                    return bool(await link.call("CLIENT", "ID", seconds=2.0) != before)
                except StoreError:
                    return False

            await until(anew, 5, "another connection")
            await link.stop()

        asyncio.run(run())
        with pytest.raises(StoreError, match="read only replica"):
            store.claim(take("other", b"two"))
        former.command("REPLICAOF", "NO", "ONE")
        assert store.claim(take("other", b"two")) == [None]


def mounted(folder: Path, address: str, authority: Path) -> StoreAddress:
    """The address as a Pod has it."""
    (folder / REDIS_URL).write_text(address)
    (folder / ca_cert(REDIS_URL)).write_text(authority.read_text())
    return store_address(REDIS_URL, {STORES_ENV: str(folder)})


def test_sentinels_and_servers_are_verified(own: Certificates, tmp_path: Path) -> None:
    """By the authority beside the address, and the server by the name that the Sentinels call it; another's is told nothing."""
    stranger = certificates.make(tmp_path / "stranger")
    with sentinel.group(certificates=own) as group:
        known = mounted(tmp_path, group.login(OF), own.authority)
        assert asyncio.run(_is_let_in(known))
        store = RedisClaims(known)
        assert answer(lambda: store.mark_and_read(None, [OF.redis_claim("e")])) == [None]
        unknown = mounted(tmp_path, group.login(OF), stranger.authority)
        assert not asyncio.run(_is_let_in(unknown, 0.5))
        with pytest.raises(StoreError, match="certificate"):
            RedisClaims(unknown).mark_and_read(None, [OF.redis_claim("e")])
        with sentinel.watcher(group.servers[0], name="127.0.0.2") as other:
            known = mounted(tmp_path, group.login(OF, [other]), own.authority)
            assert not asyncio.run(_is_let_in(known, 0.5))
            with pytest.raises(StoreError, match="certificate"):
                RedisClaims(known).mark_and_read(None, [OF.redis_claim("e")])


def test_sentinels_may_ask_for_a_login_of_their_own(group: sentinel.Group) -> None:
    """A user that may ask for the master, and nothing else; without it nobody is told."""
    login = group.login(OF)
    named = group.with_reader(login)
    assert asyncio.run(_is_let_in(StoreAddress(named)))
    store = RedisClaims(StoreAddress(named))
    assert answer(lambda: store.mark_and_read(None, [OF.redis_claim("e")])) == [None]
    assert not asyncio.run(_is_let_in(StoreAddress(login), 0.5))
    with pytest.raises(StoreError, match="authenticate"):
        RedisClaims(StoreAddress(login)).mark_and_read(None, [OF.redis_claim("e")])


async def _is_let_in(address: StoreAddress, seconds: float = 5.0) -> bool:
    link = RedisLink(address)
    await link.start(wait=seconds)
    try:
        return link.connected
    finally:
        await link.stop()


@pytest.mark.parametrize(
    ("said", "place"),
    [
        (["new", "old", "new"], "new"),
        (["old", "new", "new"], "new"),
        (["new", "silent", "new"], "new"),
        (["new", "closed", "refused"], "new"),
    ],
)
def test_what_most_sentinels_say_counts(said: list[str], place: str) -> None:
    """One that is cut off from the others, is silent, dead, or refuses the login neither decides nor delays."""

    async def run() -> None:
        servers = [await asyncio.start_server(_answering(one), "127.0.0.1", 0) for one in said]
        ports = [server.sockets[0].getsockname()[1] for server in servers]
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        address = parse(f"redis+sentinel://{hosts}/main?sentinel_password=p")
        began = time.monotonic()
        assert await master_of(address, None) == (place, 6379)
        assert time.monotonic() - began < 3.0
        for server in servers:
            server.close()

    asyncio.run(run())


def test_without_a_word_of_sentinels_the_error_says_so() -> None:
    """Nobody listens; the address is a right one."""
    address = parse(f"redis+sentinel://u:secret@127.0.0.1:{free_port()}/main")
    with pytest.raises(StoreError, match="no Sentinel names a master"):
        asyncio.run(master_of(address, None))
    store = RedisStore(StoreAddress(f"redis+sentinel://u:secret@127.0.0.1:{free_port()}/main"), 1.0)
    with pytest.raises(Exception, match="no master by the Sentinels") as silent:
        store.client.ping()
    assert "secret" not in str(store.failure(silent.value))


def _answering(what: str) -> Any:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        if what == "closed":
            writer.close()
        elif what == "refused":
            writer.write(b"-WRONGPASS invalid\r\n")
        elif what != "silent":
            writer.write(f"+OK\r\n*2\r\n${len(what)}\r\n{what}\r\n$4\r\n6379\r\n".encode())

    return reply
