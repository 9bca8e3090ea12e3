"""PostgreSQL for the ledger: a connection that comes back by itself, and migrations under a lock."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import alembic.command
import alembic.config
import psycopg
import sqlalchemy
from psycopg import sql

from fraud_contracts.errors import StoreError
from fraud_process.postgres import address_of, bounded, described
from fraud_process.store_address import StoreAddress
from fraud_sinks.records import StoreLostError

log = logging.getLogger(__name__)

MIGRATIONS: Final = Path(__file__).parent / "migrations"
# About a record, not about the server: the last two where a value is longer, or nested deeper, than it takes.
RECORD_ERRORS: Final = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.errors.ProgramLimitExceeded,
    psycopg.errors.StatementTooComplex,
)
CONNECT_SECONDS: Final = 5
STATEMENT_MS: Final = 30_000
# The server's own limit ends a slow statement; this one ends waiting for a server that says nothing at all.
SILENCE_SECONDS: Final = 40.0
# What only the schema's owner reaches: an advisory lock any login to the server could hold. It keeps no reader out.
LOCK: Final = "LOCK TABLE ledger_version IN SHARE ROW EXCLUSIVE MODE"
_SCHEMAS: Final = "SELECT 1 FROM pg_namespace WHERE nspname = %s"
# As alembic would make it.
_VERSIONS: Final = sql.SQL(
    "CREATE TABLE IF NOT EXISTS {}.ledger_version"
    " (version_num varchar(32) NOT NULL CONSTRAINT ledger_version_pkc PRIMARY KEY)"
)


_RACES: Final = (
    psycopg.errors.UniqueViolation,
    psycopg.errors.DuplicateSchema,
    psycopg.errors.DuplicateTable,
)


def connect(dsn: str) -> psycopg.Connection[Any]:
    """No server-side prepared statements: a pooler between us and the server may give each transaction another backend."""
    return _open(dsn, autocommit=True)


def _open(dsn: str, autocommit: bool) -> psycopg.Connection[Any]:
    try:
        return psycopg.connect(
            dsn, autocommit=autocommit, connect_timeout=CONNECT_SECONDS, prepare_threshold=None
        )
    except (psycopg.Error, ValueError) as error:
        raise StoreError("postgres", described(error)) from error


def migrate(dsn: str, schema: str, version: str = "head") -> None:
    """Migrates a detector's schema to the newest version, or, for a test of migrations, to an older one.

    A lock lets one process do it at a time; the next ones then have nothing to do.
    """
    _lay(dsn, schema)
    engine = sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: _open(dsn, autocommit=False))
    try:
        with engine.connect() as connection:
            quoted = engine.dialect.identifier_preparer.quote(schema)
            connection.execute(sqlalchemy.text(f"SET LOCAL search_path TO {quoted}"))
            # Transaction-scoped, so it goes whatever happens; DDL is part of the transaction in PostgreSQL.
            connection.execute(sqlalchemy.text(LOCK))
            config = alembic.config.Config()
            config.set_main_option("script_location", str(MIGRATIONS))
            config.attributes.update(connection=connection, schema=schema)
            alembic.command.upgrade(config, version)
            connection.commit()
    except (sqlalchemy.exc.SQLAlchemyError, psycopg.Error) as error:
        raise StoreError("postgres", f"migrating {schema}: {error}") from error
    finally:
        engine.dispose()


def _lay(dsn: str, schema: str) -> None:
    """Schema and table that migrations keep their version in, where they lack; of several who make them at once one does."""
    for last in (False, False, True):
        try:
            with connect(dsn) as connection, connection.transaction():
                # The login that the operator makes owns its schema and may make no other one: not even IF NOT EXISTS.
                if connection.execute(_SCHEMAS, (schema,)).fetchone() is None:
                    connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
                connection.execute(_VERSIONS.format(sql.Identifier(schema)))
            return
        except _RACES as error:
            if last:
                raise StoreError("postgres", f"making {schema}: {described(error)}") from error
        except psycopg.Error as error:
            raise StoreError("postgres", f"making {schema}: {described(error)}") from error


class Database:
    """One connection, opened when needed and thrown away when it breaks, or when the address is another one between two
    transactions; these see the detector's schema only."""

    def __init__(self, address: StoreAddress, schema: str) -> None:
        self._address, self._schema = address, schema
        self._connection: psycopg.Connection[Any] | None = None
        self._connected_to = ""

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Cursor[Any]]:
        """A cursor inside a transaction, alone in writing to the ledger.

        The lock makes joining exact with several replicas: of a report and its decision in two transactions at once,
        each would miss the other.
        """
        connection = self._connect()
        try:
            with (
                bounded(connection, SILENCE_SECONDS),
                connection.transaction(),
                connection.cursor() as cursor,
            ):
                cursor.execute(sql.SQL("SET LOCAL search_path TO {}").format(sql.Identifier(self._schema)))
                cursor.execute(f"SET LOCAL statement_timeout = {STATEMENT_MS}")
                cursor.execute(LOCK)
                yield cursor
        except RECORD_ERRORS:
            raise  # the writer finds out which
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
            self.close()
            raise StoreLostError("postgres", f"the ledger's tables are gone: {described(error)}") from error
        except psycopg.Error as error:
            self.close()
            raise StoreError("postgres", described(error)) from error

    def _connect(self) -> psycopg.Connection[Any]:
        dsn = address_of(self._address)
        if dsn != self._connected_to:
            self.close()
        if self._connection is None or self._connection.closed:
            self._connection, self._connected_to = connect(dsn), dsn
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
