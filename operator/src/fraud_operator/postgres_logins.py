"""PostgreSQL roles of detectors: one that owns the detector's schema and logs in nowhere, and the logins that act as it.

What a login makes belongs to the owner, so logins come and go without touching a table. A schema that was made by another role, as
earlier versions' shared login, is handed to the owner with all that is in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg import conninfo, sql

from fraud_contracts.errors import StoreError
from fraud_contracts.names import Identity
from fraud_operator.store_login import LoginRefusedError, StoreAdmin, StoreLogin, is_login, past_use
from fraud_process.postgres import bounded, verified

CONNECT_SECONDS: Final = 4
STATEMENT_MS: Final = 5_000
# Of all that is asked over one connection.
SILENCE_SECONDS: Final = 15.0
# A ledger sink has one, the console eight at most; each may have two Pods while one follows the other, and a person a few.
CONNECTIONS: Final = 32
# What libpq's message has where a server answered, and said no.
_FATAL: Final = "FATAL"
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


def address(admin: str, login: StoreLogin) -> str:
    """The admin's address with another login, as keywords and values."""
    return str(conninfo.make_conninfo(admin, user=login.user, password=login.password))


def ensure(admin: StoreAdmin, identity: Identity, login: StoreLogin, now: int) -> None:
    """Owner, schema and login as they should be, earlier logins gone once they are past use.

    StoreError or LoginRefusedError; ends in seconds. It writes nothing where all is well.
    """
    with _connected(admin) as connection:
        own = verified(address(admin.address, login), admin.authority)
        with connection.transaction():
            _begin(connection, identity)
            roles = _roles(connection, identity)
            if identity.database_owner not in roles:
                _run(connection, "CREATE ROLE {} NOLOGIN", identity.database_owner)
            _join(connection, identity.database_owner)
            _own_schema(connection, identity)
            known = login.user in roles
            if not known:
                _make_login(connection, identity, login)
            _drop(connection, past_use(identity.database_logins, roles, login, now))
        if known and _refusal(own):
            verifier = sql.Literal(_verifier(connection, login))
            _run(connection, "ALTER ROLE {} LOGIN PASSWORD {}", login.user, verifier)
        why = _refusal(own)
        if why:
            raise LoginRefusedError("postgres", f"it was made and isn't let in: {why}")


def remove(admin: StoreAdmin, identity: Identity) -> None:
    """Every login of the detector; schema and owner stay."""
    with _connected(admin) as connection, connection.transaction():
        _begin(connection, identity)
        roles = _roles(connection, identity)
        _drop(connection, [role for role in roles if is_login(identity.database_logins, role)])


def _begin(connection: psycopg.Connection[Any], identity: Identity) -> None:
    connection.execute(f"SET LOCAL statement_timeout = {STATEMENT_MS}")
    connection.execute(f"SET LOCAL lock_timeout = {STATEMENT_MS}")
    connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (f"{identity.database_schema}.logins",))


def _run(connection: psycopg.Connection[Any], statement: str, *parts: str | sql.Composable) -> None:
    """With identifiers, or what is composed already, in the places of {}."""
    names = [sql.Identifier(part) if isinstance(part, str) else part for part in parts]
    connection.execute(sql.SQL(statement).format(*names))


def _roles(connection: psycopg.Connection[Any], identity: Identity) -> list[str]:
    rows = connection.execute(
        "SELECT rolname FROM pg_roles WHERE rolname = %s OR starts_with(rolname, %s)",
        (identity.database_owner, identity.database_logins),
    )
    return [str(name) for (name,) in rows]


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


def _drop(connection: psycopg.Connection[Any], logins: list[str]) -> None:
    """Whoever still uses one is cut off."""
    if not logins:
        return
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = ANY(%s)", (logins,)
    )
    for login in logins:
        _run(connection, "DROP ROLE {}", login)


def _refusal(dsn: str) -> str:
    """Why a login isn't let in; empty where it is."""
    try:
        with psycopg.connect(dsn, connect_timeout=CONNECT_SECONDS, autocommit=True):
            return ""
    except psycopg.OperationalError as error:
        if _FATAL not in str(error):
            raise
        return _first_line(error)


def _first_line(error: psycopg.Error) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


@contextmanager
def _connected(admin: StoreAdmin) -> Iterator[psycopg.Connection[Any]]:
    try:
        dsn = verified(admin.address, admin.authority)
        connection = psycopg.connect(dsn, connect_timeout=CONNECT_SECONDS, autocommit=True)
        with connection, bounded(connection, SILENCE_SECONDS):
            yield connection
    except psycopg.ProgrammingError as error:
        # Of an address that can't be read the message would quote a part, maybe the password.
        text = error.diag.message_primary or "the address can't be read"
        raise LoginRefusedError("postgres", text) from error
    except psycopg.OperationalError as error:
        kind = LoginRefusedError if _FATAL in str(error) else StoreError
        raise kind("postgres", _first_line(error)) from error
    except psycopg.Error as error:
        raise LoginRefusedError("postgres", error.diag.message_primary or type(error).__name__) from error
