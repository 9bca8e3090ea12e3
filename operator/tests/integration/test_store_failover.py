"""Logins to stores whose primary moves: made where writes are taken, and there after another server took over."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
import redis

from fraud_contracts.errors import StoreError
from fraud_contracts.names import Identity
from fraud_operator import postgres_logins, redis_logins
from fraud_operator.store_login import LoginRefusedError, StoreAdmin, new_login
from fraud_process.postgres import completed
from fraud_process.redis_store import connected
from fraud_testing import postgres, sentinel
from fraud_testing.kafka import wait_for
from fraud_testing.postgres import Server, either
from fraud_testing.required import require

pytestmark = pytest.mark.integration
OF = Identity("pay", "cards")
NOW = 1_764_000_000


@pytest.fixture
def pair() -> Iterator[tuple[Server, Server]]:
    """A primary and its standby."""
    require(postgres.missing())
    with postgres.server() as primary, postgres.standby(primary) as standby:
        yield primary, standby


def test_a_login_is_made_at_the_primary_wherever_it_is(pair: tuple[Server, Server]) -> None:
    """Of two hosts the standby isn't asked; once it is promoted, one that its predecessor took to the grave is made there again."""
    primary, standby = pair
    admin = StoreAdmin(either(standby, primary))
    first, second = (new_login(OF.database_logins, now) for now in (NOW, NOW + 1))
    postgres_logins.ensure(admin, OF, first, settled=False)
    with psycopg.connect(standby.dsn, autocommit=True) as cut:
        cut.execute("ALTER SYSTEM SET primary_conninfo = ''")
        cut.execute("SELECT pg_reload_conf()")
    postgres_logins.ensure(admin, OF, second, settled=True)
    primary.stop(signal.SIGQUIT)
    with pytest.raises(StoreError, match="takes writes") as silent:
        postgres_logins.ensure(admin, OF, second, settled=True)
    assert not isinstance(silent.value, LoginRefusedError)
    standby.promote()
    postgres_logins.ensure(admin, OF, second, settled=True)
    own = completed(postgres_logins.address(admin.address, second), None)
    with psycopg.connect(own, autocommit=True) as session:
        session.execute(f"CREATE TABLE {OF.database_schema}.kept ()")
    roles = "SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s)"
    with psycopg.connect(standby.dsn) as session:
        assert session.execute(roles, (OF.database_logins,)).fetchall() == [(second.user,)]


def test_a_primary_that_was_demoted_is_away_and_refuses_nobody() -> None:
    """Behind one name it takes no writes for a moment: that says nothing of the login's rights."""
    require(postgres.missing())
    with postgres.server() as primary, postgres.standby(primary) as standby:
        login = new_login(OF.database_logins, NOW)
        with pytest.raises(StoreError, match="read-only") as read_only:
            postgres_logins.ensure(StoreAdmin(standby.dsn), OF, login, settled=False)
        assert not isinstance(read_only.value, LoginRefusedError)


def users(server: sentinel.Server) -> set[str]:
    """The detectors' users that the server has."""
    return {line for line in server.text("ACL", "USERS").split("\r\n") if line.startswith(OF.redis_logins)}


@pytest.mark.accept
def test_every_redis_server_has_the_users() -> None:
    """Before it is the master; one that was away gets them when it is back, and loses the former ones."""
    require(sentinel.missing())
    with sentinel.group() as group:
        admin, (master, replica) = StoreAdmin(group.url), group.servers
        first, second = (new_login(OF.redis_logins, now) for now in (NOW, NOW + 1))
        redis_logins.ensure(admin, OF, first, settled=False)
        assert users(master) == users(replica) == {first.user}
        group.end_master()
        own = redis_logins.address(admin.address, first)

        def ensured() -> bool:
            try:
                redis_logins.ensure(admin, OF, second, settled=True)
            except StoreError as error:
                assert not isinstance(error, LoginRefusedError)
                return False
            return True

        with closing(connected(own, None, 2.0)) as session:
            wait_for(lambda: pinged(session), 20, "the login at the new master")
        wait_for(ensured, 20, "the login's successor")
        assert users(replica) == {second.user}
        with pytest.raises(StoreError, match="nothing listens"):
            redis_logins.remove(admin, OF)
        assert users(replica) == set()
        master.primary = replica
        master.start()
        assert users(master) == {first.user}
        wait_for(
            lambda: ensured() and users(master) == {second.user}, 60, "the users of the one that is back"
        )
        redis_logins.remove(admin, OF)
        assert users(master) == users(replica) == set()


def pinged(session: redis.Redis) -> bool:
    try:
        return bool(session.ping())
    except redis.ConnectionError:
        return False


def test_sentinels_that_know_nothing_are_told_with_the_reason() -> None:
    """No such name is nothing to be refused for; the address without a name is, and so is one without the Sentinels' login."""
    require(sentinel.missing())
    with sentinel.group() as group:
        login = new_login(OF.redis_logins, NOW)
        with pytest.raises(StoreError, match="know no master of that name"):
            redis_logins.ensure(StoreAdmin(group.url.replace("/tests", "/other")), OF, login, settled=False)
        with pytest.raises(LoginRefusedError, match="no name of a master"):
            redis_logins.ensure(StoreAdmin(group.url.replace("/tests/0", "")), OF, login, settled=False)
        named = group.with_reader(group.url)
        redis_logins.ensure(StoreAdmin(named), OF, login, settled=False)
        assert [users(server) for server in group.servers] == [{login.user}] * 2
        with pytest.raises(LoginRefusedError, match="authenticate"):
            redis_logins.ensure(StoreAdmin(group.url), OF, login, settled=False)
