"""Logins to stores whose primary moves: made where writes are taken, and there after another server took over."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import psycopg
import pytest

from fraud_contracts.errors import StoreError
from fraud_contracts.names import Identity
from fraud_operator import postgres_logins
from fraud_operator.store_login import LoginRefusedError, StoreAdmin, new_login
from fraud_process.postgres import completed
from fraud_testing import postgres
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
