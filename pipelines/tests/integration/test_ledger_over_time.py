"""The ledger over months: outages, backups put back, migrations of a filled database, old rows taken out."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from pathlib import Path

import psycopg
import pytest

from fraud_contracts.config import DetectorConfig
from fraud_contracts.errors import StoreError
from fraud_process.kafka import KafkaAccess
from fraud_process.store_address import StoreAddress
from fraud_sinks import database as database_module
from fraud_sinks import ledger_records
from fraud_sinks.database import Database, migrate
from fraud_sinks.ledger import LabelProducer, LedgerWriter
from fraud_sinks.meters import Meters
from fraud_sinks.prune import prune
from fraud_sinks.records import Record
from fraud_testing import postgres
from fraud_testing.kafka import Broker, free_port, wait_for
from fraud_testing.ledger import DAY, Ledger, decision, ledger_sink, report
from fraud_testing.postgres import Server
from fraud_testing.proxy import Fault, proxy

pytestmark = pytest.mark.integration
Make = Callable[..., DetectorConfig]


def test_an_outage_of_the_database_is_bridged(broker: Broker, make: Make, tmp_path: Path) -> None:
    """PostgreSQL crashes and comes back, twice, amid records: the same process goes on with every row once."""
    config = make(1)
    topic = config.identity.topic("decisions")
    with postgres.server() as own, ledger_sink(config, tmp_path, own) as running:
        running.start()
        running.await_ready()
        process = running.process
        for turn in (1, 2):
            own.stop(signal.SIGQUIT)
            broker.produce(
                topic, [("k", decision(f"tx-{n}")) for n in range((turn - 1) * 100, turn * 100 + 50)]
            )
            wait_for(lambda: running.metric("fraud_sink_retries_total") > 0, 10, "a retry")
            own.start()
            ledger = Ledger(own, config)
            wait_for(
                lambda n=turn * 100 + 50, of=ledger: of.one("SELECT count(*) FROM decisions") == n,  # type: ignore[misc]  # mypy: a lambda with defaults
                20,
                "the rows after the outage",
            )
        assert ledger.one("SELECT count(*) FROM decision_conflicts") == 0
        assert process is not None
        assert process.poll() is None
        assert running.stop() == 0


def test_a_silent_database_is_given_up_in_time(
    database: Server, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that takes the bytes and says nothing costs a bounded wait, not the sink; then a new connection is made."""
    schema = make(1).identity.database_schema
    migrate(database.dsn, schema)
    monkeypatch.setattr(database_module, "SILENCE_SECONDS", 1.0)
    with proxy(free_port(), database.port) as between:
        own = Database(StoreAddress(database.dsn.replace(str(database.port), str(between.port))), schema)
        with own.transaction() as cursor:
            cursor.execute("SELECT count(*) FROM decisions")
        between.set(Fault.STALL)
        began = time.monotonic()
        with pytest.raises(StoreError), own.transaction() as cursor:
            cursor.execute("SELECT count(*) FROM decisions")
        assert time.monotonic() - began < 10
        between.set(None)
        with own.transaction() as cursor:
            assert cursor.execute("SELECT count(*) FROM decisions").fetchone() == (0,)


def test_a_database_put_back_to_an_earlier_state_gets_what_it_lacks(
    broker: Broker, database: Server, make: Make, tmp_path: Path
) -> None:
    """Rows and progress of a backup, or no tables at all, under a running sink: it reads again from there, in the same process."""
    config = make(2)
    topic, schema = config.identity.topic("decisions"), config.identity.database_schema
    with ledger_sink(config, tmp_path, database) as running:
        broker.produce(topic, [(f"t_{n}", decision(f"tx-{n}")) for n in range(50)])
        running.start()
        running.await_ready()
        ledger = Ledger(database, config)
        before = ledger.rows("SELECT topic, partition, following FROM progress")
        broker.produce(topic, [(f"t_{n}", decision(f"tx-{n}")) for n in range(50, 100)])
        wait_for(lambda: ledger.one("SELECT count(*) FROM decisions") == 100, 10, "all rows")
        with ledger.connection.transaction():
            ledger.rows("DELETE FROM decisions WHERE substr(id, 4)::int >= 50 RETURNING id")
            for place in before:
                ledger.rows(
                    f"UPDATE progress SET following = {place[2]} WHERE topic = '{place[0]}' AND partition = {place[1]}"
                    " RETURNING topic"
                )
        wait_for(lambda: ledger.one("SELECT count(*) FROM decisions") == 100, 20, "the rows that went")
        ledger.connection.execute(f"DROP SCHEMA {schema} CASCADE")

        def refilled() -> bool:
            progress = ledger.one("SELECT to_regclass('progress')")
            return progress is not None and ledger.one("SELECT count(*) FROM decisions") == 100

        wait_for(refilled, 30, "everything")
        assert running.metric("fraud_sink_store_losses_total") == 2
        assert running.stop() == 0


def test_conflicts_do_not_depend_on_the_order_of_partitions(
    database: Server, broker: Broker, make: Make
) -> None:
    """Three decisions of one id, one of them twice, on two partitions: each order of arrival ends with the same rows."""
    records = [
        ("one", 0, 0, DAY + 1, decision("x")),
        ("two", 1, 0, DAY + 2, decision("x", hash="h2")),
        ("two again", 0, 1, DAY + 3, decision("x", hash="h2")),
        ("three", 1, 1, DAY + 4, decision("x", action="decline")),
    ]
    outcomes = set()
    for order in permutations(records):
        if [r[2] for r in order if r[1] == 0] != [0, 1] or [r[2] for r in order if r[1] == 1] != [0, 1]:
            continue  # a partition is read in order
        config = make(1)
        migrate(database.dsn, config.identity.database_schema)
        meters = Meters("d", "l")
        writer = LedgerWriter(
            Database(StoreAddress(database.dsn), config.identity.database_schema),
            config,
            LabelProducer(KafkaAccess(broker.bootstrap), config.identity.topic("labels"), "counterparty"),
            meters,
        )
        for _, partition, offset, appended, value in order:
            writer.write(
                [Record(config.identity.topic("decisions"), partition, offset, appended, b"k", value)]
            )
        ledger = Ledger(database, config)
        rows = ledger.rows('SELECT partition, "offset", hash, action, written FROM decisions')
        rows += ledger.rows(
            'SELECT partition, "offset", kind, record, written FROM decision_conflicts ORDER BY 1, 2'
        )
        outcomes.add(repr(rows))
        counted = {"detector": "d", "door": "inline"}
        assert meters.registry.get_sample_value("fraud_id_conflicts_total", counted) == 2
        assert [row[:3] for row in rows] == [(0, 0, "h1"), (1, 0, "body"), (1, 1, "decision")]
    assert len(outcomes) == 1


def test_a_filled_ledger_goes_forward_to_the_newest_version(
    broker: Broker, database: Server, make: Make, tmp_path: Path
) -> None:
    """Rows of version 1 stay as they are, and the sink that migrated them goes on: joins, corrections, conflicts."""
    config = make(1)
    schema = config.identity.database_schema
    migrate(database.dsn, schema, "v0001")
    ledger = Ledger(database, config)
    decisions = config.identity.topic("decisions")
    values = {f"tx-{n}": decision(f"tx-{n}") for n in range(500)}
    for at, (event_id, value) in enumerate(values.items()):
        entry = ledger_records.decision(Record(decisions, 0, at, DAY, b"k", value), "customer").entry
        ledger.connection.execute(
            'INSERT INTO decisions (id, content, record, entity, topic, partition, "offset")'
            " VALUES (%s, %s, %s, %s, %s, 0, %s)",
            (event_id, entry.content, entry.record, entry.entity, decisions, at),
        )
    ledger.connection.execute(
        'INSERT INTO decision_conflicts (topic, partition, "offset", id, kind, record)'
        " VALUES (%s, 0, 500, 'tx-0', 'body', %s)",
        (decisions, decision("tx-0", hash="h2").decode()),
    )
    for at, (label, joined) in enumerate([(True, True), (False, True), (True, False)]):
        ledger.connection.execute(
            "INSERT INTO label_reports VALUES ('r', 0, %s, %s, %s, 'analyst', 1, %s, %s)",
            (at, "tx-1" if joined else "later", label, DAY + at, joined),
        )
    ledger.connection.execute(
        "INSERT INTO labels (id, fraud, source, claimed, known, time, entities, revision, published)"
        " SELECT id, false, 'analyst', 1, %s, time, entities, 7, true FROM decisions WHERE id = 'tx-1'",
        (DAY + 1,),
    )
    broker.produce(decisions, [("k", value) for value in values.values()])
    ledger.connection.execute("INSERT INTO progress VALUES (%s, 0, 500)", (decisions,))
    kept = {
        table: ledger.rows(f"SELECT to_jsonb(t) - 'revision' - 'lineage' FROM {table} t ORDER BY 1")
        for table in ("decisions", "label_reports", "labels", "progress")
    }
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: migrate(database.dsn, schema), range(2)))
    for table, rows in kept.items():
        assert ledger.rows(f"SELECT to_jsonb(t) - 'revision' - 'lineage' FROM {table} t ORDER BY 1") == rows
    assert ledger.rows('SELECT id, kind, "offset" FROM decision_conflicts') == [("tx-0", "body", 500)]
    with ledger_sink(config, tmp_path, database) as running:
        running.start()
        running.await_ready()
        broker.produce(
            decisions,
            [("k", decision("later")), ("k", decision("tx-0", action="decline")), ("k", decision("tx-2"))],
        )
        broker.produce(config.identity.topic("label-reports"), [("tx-1", report("tx-1"))])
        wait_for(
            lambda: (
                ledger.rows("SELECT id, fraud, revision, published FROM labels ORDER BY id")
                == [("later", True, 1, True), ("tx-1", True, 3, True)]
            ),
            20,
            "the new labels",
        )
        wait_for(lambda: ledger.one("SELECT count(*) FROM decisions") == 501, 10, "the new decision")
        assert ledger.one("SELECT count(*) FROM decision_conflicts") == 2
        assert running.stop() == 0


def test_old_rows_are_taken_out_whole(database: Server, broker: Broker, make: Make, tmp_path: Path) -> None:
    """A decision goes with label and conflicts; a waiting report goes by its age; what is younger stays, and so does the progress."""
    config = make(1)
    old, young = DAY - 90 * 86_400_000, DAY
    decisions, reports = config.identity.topic("decisions"), config.identity.topic("label-reports")
    migrate(database.dsn, config.identity.database_schema)
    own = Database(StoreAddress(database.dsn), config.identity.database_schema)
    labels = LabelProducer(KafkaAccess(broker.bootstrap), config.identity.topic("labels"), "counterparty")
    writer = LedgerWriter(own, config, labels, Meters("d", "l"))
    records = [
        Record(decisions, 0, at, decided, b"k", decision(f"{name}-{at}", decided=decided))
        for at, (name, decided) in enumerate([("old", old)] * 7 + [("young", young)] * 3)
    ]
    records.append(Record(decisions, 0, 10, old, b"k", decision("old-0", hash="h2")))
    records += [
        Record(reports, 0, at, appended, None, report(event_id))
        for at, (event_id, appended) in enumerate(
            [("old-1", old), ("young-8", young), ("never", old), ("not yet", young)]
        )
    ]
    records.append(Record(reports, 0, 4, old, None, b"{}"))
    writer.write(records)
    ledger = Ledger(database, config)
    progress = ledger.rows("SELECT * FROM progress ORDER BY 1")
    before = DAY - 40 * 86_400_000
    want = {"decisions": 7, "label_reports": 2, "rejected": 1}
    assert prune(own, before, dry_run=True) | {"label_reports": 2} == want
    assert prune(own, before, batch=3) == want
    assert prune(own, before) == dict.fromkeys(want, 0)
    assert [row[0] for row in ledger.rows("SELECT id FROM decisions ORDER BY 1")] == [
        "young-7",
        "young-8",
        "young-9",
    ]
    assert ledger.rows("SELECT id FROM labels") == [("young-8",)]
    assert ledger.one("SELECT count(*) FROM decision_conflicts") == 0
    assert ledger.rows("SELECT id FROM label_reports ORDER BY id") == [("not yet",), ("young-8",)]
    assert ledger.rows("SELECT * FROM progress ORDER BY 1") == progress


def test_migrations_may_start_together(database: Server) -> None:
    """Three replicas at once: one migrates, the others find it done."""
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: migrate(database.dsn, "fraud_together"), range(3)))
    with psycopg.connect(database.dsn) as connection:
        assert connection.execute("SELECT version_num FROM fraud_together.ledger_version").fetchall() == [
            ("v0003",)
        ]


def test_a_rotated_login_costs_no_transaction(database: Server, tmp_path: Path) -> None:
    """The next transaction after the address changed is the new login's, and its predecessor may go."""
    schema, file = "fraud_rotated", tmp_path / "POSTGRES_DSN"
    dsn = f"host=127.0.0.1 port={database.port} dbname=postgres"
    with psycopg.connect(database.dsn, autocommit=True) as admin:
        admin.execute("CREATE ROLE fraud_rotated NOLOGIN")
        admin.execute("CREATE SCHEMA fraud_rotated AUTHORIZATION fraud_rotated")
        for user in ("one", "two"):
            admin.execute(f"CREATE ROLE rotated_{user} LOGIN NOINHERIT IN ROLE fraud_rotated")
            admin.execute(f"ALTER ROLE rotated_{user} SET role = fraud_rotated")
        file.write_text(f"{dsn} user=rotated_one")
        migrate(file.read_text(), schema)
        own = Database(StoreAddress(file=file), schema)
        for user in ("one", "two"):
            file.write_text(f"{dsn} user=rotated_{user}")
            with own.transaction() as cursor:
                cursor.execute("SELECT session_user, current_user, (SELECT count(*) FROM decisions)")
                assert cursor.fetchone() == (f"rotated_{user}", "fraud_rotated", 0)
        admin.execute("DROP ROLE rotated_one")
        with own.transaction() as cursor:
            cursor.execute("SELECT tableowner FROM pg_tables WHERE schemaname = %s", (schema,))
            assert {owner for (owner,) in cursor.fetchall()} == {"fraud_rotated"}
        own.close()
