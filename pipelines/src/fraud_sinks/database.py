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
from fraud_process.postgres import address_of, bounded
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


def connect(dsn: str) -> psycopg.Connection[Any]:
    """No server-side prepared statements: a pooler between us and the server may give each transaction another backend."""
    try:
        return psycopg.connect(dsn, autocommit=True, connect_timeout=CONNECT_SECONDS, prepare_threshold=None)
    except psycopg.Error as error:
        raise StoreError("postgres", str(error).strip()) from error


def migrate(dsn: str, schema: str, version: str = "head") -> None:
    """Migrates a detector's schema to the newest version, or, for a test of migrations, to an older one.

    A lock lets one process do it at a time; the next ones then have nothing to do.
    """
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(dsn, connect_timeout=CONNECT_SECONDS)
    )
    try:
        with engine.connect() as connection:
            # Transaction-scoped, so it goes whatever happens; DDL is part of the transaction in PostgreSQL.
            connection.execute(
                sqlalchemy.text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": schema}
            )
            quoted = engine.dialect.identifier_preparer.quote(schema)
            # The login that the operator makes owns its schema and may make no other one: not even IF NOT EXISTS.
            if not sqlalchemy.inspect(connection).has_schema(schema):
                connection.execute(sqlalchemy.text(f"CREATE SCHEMA {quoted}"))
            connection.execute(sqlalchemy.text(f"SET LOCAL search_path TO {quoted}"))
            config = alembic.config.Config()
            config.set_main_option("script_location", str(MIGRATIONS))
            config.attributes.update(connection=connection, schema=schema)
            alembic.command.upgrade(config, version)
            connection.commit()
    except (sqlalchemy.exc.SQLAlchemyError, psycopg.Error) as error:
        raise StoreError("postgres", f"migrating {schema}: {error}") from error
    finally:
        engine.dispose()


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
                cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (f"{self._schema}.ledger",))
                yield cursor
        except RECORD_ERRORS:
            raise  # the writer finds out which
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
            self.close()
            raise StoreLostError("postgres", f"the ledger's tables are gone: {error}") from error
        except psycopg.Error as error:
            self.close()
            raise StoreError("postgres", str(error).strip() or type(error).__name__) from error

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
