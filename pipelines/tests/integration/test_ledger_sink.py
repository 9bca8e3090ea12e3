"""The ledger from a real Kafka to a real PostgreSQL: exact after crashes, conflicts kept, labels joined and sent on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest

from fraud_contracts.config import DetectorConfig
from fraud_contracts.errors import StoreError
from fraud_process.kafka import KafkaAccess
from fraud_process.store_address import StoreAddress
from fraud_sinks.database import Database, migrate
from fraud_sinks.ledger import LabelProducer, LedgerWriter
from fraud_sinks.meters import Meters
from fraud_sinks.records import Record
from fraud_testing.kafka import Broker, wait_for
from fraud_testing.ledger import DAY, Ledger, decision, ledger_sink, report
from fraud_testing.postgres import Server
from fraud_testing.sinks import SinkProcess

pytestmark = pytest.mark.integration
Make = Callable[..., DetectorConfig]


def restarted(running: SinkProcess) -> None:
    running.stop(signal.SIGKILL)
    running.start()
    running.await_ready()


def test_killed_amid_a_backlog_it_has_every_row_once(
    broker: Broker, database: Server, make: Make, tmp_path: Path
) -> None:
    """kill -9 twice, repeats in the topic: each decision is one row, and nothing counts as a conflict."""
    config = make(2)
    ids = [f"tx-{n}" for n in range(8_000)]
    records = [
        (f"t_{event_id}", decision(event_id, action="review" if event_id.endswith("7") else "approve"))
        for event_id in ids
    ]
    broker.produce(config.identity.topic("decisions"), records + records[:500])
    with ledger_sink(config, tmp_path, database) as running:
        running.start()
        schema = config.identity.database_schema
        with psycopg.connect(database.dsn, autocommit=True) as connection:
            for least in (1, 3_000):

                def has_rows(least: int = least) -> bool:
                    progress = connection.execute(
                        "SELECT to_regclass(%s)", (f"{schema}.progress",)
                    ).fetchone()
                    query = f"SELECT count(*) >= {least} FROM {schema}.decisions"
                    return progress != (None,) and connection.execute(query).fetchone() == (True,)

                wait_for(has_rows, 30, f"{least} rows")
                running.stop(signal.SIGKILL)
                running.start()
        running.await_ready()
        ledger = Ledger(database, config)
        assert ledger.one("SELECT count(*) FROM decisions") == len(ids)
        assert ledger.one("SELECT count(*) FROM decision_conflicts") == 0
        assert ledger.one("SELECT count(*) FROM rejected") == 0
        assert ledger.one("SELECT count(*) FROM alerts") == 800
        row = ledger.rows(
            "SELECT action, score, probability, arm, bucket, release, time, decided, amount, currency, entity,"
            " entities ->> 'counterparty', latency_ms, record FROM decisions WHERE id = 'tx-17'"
        )[0]
        want = (
            "review",
            17,
            0.25,
            "stable",
            12,
            "cards-release-1",
            DAY,
            DAY + 5,
            1250,
            "EUR",
            "t_tx-17",
            "shop-1",
        )
        assert row[:-1] == (*want, 1.25)
        assert row[-1] == orjson.loads(decision("tx-17", action="review"))
        assert running.metric("fraud_sink_lag_records") == 0 or wait_for(
            lambda: running.metric("fraud_sink_lag_records") == 0, 10, "the lag to be seen as 0"
        )


def test_labels_meet_their_decisions_in_either_order(
    broker: Broker, database: Server, make: Make, tmp_path: Path
) -> None:
    """A report before its decision waits; the joined label is on its topic with the counterparty's key and the report's append time."""
    config = make(2)
    decisions, label_reports = config.identity.topic("decisions"), config.identity.topic("label-reports")
    labels = config.identity.topic("labels")
    with ledger_sink(config, tmp_path, database) as running:
        broker.produce(label_reports, [("a", report("a")), ("never", report("never"))])
        running.start()
        running.await_ready()
        ledger = Ledger(database, config)
        wait_for(lambda: ledger.one("SELECT count(*) FROM label_reports") == 2, 10, "both reports")
        assert ledger.one("SELECT count(*) FROM labels") == 0
        restarted(running)

        broker.produce(decisions, [("t_a", decision("a")), ("t_b", decision("b"))])
        wait_for(
            lambda: ledger.one("SELECT count(*) FROM labels WHERE published") == 1, 10, "the first label"
        )
        broker.produce(label_reports, [("b", report("b"))])
        wait_for(
            lambda: ledger.one("SELECT count(*) FROM labels WHERE published") == 2, 10, "the second label"
        )
        broker.produce(label_reports, [("a", report("a", source="chargeback"))])
        broker.produce(label_reports, [("b", report("b", "legitimate", "chargeback"))])
        wait_for(
            lambda: ledger.one("SELECT count(*) FROM labels WHERE NOT fraud AND published") == 1,
            10,
            "the correction",
        )

        appended = {m.offset(): m for m in broker.read(label_reports) if orjson.loads(m.value())["id"] == "a"}
        first = min(message.timestamp()[1] for message in appended.values())
        sent = broker.read(labels)
        assert [(m.key(), orjson.loads(m.value())["id"], orjson.loads(m.value())["fraud"]) for m in sent] == [
            (b"shop-1", "a", True),
            (b"shop-1", "b", True),
            (b"shop-1", "b", False),
        ]
        assert orjson.loads(sent[0].value()) == {
            "id": "a",
            "time": DAY,
            "entities": {"customer": "t_a", "counterparty": "shop-1"},
            "fraud": True,
            "source": "analyst",
            "claimed": first,
            "known": first,
        }
        assert ledger.one("SELECT count(*) FROM label_reports WHERE NOT joined") == 1


def test_what_conflicts_or_is_unfit_is_kept_and_stops_nothing(
    broker: Broker, database: Server, make: Make, tmp_path: Path
) -> None:
    """Another body or another decision of an id stands beside the first, once; bad records are bytes with a reason."""
    config = make(1)
    bad = decision("type", score="many")  # valid JSON that PostgreSQL refuses
    records = [
        ("k", decision("x")),
        ("k", decision("x")),
        ("k", decision("x", parity="equal")),
        ("k", decision("x", hash="h2")),
        ("k", decision("x", action="decline")),
        ("k", bad),
        ("k", b"not json"),
        ("k", decision("nul", release="a\0b")),
        ("k", decision("last")),
    ]
    broker.produce(config.identity.topic("decisions"), records)
    broker.produce(
        config.identity.topic("label-reports"), [("x", b"{}"), ("x", report("x", source="nobody"))]
    )
    with ledger_sink(config, tmp_path, database) as running:
        running.start()
        running.await_ready()
        ledger = Ledger(database, config)
        assert running.metric("fraud_id_conflicts_total") == 2
        assert running.metric("fraud_sink_refused_total") == 4
        running.stop()
        running.start("--rebuild")
        assert running.wait() == 0, running.tail()
        assert [row[0] for row in ledger.rows("SELECT id FROM decisions ORDER BY id")] == ["last", "nul", "x"]
        assert ledger.rows('SELECT "offset", kind FROM decision_conflicts ORDER BY 1') == [
            (3, "body"),
            (4, "decision"),
        ]
        assert ledger.one("SELECT action FROM decisions WHERE id = 'x'") == "approve"
        assert ledger.rows(
            "SELECT \"offset\", payload FROM rejected WHERE topic LIKE '%decisions%' ORDER BY 1"
        ) == [
            (5, bad),
            (6, b"not json"),
        ]
        assert ledger.one("SELECT raw FROM decisions WHERE id = 'nul'") == decision("nul", release="a\0b")


def test_a_decision_of_odd_entities_is_kept_and_stops_nothing(
    broker: Broker, database: Server, make: Make, tmp_path: Path
) -> None:
    """No text, or too long for an index: rejected with a reason, and what comes after it is there."""
    config = make(1)
    odd: list[Any] = [{"a": 1}, [1, "x"], 5, os.urandom(9_000).hex()]
    event = orjson.loads(decision("odd"))["event"]
    records = [
        ("k", decision(f"odd-{n}", event=event | {"entities": {"customer": value}}))
        for n, value in enumerate(odd)
    ]
    records += [
        ("k", decision("odd-key", event=event | {"entities": {"customer": "t", "counterparty": {"a": 1}}}))
    ]
    broker.produce(config.identity.topic("decisions"), [*records, ("k", decision("last"))])
    with ledger_sink(config, tmp_path, database) as running:
        running.start()
        running.await_ready()
        ledger = Ledger(database, config)
        assert ledger.rows("SELECT id FROM decisions") == [("last",)]
        assert ledger.one("SELECT count(*) FROM rejected") == len(records)
        assert running.metric("fraud_sink_refused_total") == len(records)


def test_unreadable_labels_stop_nothing(broker: Broker, database: Server, make: Make, tmp_path: Path) -> None:
    """In the outbox or on the topic: they are counted, and the others go out."""
    config = make(1)
    labels = config.identity.topic("labels")
    broker.produce(config.identity.topic("decisions"), [("k", decision(name)) for name in ("a", "b")])
    broker.produce(config.identity.topic("label-reports"), [("k", report(name)) for name in ("a", "b")])
    broker.produce(labels, [("k", b"no label"), ("k", None), ("k", b"[]"), ("k", b'{"id": []}')])
    with ledger_sink(config, tmp_path, database) as running:
        running.start()
        running.await_ready()
        assert running.metric("fraud_sink_refused_total") == 4
        ledger = Ledger(database, config)
        ledger.rows(
            "UPDATE labels SET entities = '{\"counterparty\": 5}', published = false WHERE id = 'a' RETURNING id"
        )
        wait_for(
            lambda: running.metric("fraud_sink_refused_total") == 5, 20, "the unreadable one to be refused"
        )
        broker.produce(config.identity.topic("label-reports"), [("k", report("b", "legitimate"))])
        wait_for(lambda: broker.count(labels) == 4 + 3, 20, "the correction")
        assert running.stop() == 0


def test_a_crash_between_rows_and_labels_publishes_at_the_next_start(
    broker: Broker, database: Server, make: Make, tmp_path: Path
) -> None:
    """The outbox holds what was joined but not sent; offsets in the database don't hide it."""
    config = make(1)
    migrate(database.dsn, config.identity.database_schema)

    class Dies(LabelProducer):
        def send(self, rows: Any, sent: Any = None) -> None:
            raise StoreError("kafka", "died before sending")

    def writer(kind: type[LabelProducer]) -> LedgerWriter:
        labels = kind(KafkaAccess(broker.bootstrap), config.identity.topic("labels"), "counterparty")
        return LedgerWriter(
            Database(StoreAddress(database.dsn), config.identity.database_schema),
            config,
            labels,
            Meters("d", "l"),
        )

    batch = [
        Record(config.identity.topic("label-reports"), 0, 0, DAY, None, report("x")),
        Record(config.identity.topic("decisions"), 0, 0, DAY, None, decision("x")),
    ]
    with pytest.raises(StoreError):
        writer(Dies).write(batch)
    second = writer(LabelProducer)
    places = [batch[0].place, batch[1].place]
    assert set(second.start(places).values()) == {1}
    for place in places:
        second.caught_up(place, 1)
    assert [orjson.loads(m.value())["id"] for m in broker.read(config.identity.topic("labels"))] == ["x"]
    second.write(batch)
    assert broker.count(config.identity.topic("labels")) == 1


def test_a_database_that_lost_everything_is_written_again(
    broker: Broker, database: Server, make: Make, tmp_path: Path
) -> None:
    """The group's committed offsets are past the end of the topics, and still every row comes back."""
    config = make(2)
    broker.produce(config.identity.topic("decisions"), [(f"t_{n}", decision(f"tx-{n}")) for n in range(200)])
    with ledger_sink(config, tmp_path, database) as running:
        running.start()
        running.await_ready()
        assert running.stop() == 0
        ledger = Ledger(database, config)
        ledger.connection.execute(f"DROP SCHEMA {config.identity.database_schema} CASCADE")
        running.start()
        running.await_ready()
        assert Ledger(database, config).one("SELECT count(*) FROM decisions") == 200
