"""Detectors' logins in a real Redis and a real PostgreSQL: each reaches what is its own, and a rotation is noticed by nobody."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry

from fraud_contracts.errors import StoreError
from fraud_contracts.names import Identity
from fraud_operator import postgres_logins, redis_logins
from fraud_operator.detector import Detector
from fraud_operator.settings import StoreAddresses
from fraud_operator.store_login import GRACE_SECONDS, LoginRefusedError, StoreAdmin, StoreLogin, new_login
from fraud_operator.store_logins import STORES, StoreLogins
from fraud_testing import certificates, postgres
from fraud_testing import redis as redis_server
from fraud_testing.healthy import make_detector
from fraud_testing.kafka import free_port
from fraud_testing.required import require
from fraud_testing.store_logins import AtOnce

pytestmark = pytest.mark.integration
ONE, TWO = Identity("pay", "cards"), Identity("pay", "cards-2")
START = 1_764_000_000
LATER = START + 100


@pytest.fixture(scope="module")
def cache() -> Iterator[redis_server.Server]:
    require(redis_server.missing())
    with redis_server.server() as running:
        yield running


@pytest.fixture(scope="module")
def database() -> Iterator[postgres.Server]:
    require(postgres.missing())
    with postgres.server(passwords=True) as running:
        yield running


def redis_login(identity: Identity, now: int = START) -> StoreLogin:
    return new_login(identity.redis_logins, now)


def database_login(identity: Identity, now: int = START) -> StoreLogin:
    return new_login(identity.database_logins, now)


def client(server: redis_server.Server, login: StoreLogin) -> Any:
    return redis.Redis.from_url(redis_logins.address(server.url, login), retry=Retry(NoBackoff(), 0))


def connect(server: postgres.Server, login: StoreLogin) -> psycopg.Connection[Any]:
    return psycopg.connect(postgres_logins.address(server.dsn, login), autocommit=True)


def test_a_redis_login_reaches_its_detectors_keys_alone(cache: redis_server.Server) -> None:
    """Neither another detector's keys, whose name begins alike, nor the server's settings, nor a list of all keys."""
    logins = {identity: redis_login(identity) for identity in (ONE, TWO)}
    for identity, login in logins.items():
        redis_logins.ensure(StoreAdmin(cache.url), identity, login, settled=False)
    with closing(client(cache, logins[ONE])) as own, closing(client(cache, logins[TWO])) as other:
        own.set(ONE.redis_claim("e"), "mine")
        assert own.get(ONE.redis_claim("e")) == b"mine"
        for call in (
            lambda: other.get(ONE.redis_claim("e")),
            lambda: other.set(ONE.redis_claim("e"), "stolen"),
            lambda: other.eval("return redis.call('GET', KEYS[1])", 1, ONE.redis_claim("e")),
            lambda: own.get(TWO.redis_claim("e")),
            lambda: own.keys("*"),
            own.randomkey,
            own.flushall,
            lambda: own.config_get("*"),
            own.acl_list,
        ):
            with pytest.raises(NoPermissionError):
                call()
        # What a script calls is judged as the caller's, too.
        with pytest.raises(redis.ResponseError, match="can't access"):
            other.eval("return redis.call('GET', ARGV[1])", 0, ONE.redis_claim("e"))
        assert own.get(ONE.redis_claim("e")) == b"mine"


def test_redis_users_outlive_a_restart_and_come_back_where_they_were_lost(cache: redis_server.Server) -> None:
    """With an ACL file they are there when it is back; without them the next look makes them again."""
    login = redis_login(ONE)
    redis_logins.ensure(StoreAdmin(cache.url), ONE, login, settled=False)
    cache.stop()
    cache.start()
    with closing(client(cache, login)) as own:
        assert own.ping()
        cache.command("ACL", "DELUSER", login.user)
        redis_logins.ensure(StoreAdmin(cache.url), ONE, login, settled=False)
        assert own.get(ONE.redis_claim("none")) is None


def test_a_redis_login_outlasts_its_successor_by_the_grace(cache: redis_server.Server) -> None:
    """Both are good while Pods change over; then the old one is gone, and only this detector's."""
    old, new, other = redis_login(ONE), redis_login(ONE, LATER), redis_login(TWO)
    for identity, login in ((ONE, old), (TWO, other), (ONE, new)):
        redis_logins.ensure(StoreAdmin(cache.url), identity, login, settled=False)
    for login in (old, new):
        with closing(client(cache, login)) as own:
            assert own.ping()
    redis_logins.ensure(StoreAdmin(cache.url), ONE, new, settled=True)
    with closing(client(cache, old)) as own, pytest.raises(redis.AuthenticationError):
        own.ping()
    for login in (new, other):
        with closing(client(cache, login)) as own:
            assert own.ping()
    redis_logins.remove(StoreAdmin(cache.url), ONE)
    with closing(client(cache, new)) as own, pytest.raises(redis.AuthenticationError):
        own.ping()


def test_live_pods_keep_the_login_that_their_secret_has(cache: redis_server.Server) -> None:
    """A paused detector's rotation takes none away; one that is in the Secret does, after the grace, and a store of its own the last."""
    clock = [0.0]
    logins = StoreLogins(STORES[:1], lambda: clock[0], lambda: START + clock[0], AtOnce())
    platform = make_detector().platform
    platform = platform.model_copy(update={"stores": StoreAddresses(redis_url=cache.url)})
    detector = replace(make_detector(), platform=platform)
    own = {"redis": {"secretRef": {"name": "r"}}}
    leaving = replace(make_detector(stores=own), platform=platform)

    def look(now: float, of: Detector, secret: dict[str, str]) -> dict[str, str]:
        clock[0] = now
        return dict(logins.look(of, secret).addresses)

    def admitted(secret: dict[str, str]) -> bool:
        try:
            with closing(redis.Redis.from_url(secret["REDIS_URL"], retry=Retry(NoBackoff(), 0))) as pod:
                return bool(pod.ping())
        except redis.AuthenticationError:
            return False

    before = look(0, detector, {})
    look(0, detector, before)
    for now in range(100, 2000, 100):
        after = look(now, detector, {})
    assert after != before and admitted(before) and admitted(after)
    for now in (2000, 2000 + GRACE_SECONDS - 1):
        look(now, detector, after)
        assert admitted(before)
    look(2000 + GRACE_SECONDS + 60, detector, after)
    assert not admitted(before) and admitted(after)
    for now, secret in ((4000, after), (5000, after), (6000, {}), (6000 + GRACE_SECONDS - 1, {})):
        look(now, leaving, secret)
        assert admitted(after)
    look(6000 + GRACE_SECONDS, leaving, {})
    assert not admitted(after)


def test_a_redis_that_refuses_or_is_away_is_told_apart(cache: redis_server.Server) -> None:
    """Each ends in seconds, with an error that says which it is."""
    weak = cache.login(TWO)
    for address in (weak, cache.url.replace("://", "://nobody:wrong@"), "http://x"):
        with pytest.raises(LoginRefusedError):
            redis_logins.ensure(StoreAdmin(address), ONE, redis_login(ONE), settled=False)
    with pytest.raises(StoreError) as away:
        redis_logins.ensure(
            StoreAdmin(f"redis://127.0.0.1:{free_port()}/0"), ONE, redis_login(ONE), settled=False
        )
    assert not isinstance(away.value, LoginRefusedError)


def test_a_database_login_reaches_its_detectors_schema_alone(database: postgres.Server) -> None:
    """Another detector's tables, other schemas, other databases' contents and the server's own files are out of reach."""
    logins = {identity: database_login(identity) for identity in (ONE, TWO)}
    for identity, login in logins.items():
        postgres_logins.ensure(StoreAdmin(database.dsn), identity, login, settled=False)
    with connect(database, logins[ONE]) as own, connect(database, logins[TWO]) as other:
        own.execute(f"CREATE TABLE {ONE.database_schema}.t AS SELECT 1 AS x")
        for statement in (
            f"SELECT x FROM {ONE.database_schema}.t",
            f"INSERT INTO {ONE.database_schema}.t VALUES (2)",
            f"DROP TABLE {ONE.database_schema}.t",
            f"CREATE TABLE {ONE.database_schema}.u (x int)",
            f"SET ROLE {ONE.database_owner}",
            "CREATE SCHEMA another",
            "CREATE TABLE public.t (x int)",
            "CREATE ROLE another",
            "SELECT * FROM pg_authid",
            "SELECT pg_read_file('PG_VERSION')",
            "COPY (SELECT 1) TO PROGRAM 'true'",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                other.execute(statement)
        # Without the owner's role a login is nobody.
        own.execute("SET ROLE NONE")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            own.execute(f"SELECT x FROM {ONE.database_schema}.t")


def test_a_shared_logins_schema_becomes_the_detectors_own_without_loss(database: postgres.Server) -> None:
    """Tables, their sequences and views of earlier versions go to the owner; the rows stay, and whoever has them open goes on."""
    identity = Identity("pay", "older")
    schema = identity.database_schema
    with psycopg.connect(database.dsn, autocommit=True) as shared:
        shared.execute(f"CREATE SCHEMA {schema}")
        shared.execute(f"CREATE TABLE {schema}.t (id bigint GENERATED ALWAYS AS IDENTITY, n serial, x text)")
        shared.execute(f"INSERT INTO {schema}.t (x) VALUES ('kept')")
        shared.execute(f"CREATE VIEW {schema}.v AS SELECT x FROM {schema}.t")
        login = database_login(identity)
        postgres_logins.ensure(StoreAdmin(database.dsn), identity, login, settled=False)
        shared.execute(f"INSERT INTO {schema}.t (x) VALUES ('still')")
        with connect(database, login) as own:
            assert own.execute(f"SELECT x FROM {schema}.v ORDER BY x").fetchall() == [("kept",), ("still",)]
            own.execute(f"INSERT INTO {schema}.t (x) VALUES ('own')")
            own.execute(f"ALTER TABLE {schema}.t ADD COLUMN more int")
            own.execute(f"DROP VIEW {schema}.v")


def test_a_database_login_outlasts_its_successor_by_the_grace(database: postgres.Server) -> None:
    """Then whoever still has it is cut off; what it made is its successor's."""
    identity = Identity("pay", "rotated")
    old, new = database_login(identity), database_login(identity, LATER)
    postgres_logins.ensure(StoreAdmin(database.dsn), identity, old, settled=False)
    with connect(database, old) as session:
        session.execute(f"CREATE TABLE {identity.database_schema}.t AS SELECT 1 AS x")
        postgres_logins.ensure(StoreAdmin(database.dsn), identity, new, settled=False)
        assert session.execute(f"SELECT x FROM {identity.database_schema}.t").fetchone() == (1,)
        postgres_logins.ensure(StoreAdmin(database.dsn), identity, new, settled=True)
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="FATAL"):
        connect(database, old)
    with connect(database, new) as session:
        session.execute(f"DROP TABLE {identity.database_schema}.t")
    postgres_logins.remove(StoreAdmin(database.dsn), identity)
    with pytest.raises(psycopg.OperationalError, match="FATAL"):
        connect(database, new)
    with psycopg.connect(database.dsn) as admin:
        row = admin.execute(
            "SELECT rolcanlogin, nspname FROM pg_namespace JOIN pg_roles r ON r.oid = nspowner WHERE rolname = %s",
            (identity.database_owner,),
        ).fetchone()
    assert row == (False, identity.database_schema)


def test_a_password_that_the_store_forgot_is_set_again(database: postgres.Server) -> None:
    """As after a restored backup: the Secret's password counts."""
    identity = Identity("pay", "restored")
    login = database_login(identity)
    postgres_logins.ensure(
        StoreAdmin(database.dsn), identity, StoreLogin(login.user, "another"), settled=False
    )
    postgres_logins.ensure(StoreAdmin(database.dsn), identity, login, settled=False)
    with connect(database, login) as own:
        assert own.execute("SELECT session_user").fetchone() == (login.user,)


def test_a_manager_that_is_no_superuser_will_do(database: postgres.Server) -> None:
    """CREATEROLE, and CREATE on the database, are enough to make a detector's login, to rotate it and to take it away."""
    identity = Identity("pay", "managed")
    with psycopg.connect(database.dsn, autocommit=True) as admin:
        admin.execute("CREATE ROLE manager LOGIN CREATEROLE PASSWORD 'm'")
        admin.execute("GRANT CREATE ON DATABASE postgres TO manager")
    dsn = database.dsn.replace("//fraud@", "//manager:m@")
    old, new = database_login(identity), database_login(identity, LATER)
    postgres_logins.ensure(StoreAdmin(dsn), identity, old, settled=False)
    with connect(database, old) as own:
        own.execute(f"CREATE TABLE {identity.database_schema}.t (x int)")
        postgres_logins.ensure(StoreAdmin(dsn), identity, new, settled=True)
        with pytest.raises(psycopg.OperationalError):
            own.execute("SELECT 1")
    postgres_logins.remove(StoreAdmin(dsn), identity)


def test_a_database_that_refuses_or_is_away_is_told_apart(database: postgres.Server) -> None:
    """Each ends in seconds, with an error that says which it is and quotes no password."""
    weak = database_login(TWO)
    postgres_logins.ensure(StoreAdmin(database.dsn), TWO, weak, settled=False)
    wrong = database.dsn.replace("//fraud@", "//nobody:secret-word@")
    for address in (postgres_logins.address(database.dsn, weak), wrong, "secret-word"):
        with pytest.raises(LoginRefusedError) as refused:
            postgres_logins.ensure(StoreAdmin(address), ONE, database_login(ONE, LATER), settled=False)
        assert "secret-word" not in str(refused.value)
    with pytest.raises(StoreError) as away:
        postgres_logins.ensure(
            StoreAdmin(f"postgresql://x@127.0.0.1:{free_port()}/d"), ONE, database_login(ONE), settled=False
        )
    assert not isinstance(away.value, LoginRefusedError)


def test_logins_are_made_over_tls_by_a_known_authority_alone(tmp_path: Path) -> None:
    """The platform's own address is verified as the detectors' are."""
    require(certificates.missing())
    own = certificates.make(tmp_path / "own")
    stranger = certificates.make(tmp_path / "stranger")
    with redis_server.server(certificates=own) as cache, postgres.server(certificates=own) as database:
        for authority in (own.authority, stranger.authority):
            cache_admin = StoreAdmin(cache.url, authority.read_text())
            database_admin = StoreAdmin(database.dsn, authority.read_text())
            if authority == own.authority:
                redis_logins.ensure(cache_admin, ONE, redis_login(ONE), settled=False)
                postgres_logins.ensure(database_admin, ONE, database_login(ONE), settled=False)
                continue
            with pytest.raises(StoreError, match="certificate"):
                redis_logins.ensure(cache_admin, ONE, redis_login(ONE), settled=False)
            with pytest.raises(StoreError, match="certificate"):
                postgres_logins.ensure(database_admin, ONE, database_login(ONE), settled=False)
