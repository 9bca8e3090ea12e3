"""The processes' clients of real stores that speak TLS alone: by the authority beside the address, and by no other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from fraud_contracts.config import POSTGRES_DSN, REDIS_URL, STORES_ENV, ca_cert
from fraud_contracts.errors import StoreError
from fraud_process.postgres import address_of
from fraud_process.store_address import StoreAddress, store_address
from fraud_serving.clients.redis_link import RedisLink
from fraud_serving.worker.redis_claims import RedisClaims
from fraud_sinks.database import Database, connect, migrate
from fraud_testing import certificates, detectors, postgres, redis
from fraud_testing.certificates import Certificates
from fraud_testing.required import require

pytestmark = pytest.mark.integration
OF = detectors.detector("unused:9092").identity


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    require(certificates.missing())
    return certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Another authority, which certified nothing here."""
    return certificates.make(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def cache(own: Certificates) -> Iterator[redis.Server]:
    require(redis.missing())
    with redis.server(certificates=own) as running:
        yield running


@pytest.fixture(scope="module")
def database(own: Certificates) -> Iterator[postgres.Server]:
    require(postgres.missing())
    with postgres.server(certificates=own) as running:
        yield running


def mounted(folder: Path, key: str, address: str, authority: Path | None) -> StoreAddress:
    """The address as a Pod has it."""
    (folder / key).write_text(address)
    if authority is not None:
        (folder / ca_cert(key)).write_text(authority.read_text())
    return store_address(key, {STORES_ENV: str(folder)})


def test_redis_is_spoken_to_by_the_authority_beside_its_address(
    cache: redis.Server, own: Certificates, tmp_path: Path
) -> None:
    """The door's connection and the worker's client both verify the server."""
    address = mounted(tmp_path, REDIS_URL, cache.login(OF), own.authority)

    async def ask() -> None:
        link = RedisLink(address)
        await link.start()
        assert await link.call("GET", OF.redis_claim("e"), seconds=2.0) is None
        await link.stop()

    asyncio.run(ask())
    assert RedisClaims(address).mark_and_read(None, [OF.redis_claim("e")]) == [None]


@pytest.mark.parametrize("known", [True, False])
def test_a_redis_of_another_authority_is_told_nothing(
    cache: redis.Server, stranger: Certificates, tmp_path: Path, known: bool
) -> None:
    """Neither with another authority's certificate beside the address nor with none."""
    address = mounted(tmp_path, REDIS_URL, cache.login(OF), stranger.authority if known else None)

    async def ask() -> None:
        link = RedisLink(address)
        await link.start(wait=0.5)
        assert not link.connected
        await link.stop()

    asyncio.run(ask())
    with pytest.raises(StoreError, match="certificate"):
        RedisClaims(address).mark_and_read(None, [OF.redis_claim("e")])


def test_postgres_is_verified_in_full(
    database: postgres.Server, own: Certificates, stranger: Certificates, tmp_path: Path
) -> None:
    """By the authority beside the address; a server of another one, or under another name, is told nothing."""
    dsn = database.dsn
    address = mounted(tmp_path, POSTGRES_DSN, dsn, own.authority)
    migrate(address_of(address), OF.database_schema)
    with Database(address, OF.database_schema).transaction() as cursor:
        cursor.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        assert cursor.fetchone() == (True,)
    other = mounted(tmp_path, POSTGRES_DSN, f"{dsn}?host=stranger.test&hostaddr=127.0.0.1", own.authority)
    for wrong in (other, mounted(tmp_path, POSTGRES_DSN, dsn, stranger.authority)):
        with pytest.raises(StoreError, match="certificate"):
            connect(address_of(wrong))


def test_an_address_that_says_how_it_is_verified_is_left_as_it_is(own: Certificates, tmp_path: Path) -> None:
    """The user's own sslmode and sslrootcert count."""
    said = mounted(tmp_path, POSTGRES_DSN, "host=h sslrootcert=system", own.authority)
    assert address_of(said) == "host=h sslrootcert=system"
    said = mounted(tmp_path, POSTGRES_DSN, "host=h sslmode=verify-ca", own.authority)
    assert "sslmode=verify-ca" in address_of(said) and "sslrootcert=" in address_of(said)


def test_of_several_hosts_the_one_that_takes_writes_is_asked_for() -> None:
    """Unless the address says which one; hosts and ports that don't match are no address, and the error quotes neither."""
    several = "postgresql://u:secret@a,b:6432/ledger"
    assert "target_session_attrs=read-write" in address_of(StoreAddress(several))
    assert address_of(StoreAddress(f"{several}?target_session_attrs=any")).endswith("=any")
    assert address_of(StoreAddress("host=one")) == "host=one"
    with pytest.raises(StoreError, match="can't be read"):
        address_of(StoreAddress("host=a,b,c port=1,2"))
