"""The ledger as the doors read it, over a real PostgreSQL with the sink's own tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest

from fraud_contracts.config import POSTGRES_DSN, STORES_ENV
from fraud_contracts.errors import StoreError
from fraud_process.store_address import StoreAddress, store_address
from fraud_serving.clients.ledger_link import LedgerLink
from fraud_sinks.database import migrate
from fraud_testing import ledger, postgres
from fraud_testing.batches import OF
from fraud_testing.kafka import wait_for
from fraud_testing.required import require

pytestmark = pytest.mark.integration
_INSERT = 'INSERT INTO decisions (id, content, record, raw, topic, partition, "offset") VALUES (%s, %s, %s, %s, %s, 0, 0)'
_PROGRESS = "INSERT INTO progress (topic, lineage, partition, following) VALUES (%s, %s, %s, %s)"


@pytest.fixture(scope="module")
def database() -> Iterator[postgres.Server]:
    require(postgres.missing())
    with postgres.server() as running:
        yield running


@pytest.fixture
def link(database: postgres.Server) -> Iterator[LedgerLink]:
    opened = LedgerLink(StoreAddress(database.dsn), OF)
    yield opened
    opened.close()


@pytest.fixture
def tables(database: postgres.Server) -> Iterator[psycopg.Connection[Any]]:
    """The ledger, empty."""
    migrate(database.dsn, OF.database_schema)
    options = f"-c search_path={OF.database_schema}"
    with psycopg.connect(database.dsn, autocommit=True, options=options) as connection:
        yield connection
        connection.execute(f"DROP SCHEMA {OF.database_schema} CASCADE")


def insert(tables: psycopg.Connection[Any], event_id: str, raw: bytes | None = None) -> None:
    record = ledger.decision(event_id).decode()
    tables.execute(_INSERT, (event_id, b"c", record, raw, OF.topic("decisions")))


def test_without_tables_the_ledger_does_not_answer(link: LedgerLink) -> None:
    """The sink has not started yet, or the schema is gone."""
    with pytest.raises(StoreError):
        link.look(["a"])


def test_ids_are_found_with_how_far_the_ledger_is(link: LedgerLink, tables: psycopg.Connection[Any]) -> None:
    """In one answer; of an id whose record PostgreSQL can't hold as it is, the bytes of the record itself."""
    insert(tables, "a")
    insert(tables, "nul", b"as it was")
    for place in ((OF.topic("decisions"), 1, 0, 17), (OF.topic("label-reports"), 0, 0, 5)):
        tables.execute(_PROGRESS, place)
    look = link.look(["a", "nul", "absent"])
    assert orjson.loads(look.decisions["a"]) == orjson.loads(ledger.decision("a"))
    assert (look.decisions["nul"], look.reached) == (b"as it was", {(1, 0): 17})
    assert look.decisions.keys() == {"a", "nul"}


def test_it_is_asked_again_over_a_new_connection(
    link: LedgerLink, tables: psycopg.Connection[Any], database: postgres.Server
) -> None:
    """A server that was restarted has ended the old one; nobody's question fails for that."""
    insert(tables, "a")
    assert "a" in link.look(["a"]).decisions
    pid = link._connect().info.backend_pid
    tables.execute("SELECT pg_terminate_backend(%s)", (pid,))
    assert "a" in link.look(["a"]).decisions


def test_what_is_older_than_a_time(link: LedgerLink, tables: psycopg.Connection[Any]) -> None:
    """By when it was decided."""
    assert not link.has_older(ledger.DAY * 2)
    insert(tables, "a")
    assert (link.has_older(ledger.DAY + 5), link.has_older(ledger.DAY + 6)) == (False, True)


def test_topics_are_told_by_their_ids(link: LedgerLink, tables: psycopg.Connection[Any]) -> None:
    """Of decisions alone."""
    for topic, topic_id, lineage in (("decisions", "x", 0), ("decisions", "y", 1), ("labels", "z", 0)):
        tables.execute(
            "INSERT INTO topics (topic, topic_id, lineage) VALUES (%s, %s, %s)",
            (OF.topic(topic), topic_id, lineage),
        )
    assert link.lineages() == {"x": 0, "y": 1}


@pytest.mark.parametrize("dsn", ["no address at all", "postgresql://nobody@127.0.0.1:1/none"])
def test_a_ledger_that_is_not_there_does_not_answer(dsn: str) -> None:
    """As one error, whatever the cause."""
    with pytest.raises(StoreError):
        LedgerLink(StoreAddress(dsn), OF).look(["a"])


def test_a_decision_whose_claim_would_be_over_is_not_found(
    link: LedgerLink, tables: psycopg.Connection[Any]
) -> None:
    """After more than a day an id is a new one, also within the day of a loss."""
    for event_id in ("old", "new"):
        insert(tables, event_id)
    tables.execute("UPDATE decisions SET written = now() - interval '26 hours' WHERE id = 'old'")
    assert link.look(["old", "new"]).decisions.keys() == {"new"}


def test_a_connection_that_nobody_uses_is_given_back(
    link: LedgerLink, tables: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger's sink has the same login, and its connections are few; the next question opens another."""
    monkeypatch.setattr("fraud_serving.clients.ledger_link._IDLE_SECONDS", 0.05)
    insert(tables, "a")
    assert link.look(["a"]).decisions.keys() == {"a"}
    wait_for(lambda: link._connection is None, 10, "the connection's end")
    assert link.look(["a"]).decisions.keys() == {"a"}


def test_an_address_that_comes_later_is_used(
    database: postgres.Server, tables: psycopg.Connection[Any], tmp_path: Path
) -> None:
    """Until its file is there the ledger is away. Where the file goes while a login is replaced, the last one is good for a while."""
    insert(tables, "a")
    link = LedgerLink(store_address(POSTGRES_DSN, {STORES_ENV: str(tmp_path)}, may_come=True), OF)
    for _ in range(2):
        with pytest.raises(StoreError, match=POSTGRES_DSN):
            link.look(["a"])
    (tmp_path / POSTGRES_DSN).write_text(database.dsn)
    assert "a" in link.look(["a"]).decisions
    (tmp_path / POSTGRES_DSN).unlink()
    assert "a" in link.look(["a"]).decisions
    link.close()
    assert "a" in link.look(["a"]).decisions
    link.close()
