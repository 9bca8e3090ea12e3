"""One transaction at a time writes to a ledger, whatever other logins to the server hold; and no error quotes an address."""

from __future__ import annotations

import threading

import psycopg
import pytest

from fraud_contracts.errors import StoreError
from fraud_process.postgres import address_of
from fraud_process.store_address import StoreAddress
from fraud_sinks.database import Database, migrate
from fraud_testing.kafka import free_port, wait_for
from fraud_testing.postgres import Server

pytestmark = pytest.mark.integration


def test_an_advisory_lock_stops_no_ledger(database: Server) -> None:
    """Any login may hold one of any name: neither a migration nor a transaction waits for it."""
    schema = "fraud_locked"
    with psycopg.connect(database.dsn, autocommit=True) as stranger:
        for name in (schema, f"{schema}.ledger"):
            stranger.execute("SELECT pg_advisory_lock(hashtext(%s))", (name,))
        dsn = f"{database.dsn}?options=-cstatement_timeout%3D5000"
        migrate(dsn, schema)
        own = Database(StoreAddress(dsn), schema)
        with own.transaction() as cursor:
            # The transaction's own limit is longer.
            cursor.execute("SELECT count(*) FROM decisions")
        own.close()


def test_a_transaction_waits_for_the_one_before_it_and_readers_for_none(database: Server) -> None:
    """The second one begins when the first has ended; meanwhile the ledger can be read."""
    schema = "fraud_in_turn"
    migrate(database.dsn, schema)
    first, second = (Database(StoreAddress(database.dsn), schema) for _ in range(2))
    entered = threading.Event()

    def enter() -> None:
        with second.transaction():
            entered.set()

    waiting = threading.Thread(target=enter, daemon=True)
    with psycopg.connect(database.dsn, autocommit=True) as reader:
        with first.transaction():
            waiting.start()
            wait_for(
                lambda: (
                    reader.execute(
                        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = %s::regclass",
                        (f"{schema}.ledger_version",),
                    ).fetchone()
                    == (1,)
                ),
                10,
                "the second transaction",
            )
            reader.execute(f"SELECT version_num FROM {schema}.ledger_version")
            reader.execute(f"SELECT count(*) FROM {schema}.decisions")
            assert not entered.is_set()
        waiting.join()
    assert entered.is_set()
    for one in (first, second):
        one.close()


def test_an_address_that_cant_be_read_is_a_store_error_without_its_text() -> None:
    """As a password with a space or a per cent sign in it makes it; also one that is taken for a host's name."""
    for dsn in (
        "host=h password=two ssw0rd",
        "postgresql://u:ssw0rd%zz@127.0.0.1/db",
        f"postgresql://u:pa@ssw0rd@127.0.0.1:{free_port()}/db",
    ):
        with pytest.raises(StoreError) as unread:
            Database(StoreAddress(dsn), "fraud_none").transaction().__enter__()
        assert "ssw0rd" not in str(unread.value)
        with pytest.raises(StoreError) as unread:
            migrate(address_of(StoreAddress(dsn)), "fraud_none")
        assert "ssw0rd" not in str(unread.value)
