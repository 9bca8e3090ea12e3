"""PostgreSQL roles of detectors: one that owns the detector's schema and logs in nowhere, and the logins that act as it.

What a login makes belongs to the owner, so logins come and go without touching a table. A schema that was made by another role, as
earlier versions' shared login, is handed to the owner with all that is in it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import psycopg
from psycopg import conninfo, sql

from fraud_contracts.errors import StoreError
from fraud_contracts.names import GROUP, Identity
from fraud_operator.store_login import LoginRefusedError, StoreAdmin, StoreLogin, is_login, others
from fraud_process.postgres import bounded, completed, described, refusal

LOG: Final = logging.getLogger(__name__)
CONNECT_SECONDS: Final = 4
STATEMENT_MS: Final = 5_000
# A login may change its own role, and so hold what shuts it; its sessions are ended before each try.
SHUT_MS: Final = 1_000
SHUT_TRIES: Final = 4
CUT_TRIES: Final = 15
# Of all that is asked over one connection.
SILENCE_SECONDS: Final = 15.0
# A ledger sink has one, the console eight at most; each may have two Pods while one follows the other, and a person a few.
CONNECTIONS: Final = 32
_CLAIM: Final = f"{GROUP}/detector "
# Another operator made or changed the same at this moment; no lock keeps it out, since every login could hold that.
_RACES: Final = (
    psycopg.errors.DuplicateObject,
    psycopg.errors.DuplicateSchema,
    psycopg.errors.UniqueViolation,
    psycopg.errors.InternalError_,
)
_HELD: Final = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.QueryCanceled,
    psycopg.errors.InternalError_,
)
# The last: it isn't the primary any more.
_AWAY: Final = (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction)
_CUT: Final = "SELECT pg_terminate_backend(pid, 200) FROM pg_stat_activity WHERE usename = ANY(%s)"
# A session that is being let in has a transaction before it is listed.
_BEGINNING: Final = """
SELECT 1 FROM pg_locks l WHERE locktype = 'virtualxid' AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid)
"""
_OTHERS_OBJECTS: Final = """
SELECT format('ALTER %%s %%s OWNER TO %%I',
    CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
    c.oid::regclass, %(owner)s::text)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p', 'v', 'm', 'S') AND pg_get_userbyid(c.relowner) <> %(owner)s
    -- A column's own sequence goes with its table.
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i'))
"""


def read(address: str) -> StoreLogin | None:
    """The login in an address; None where there is none, or no address."""
    try:
        parts = conninfo.conninfo_to_dict(address)
    except psycopg.Error:
        return None
    user, password = parts.get("user"), parts.get("password")
    return StoreLogin(str(user), str(password)) if user and password else None


def hosts(address: str) -> list[str]:
    """The servers that an address names; none where it is no address."""
    try:
        return str(conninfo.conninfo_to_dict(address).get("host") or "").split(",")
    except psycopg.Error:
        return []


def address(admin: str, login: StoreLogin) -> str:
    """The admin's address with another login, as keywords and values."""
    return str(conninfo.make_conninfo(admin, user=login.user, password=login.password))


def ensure(admin: StoreAdmin, identity: Identity, login: StoreLogin, settled: bool) -> None:
    """Owner, schema and login as they should be, and where it is ``settled`` in Pods no other login.

    StoreError or LoginRefusedError; ends in seconds. It writes nothing where all is well.
    """
    with connected(admin) as connection:
        own = _here(connection, completed(address(admin.address, login), admin.authority))
        roles = _make(connection, identity, login)
        why = _refusal(own)
        if why and login.user in roles:
            verifier = sql.Literal(_verifier(connection, login))
            with _transaction(connection):
                _run(connection, "ALTER ROLE {} LOGIN PASSWORD {}", login.user, verifier)
            why = _refusal(own)
        if why:
            raise LoginRefusedError("postgres", f"it was made and isn't let in: {why}")
        if settled:
            _drop(connection, identity, roles, others(identity.database_logins, roles, login))


def remove(admin: StoreAdmin, identity: Identity) -> None:
    """Every login of the detector; schema and owner stay."""
    with connected(admin) as connection:
        with _transaction(connection):
            roles = _roles(connection, identity)
        _drop(
            connection, identity, roles, [role for role in roles if is_login(identity.database_logins, role)]
        )


def _make(connection: psycopg.Connection[Any], identity: Identity, login: StoreLogin) -> dict[str, bool]:
    """Owner, schema and login where they lack; -> the roles before that, as ``_roles`` has them."""
    for last in (False, False, True):
        try:
            with _transaction(connection):
                roles = _roles(connection, identity)
                if identity.database_owner not in roles:
                    _run(connection, "CREATE ROLE {} NOLOGIN", identity.database_owner)
                _claim(connection, identity)
                _join(connection, identity.database_owner)
                _own_schema(connection, identity)
                if login.user not in roles:
                    _make_login(connection, identity, login)
                return roles
        except _RACES:
            if last:
                raise
    raise AssertionError("the last try returns or raises")


@contextmanager
def _transaction(connection: psycopg.Connection[Any], lock_ms: int = STATEMENT_MS) -> Iterator[None]:
    """Names are the server's own: what a login made in another schema isn't called with the platform's rights."""
    with connection.transaction():
        connection.execute("SET LOCAL search_path = pg_catalog, pg_temp")
        connection.execute(f"SET LOCAL statement_timeout = {STATEMENT_MS}")
        connection.execute(f"SET LOCAL lock_timeout = {lock_ms}")
        yield


def _run(connection: psycopg.Connection[Any], statement: str, *parts: str | sql.Composable) -> None:
    """With identifiers, or what is composed already, in the places of {}."""
    names = [sql.Identifier(part) if isinstance(part, str) else part for part in parts]
    connection.execute(sql.SQL(statement).format(*names))


def _roles(connection: psycopg.Connection[Any], identity: Identity) -> dict[str, bool]:
    """The detector's roles, and whether one may log in as them."""
    rows = connection.execute(
        "SELECT rolname, rolcanlogin FROM pg_roles WHERE rolname = %s OR starts_with(rolname, %s)",
        (identity.database_owner, identity.database_logins),
    )
    return {str(name): bool(can) for name, can in rows}


def _claim(connection: psycopg.Connection[Any], identity: Identity) -> None:
    """The owner's comment says whose it is: two identities may have one name, and no login may change the comment."""
    owner, claim = identity.database_owner, f"{_CLAIM}{identity}"
    row = connection.execute(
        "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = %s", (owner,)
    ).fetchone()
    comment = row[0] if row else None
    if comment is None:
        _run(connection, "COMMENT ON ROLE {} IS {}", owner, sql.Literal(claim))
    elif comment.startswith(_CLAIM) and comment != claim:
        raise LoginRefusedError("postgres", f"the role {owner} is the detector {comment[len(_CLAIM) :]}'s")


def _join(connection: psycopg.Connection[Any], role: str) -> None:
    """What isn't a superuser must be a member of the owner to hand things to it, and of a login to end its sessions."""
    row = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
    member = connection.execute("SELECT pg_has_role(%s, 'USAGE')", (role,)).fetchone()
    if not (row and row[0]) and not (member and member[0]):
        _run(connection, "GRANT {} TO CURRENT_USER", role)


def _own_schema(connection: psycopg.Connection[Any], identity: Identity) -> None:
    owner, schema = identity.database_owner, identity.database_schema
    row = connection.execute(
        "SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = %s", (schema,)
    ).fetchone()
    if row is None:
        _run(connection, "CREATE SCHEMA {} AUTHORIZATION {}", schema, owner)
    elif row[0] != owner:
        _run(connection, "ALTER SCHEMA {} OWNER TO {}", schema, owner)
    for (statement,) in connection.execute(_OTHERS_OBJECTS, {"schema": schema, "owner": owner}).fetchall():
        connection.execute(statement)


def _make_login(connection: psycopg.Connection[Any], identity: Identity, login: StoreLogin) -> None:
    """It has rights as the owner alone: without that role it may do nothing."""
    _run(
        connection,
        f"CREATE ROLE {{}} LOGIN NOINHERIT CONNECTION LIMIT {CONNECTIONS} PASSWORD {{}} IN ROLE {{}}",
        login.user,
        sql.Literal(_verifier(connection, login)),
        identity.database_owner,
    )
    _run(connection, "ALTER ROLE {} SET role = {}", login.user, sql.Literal(identity.database_owner))
    _join(connection, login.user)


def _verifier(connection: psycopg.Connection[Any], login: StoreLogin) -> str:
    """What the server keeps of the password: so the password itself is in no log of statements."""
    made = connection.pgconn.encrypt_password(login.password.encode(), login.user.encode(), b"scram-sha-256")
    return str(made.decode())


def _drop(
    connection: psycopg.Connection[Any], identity: Identity, roles: dict[str, bool], logins: list[str]
) -> None:
    """Whoever still uses one is cut off for good, even where something of it keeps the role from being dropped."""
    for login in logins:
        if roles[login]:
            _shut(connection, login)
    _cut_off(connection, logins)
    for login in logins:
        try:
            with _transaction(connection):
                _run(connection, "REASSIGN OWNED BY {} TO {}", login, identity.database_owner)
                _run(connection, "DROP OWNED BY {}", login)
                _run(connection, "DROP ROLE {}", login)
        except psycopg.Error as error:
            _tell_kept(login, described(error))


def _shut(connection: psycopg.Connection[Any], login: str) -> None:
    """By itself, so that it holds whatever comes after: a session that is ended later can't be followed by another one."""
    for attempt in range(1, SHUT_TRIES + 1):
        try:
            with _transaction(connection, SHUT_MS):
                connection.execute(_CUT, ([login],))
                _run(connection, "ALTER ROLE {} NOLOGIN PASSWORD NULL", login)
            return
        except _HELD:
            if attempt == SHUT_TRIES:
                raise


def _cut_off(connection: psycopg.Connection[Any], logins: list[str]) -> None:
    """Ends what sessions there are, also those that were being let in when the role was shut and show a moment later."""
    for _ in range(CUT_TRIES if logins else 0):
        with _transaction(connection):
            connection.execute("SELECT pg_sleep(0.1)")
            beginning = connection.execute(_BEGINNING).fetchone()
        # A transaction of its own: within one the list of sessions stays as it was first read.
        with _transaction(connection):
            ended = connection.execute(_CUT, (logins,)).fetchall()
        if not ended and beginning is None:
            return


@cache
def _tell_kept(login: str, why: str) -> None:
    """Once a reason: it is tried again with each look."""
    LOG.warning("login is shut and can't be dropped", extra={"data": {"role": login, "why": why}})


def _here(connection: psycopg.Connection[Any], dsn: str) -> str:
    """The address for this very server: of several hosts the others needn't know of a login yet."""
    server = connection.info
    return str(conninfo.make_conninfo(dsn, host=server.host, hostaddr=server.hostaddr, port=str(server.port)))


def _refusal(dsn: str) -> str:
    """Why a login isn't let in; empty where it is."""
    try:
        with psycopg.connect(dsn, connect_timeout=CONNECT_SECONDS, autocommit=True):
            return ""
    except psycopg.OperationalError as error:
        why = refusal(error)
        if not why:
            raise
        return why


@contextmanager
def connected(admin: StoreAdmin) -> Iterator[psycopg.Connection[Any]]:
    try:
        dsn = completed(admin.address, admin.authority)
        connection = psycopg.connect(dsn, connect_timeout=CONNECT_SECONDS, autocommit=True)
        with connection, bounded(connection, SILENCE_SECONDS):
            yield connection
    except (psycopg.Error, ValueError) as error:
        away = isinstance(error, _AWAY) and not refusal(error)
        kind = StoreError if away else LoginRefusedError
        raise kind("postgres", described(error)) from error
