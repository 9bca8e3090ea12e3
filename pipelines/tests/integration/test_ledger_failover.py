"""A primary that moves to its standby under the ledger: real servers, one ended or demoted, the other promoted."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from fraud_contracts.config import DetectorConfig
from fraud_contracts.errors import StoreError
from fraud_process.postgres import address_of
from fraud_process.store_address import StoreAddress
from fraud_sinks.database import Database, migrate
from fraud_testing import postgres
from fraud_testing.kafka import Broker, wait_for
from fraud_testing.ledger import Ledger, decision, report
from fraud_testing.postgres import Server, either
from fraud_testing.required import require
from fraud_testing.sinks import sink

pytestmark = pytest.mark.integration
Make = Callable[..., DetectorConfig]
# What a sink may take to find the new primary: its longest pause between two tries, and a try.
FOUND = 20.0


@pytest.fixture
def pair() -> Iterator[tuple[Server, Server]]:
    """A primary and its standby."""
    require(postgres.missing())
    with postgres.server() as primary, postgres.standby(primary) as standby:
        yield primary, standby


def ordered(server: Server, *statements: str) -> None:
    """Each in a transaction of its own, as the server's own user."""
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        for statement in statements:
            admin.execute(statement)


def test_the_ledger_goes_on_at_a_promoted_standby(
    pair: tuple[Server, Server], broker: Broker, make: Make, tmp_path: Path
) -> None:
    """The standby lacks what the primary took last: the same process reads it again, every row is there once, every label published."""
    primary, standby = pair
    config = make(1)
    decisions, reports = config.identity.topic("decisions"), config.identity.topic("label-reports")
    # The standby is named first, so the order of the hosts isn't what finds the primary.
    with sink("fraud_sinks.ledger", config, tmp_path, POSTGRES_DSN=either(standby, primary)) as running:
        broker.produce(decisions, [("k", decision(f"tx-{n}")) for n in range(100)])
        running.start()
        running.await_ready()
        process, before, after = running.process, Ledger(primary, config), Ledger(standby, config)
        wait_for(lambda: after.one("SELECT count(*) FROM decisions") == 100, 20, "the standby's rows")
        ordered(standby, "ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
        stopped = "SELECT count(*) FROM pg_stat_replication"
        wait_for(lambda: before.one(stopped) == 0, 20, "the standby to be cut off")
        broker.produce(decisions, [("k", decision(f"tx-{n}")) for n in range(100, 150)])
        broker.produce(reports, [("k", report("tx-120"))])
        wait_for(lambda: before.one("SELECT count(*) FROM labels WHERE published") == 1, 20, "the label")
        primary.stop(signal.SIGQUIT)
        broker.produce(decisions, [("k", decision(f"tx-{n}")) for n in range(150, 200)])
        wait_for(lambda: running.metric("fraud_sink_retries_total") > 0, 20, "a retry")
        standby.promote()
        wait_for(lambda: after.one("SELECT count(*) FROM decisions") == 200, FOUND, "the rows after it moved")
        wait_for(lambda: after.one("SELECT count(*) FROM labels WHERE published") == 1, FOUND, "the label")
        assert after.one("SELECT count(*) FROM decision_conflicts") == 0
        assert after.one("SELECT count(*) FROM label_reports WHERE joined") == 1
        assert running.metric("fraud_sink_store_losses_total") == 1
        assert running.process is process
        assert running.stop() == 0


def test_a_primary_that_takes_no_writes_any_more_counts_as_lost(pair: tuple[Server, Server]) -> None:
    """The refused transaction is an error of the store, and the next one is the new primary's."""
    primary, standby = pair
    address, schema = StoreAddress(either(primary, standby)), "fraud_moved"
    migrate(address_of(address), schema)
    own = Database(address, schema)
    with own.transaction() as cursor:
        cursor.execute("INSERT INTO topics (topic, topic_id, lineage) VALUES ('one', 'i', 0)")
    wait_for(lambda: _topics(standby, schema) == ["one"], 20, "the standby's row")
    ordered(primary, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
    standby.promote()

    def refused() -> bool:
        try:
            with own.transaction() as cursor:
                cursor.execute("DELETE FROM topics")
        except StoreError as error:
            assert "read-only" in str(error)
            return True
        return False

    wait_for(refused, 10, "the reloaded setting")
    with own.transaction() as cursor:
        cursor.execute("INSERT INTO topics (topic, topic_id, lineage) VALUES ('two', 'i', 0)")
    assert _topics(standby, schema) == ["one", "two"]
    own.close()


def test_while_none_takes_writes_the_error_says_so(pair: tuple[Server, Server]) -> None:
    """Between the primary's end and the promotion, and without the address."""
    primary, standby = pair
    primary.stop(signal.SIGQUIT)
    with (
        pytest.raises(StoreError, match="no server there takes writes now"),
        Database(StoreAddress(either(primary, standby)), "fraud_none").transaction(),
    ):
        pass


def _topics(server: Server, schema: str) -> list[str]:
    """None where a standby has no such table yet."""
    with psycopg.connect(server.dsn) as connection:
        try:
            rows = connection.execute(f"SELECT topic FROM {schema}.topics ORDER BY topic").fetchall()
        except psycopg.errors.UndefinedTable:
            return []
    return [row[0] for row in rows]
