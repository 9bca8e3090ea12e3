"""Whoever has a detector's login to PostgreSQL can't keep it, take another's by it, or stop another's from being made."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any

import psycopg
import pytest

from fraud_contracts.errors import StoreError
from fraud_contracts.names import Identity
from fraud_operator import postgres_logins, redis_logins
from fraud_operator.store_login import LoginRefusedError, StoreAdmin, StoreLogin, new_login
from fraud_testing import postgres
from fraud_testing.kafka import free_port, wait_for
from fraud_testing.required import require

pytestmark = [pytest.mark.integration, pytest.mark.accept]
VICTIM = Identity("pay", "cards")
START = 1_764_000_000
LATER = START + 100


@pytest.fixture(scope="module")
def database() -> Iterator[postgres.Server]:
    require(postgres.missing())
    with postgres.server(passwords=True) as running:
        yield running


def login_of(identity: Identity, now: int = START) -> StoreLogin:
    return new_login(identity.database_logins, now)


def connect(
    server: postgres.Server, login: StoreLogin, database: str = "postgres"
) -> psycopg.Connection[Any]:
    address = postgres_logins.address(server.dsn, login)
    return psycopg.connect(address, dbname=database, autocommit=True)


def ensure(server: postgres.Server, identity: Identity, login: StoreLogin, settled: bool = False) -> None:
    postgres_logins.ensure(StoreAdmin(server.dsn), identity, login, settled)


def rotated(server: postgres.Server, identity: Identity) -> tuple[StoreLogin, StoreLogin]:
    """A login and its successor, both good."""
    old, new = login_of(identity), login_of(identity, LATER)
    for login in (old, new):
        ensure(server, identity, login)
    return old, new


def row_of(server: postgres.Server, role: str) -> Any:
    """Whether one may log in as it; None where there is no such role."""
    with psycopg.connect(server.dsn) as admin:
        row = admin.execute("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
    return row and row[0]


@pytest.mark.parametrize("turn", range(3))
def test_a_login_that_is_used_again_and_again_goes_all_the_same(database: postgres.Server, turn: int) -> None:
    """Who connects in a loop meanwhile has no session left."""
    identity = Identity("pay", f"loop-{turn}")
    old, new = rotated(database, identity)
    sessions: list[psycopg.Connection[Any]] = []
    stop = threading.Event()

    def steal() -> None:
        while not stop.is_set():
            with suppress(psycopg.OperationalError):
                sessions.append(connect(database, old))
            if len(sessions) > 6:
                sessions.pop(0).close()

    thieves = [threading.Thread(target=steal) for _ in range(2)]
    for thief in thieves:
        thief.start()
    try:
        wait_for(lambda: len(sessions) > 4, 20, "the thieves' sessions")
        ensure(database, identity, new, settled=True)
    finally:
        stop.set()
        for thief in thieves:
            thief.join()
    for session in sessions:
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
        session.close()
    assert row_of(database, old.user) is None


@pytest.mark.parametrize(
    ("name", "where", "statements", "left"),
    [
        ("object", "postgres", ("SET ROLE NONE", "SELECT lo_create(0)"), None),
        ("grant", "postgres", ("GRANT USAGE ON SCHEMA {schema} TO {login}",), None),
        ("elsewhere", "template1", ("SET ROLE NONE", "SELECT lo_create(0)"), False),
    ],
)
def test_what_a_login_made_keeps_it_from_nothing(
    database: postgres.Server, name: str, where: str, statements: tuple[str, ...], left: bool | None
) -> None:
    """Nobody logs in as it any more, and its successor is good; a role that can't be dropped stays, without login."""
    identity = Identity("pay", name)
    old, new = rotated(database, identity)
    with connect(database, old, where) as thief:
        for statement in statements:
            thief.execute(statement.format(schema=identity.database_schema, login=old.user))
        for _ in range(2):
            ensure(database, identity, new, settled=True)
            with pytest.raises(psycopg.OperationalError):
                thief.execute("SELECT 1")
            with pytest.raises(psycopg.OperationalError, match="FATAL"):
                connect(database, old)
    assert row_of(database, old.user) is left
    connect(database, new).close()
    postgres_logins.remove(StoreAdmin(database.dsn), identity)
    assert row_of(database, new.user) is None
    # A Secret put back to an earlier state names it again.
    ensure(database, identity, old)
    connect(database, old).close()


def test_a_login_that_holds_its_own_role_goes_all_the_same(database: postgres.Server) -> None:
    """Each role may change its own password, and holds its row until that is committed."""
    identity = Identity("pay", "holds")
    old, new = rotated(database, identity)
    with closing(connect(database, old)) as thief:
        thief.execute("SET ROLE NONE")
        thief.execute("BEGIN")
        thief.execute("ALTER ROLE CURRENT_USER PASSWORD 'another'")
        ensure(database, identity, new, settled=True)
    assert row_of(database, old.user) is None


def test_no_detectors_owner_passes_for_a_login(database: postgres.Server) -> None:
    """Not of one that is named after the other's digest: its owner and schema outlive the other's logins."""
    for named in (VICTIM, Identity("pay", "b")):
        digest = hashlib.sha256(str(named).encode()).hexdigest()[:8]
        neighbour = Identity(f"{named.namespace}-{named.name}", digest)
        own = login_of(neighbour)
        ensure(database, neighbour, own)
        old, new = rotated(database, named)
        ensure(database, named, new, settled=True)
        assert row_of(database, old.user) is None
        postgres_logins.remove(StoreAdmin(database.dsn), named)
        with connect(database, own) as session:
            session.execute(f"CREATE TABLE {neighbour.database_schema}.t (x int)")


class Twin(Identity):
    """As one whose name has the victim's digest."""

    @property
    def database_schema(self) -> str:
        return VICTIM.database_schema


def test_an_owner_is_one_detectors_alone(database: postgres.Server) -> None:
    """Another one whose name gives the same is refused; the comment that says so can't be changed by a login."""
    own = login_of(VICTIM)
    ensure(database, VICTIM, own)
    twin = Twin("other", "twin")
    with pytest.raises(LoginRefusedError, match=r"pay\.cards"):
        ensure(database, twin, login_of(twin))
    assert row_of(database, login_of(twin).user) is None
    with connect(database, own) as session, pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute(f"COMMENT ON ROLE {VICTIM.database_owner} IS NULL")
    ensure(database, VICTIM, own)


def test_nothing_that_a_login_made_runs_with_the_platforms_rights(database: postgres.Server) -> None:
    """A function in a schema that all may write to isn't called in place of the server's own."""
    thief = Identity("pay", "shadow")
    login = login_of(thief)
    ensure(database, thief, login)
    with psycopg.connect(database.dsn, autocommit=True) as admin:
        admin.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")  # as in a database from before version 15
        try:
            with connect(database, login) as session:
                for kind in ("name", "text"):
                    session.execute(
                        f"CREATE FUNCTION public.starts_with({kind}, text) RETURNS boolean LANGUAGE plpgsql AS $f$"
                        f" BEGIN EXECUTE 'ALTER ROLE {login.user} SUPERUSER';"
                        " RETURN pg_catalog.starts_with($1::text, $2); END $f$"
                    )
            ensure(database, VICTIM, login_of(VICTIM))
            postgres_logins.remove(StoreAdmin(database.dsn), Identity("pay", "none"))
            row = admin.execute("SELECT rolsuper FROM pg_roles WHERE rolname = %s", (login.user,)).fetchone()
            assert row == (False,)
        finally:
            admin.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
            admin.execute(
                "DROP FUNCTION IF EXISTS public.starts_with(name, text), public.starts_with(text, text)"
            )


def test_a_lock_of_a_stranger_stops_no_login(database: postgres.Server) -> None:
    """Advisory locks are for whoever connects; none of them, whatever its name, is waited for."""
    stranger = Identity("pay", "stranger")
    login = login_of(stranger)
    ensure(database, stranger, login)
    with connect(database, login) as held:
        for name in ("", ".logins", ".ledger"):
            held.execute("SELECT pg_advisory_lock(hashtext(%s))", (f"{VICTIM.database_schema}{name}",))
        ensure(database, VICTIM, login_of(VICTIM))


def test_operators_that_make_the_same_at_once_agree(database: postgres.Server) -> None:
    """Both find owner, schema and login as they should be."""
    identity = Identity("pay", "twice")
    login, faults = login_of(identity), []

    def make() -> None:
        try:
            ensure(database, identity, login)
        except StoreError as error:
            faults.append(error)

    operators = [threading.Thread(target=make) for _ in range(4)]
    for one in operators:
        one.start()
    for one in operators:
        one.join()
    assert faults == []
    connect(database, login).close()


def test_a_full_server_is_no_refusal(database: postgres.Server) -> None:
    """No login is told as wrong, or given another password, because the server takes nobody in for now."""
    login = login_of(VICTIM)
    ensure(database, VICTIM, login)
    with ExitStack() as sessions:
        with pytest.raises(psycopg.OperationalError, match="connection"):
            for _ in range(40):
                sessions.enter_context(connect(database, login))
        with pytest.raises(StoreError, match=r"connection slots|too many") as full:
            ensure(database, VICTIM, login)
        assert not isinstance(full.value, LoginRefusedError)


def test_no_part_of_an_address_is_told() -> None:
    """A password with @, / or # in it is read as a host or a port; where no server answers, neither is quoted."""
    port = free_port()
    for address in (
        f"postgresql://u:pa@ssw0rd@127.0.0.1:{port}/db",
        f"postgresql://u:hunter/ssw0rd@127.0.0.1:{port}/db",
        f"postgresql://u:ssw0rd#x@127.0.0.1:{port}/db",
        f"postgresql://u:ssw0rd%zz@127.0.0.1:{port}/db",
        f"postgresql://127.0.0.1:{port}/db?ssw0rd=1",
        f"host=127.0.0.1 port={port} password=two ssw0rd dbname=x",
        f"postgresql://u@{'ssw0rd' * 20}.invalid:{port}/db",
    ):
        with pytest.raises(StoreError) as unanswered:
            postgres_logins.ensure(StoreAdmin(address), VICTIM, login_of(VICTIM), settled=False)
        assert "ssw0rd" not in str(unanswered.value) and "hunter" not in str(unanswered.value)
    for address in (
        f"redis://:pa/ssw0rd@127.0.0.1:{port}/0",
        f"redis://:6379/ssw0rd@127.0.0.1:{port}",
        f"redis://:pa#ssw0rd@127.0.0.1:{port}",
        f"redis://:pa@ssw0rd.invalid:{port}/0",
        f"redis://:pa[ssw0rd@127.0.0.1:{port}",
    ):
        login = new_login(VICTIM.redis_logins, START)
        with pytest.raises(StoreError) as unanswered:
            redis_logins.ensure(StoreAdmin(address), VICTIM, login, settled=False)
        assert "ssw0rd" not in str(unanswered.value)
