"""Backups of one store put back to an earlier moment than the others: what it lacks comes back from the topics, nothing twice."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import redis as client
from deltalake import DeltaTable

from fraud_contracts import profile_header
from fraud_contracts.config import DetectorConfig
from fraud_contracts.names import profile_key
from fraud_contracts.profile_header import Header
from fraud_testing import pages, postgres, redis
from fraud_testing.kafka import Broker, wait_for
from fraud_testing.ledger import Ledger, decision, ledger_sink, report
from fraud_testing.sinks import SinkProcess, sink

pytestmark = pytest.mark.integration
Make = Callable[..., DetectorConfig]
TABLES = ("decisions", "decision_conflicts", "label_reports", "labels", "rejected", "progress")
HALF = 200


def produce(broker: Broker, config: DetectorConfig, first: int) -> None:
    """Decisions, some of them twice or with another one of the same id, a bad one, and reports of frauds."""
    numbers = range(first, first + HALF)
    decisions = [(f"t_{n}", decision(f"tx-{n}")) for n in numbers]
    decisions += [(f"t_{n}", decision(f"tx-{n}")) for n in numbers if n % 20 == 0]
    decisions += [
        (f"t_{n}", decision(f"tx-{n}", action="decline", score=999)) for n in numbers if n % 50 == 7
    ]
    broker.produce(config.identity.topic("decisions"), [*decisions, ("k", b"not json")])
    reports = [(f"tx-{n}", report(f"tx-{n}")) for n in numbers if n % 10 == 0]
    if first:  # the last word on a fraud of the first half
        reports.append(("tx-10", report("tx-10", "legitimate", "chargeback")))
    broker.produce(config.identity.topic("label-reports"), reports)


def command(program: str, folder: Path, **environ: str) -> None:
    """The page's command that runs this program."""
    [line] = [
        line for block in pages.blocks("backups") for line in block.commands if line.startswith(program)
    ]
    pages.run([pages.Block("docs/backups.md", "backups", line)], environ, 60, folder)


def rows(ledger: Ledger) -> dict[str, list[Any]]:
    return {table: ledger.rows(f"SELECT to_jsonb(t) AS row FROM {table} t ORDER BY 1") for table in TABLES}


@pytest.mark.parametrize("runs", [True, False], ids=["under a running sink", "while none runs"])
def test_an_earlier_dump_of_the_ledger_gets_every_row_once(
    broker: Broker, make: Make, tmp_path: Path, runs: bool
) -> None:
    """Decisions, conflicts, reports, labels, rejects and progress are those of before, row by row."""
    config = make(2)
    schema = config.identity.database_schema
    with postgres.server() as own, ledger_sink(config, tmp_path, own) as running:
        produce(broker, config, 0)
        running.start()
        running.await_ready()
        ledger = Ledger(own, config)
        wait_for(
            lambda: ledger.one("SELECT count(*) FROM labels WHERE published") == HALF // 10, 20, "labels"
        )
        command("pg_dump", tmp_path, POSTGRES_DSN=own.dsn, SCHEMA=schema)
        produce(broker, config, HALF)
        wait_for(lambda: ledger.one("SELECT count(*) FROM decisions") == 2 * HALF, 20, "all rows")
        wait_for(lambda: ledger.one("SELECT count(*) FROM labels WHERE published") == HALF // 5, 20, "labels")
        wait_for(lambda: not ledger.one("SELECT fraud FROM labels WHERE id = 'tx-10'"), 20, "the correction")
        wait_for(lambda: ledger.one("SELECT count(*) FROM labels WHERE NOT published") == 0, 20, "the outbox")
        whole = rows(ledger)
        assert len(whole["decision_conflicts"]) == 8 and len(whole["rejected"]) == 2
        if not runs:
            assert running.stop() == 0
        command("pg_restore", tmp_path, POSTGRES_DSN=own.dsn)
        if not runs:
            assert ledger.one("SELECT count(*) FROM decisions") == HALF
            running.start()
        wait_for(lambda: rows(ledger) == whole, 30, "every row as before")
        running.await_ready()
        assert running.stop() == 0
        assert rows(ledger) == whole


def test_an_earlier_file_of_redis_gets_every_newer_profile(
    broker: Broker, make: Make, tmp_path: Path
) -> None:
    """Read when Redis starts: the sink goes on where Redis's own progress says, in the same process, and writes all that is newer."""
    config = make(2)
    topic, mark = config.identity.topic("profiles"), config.identity.redis_complete(config.hash6)

    def profiles(first: int) -> list[tuple[str, bytes]]:
        set8 = config.feature_set[:8]
        return [
            (
                profile_key(config.hash6, "customer", f"c{n % 150}"),
                profile_header.pack(Header(1, set8, 1, n + 1, n)) + bytes(n % 30),
            )
            for n in range(first, first + HALF)
        ]

    broker.produce(topic, profiles(0))
    with (
        redis.server() as store,
        sink("fraud_sinks.profile", config, tmp_path, REDIS_URL=store.url) as running,
    ):
        asked = client.Redis.from_url(store.url)

        def stored() -> dict[bytes, Any]:
            found = sorted(asked.keys("*"))
            return {
                key: asked.get(key) if asked.type(key) == b"string" else asked.hgetall(key) for key in found
            }

        running.start()
        running.await_ready()
        command("redis-cli", tmp_path, REDIS_URL=store.url)
        broker.produce(topic, profiles(HALF))
        newest = {config.identity.redis_profile(key): value for key, value in profiles(HALF)}
        wait_for(lambda: asked.mget(list(newest)) == list(newest.values()), 20, "the newest profiles")
        wait_for(lambda: running.metric("fraud_sink_lag_records") == 0, 20, "no lag")
        whole, process = stored(), running.process
        store.stop()
        shutil.copy(tmp_path / "redis.rdb", store.folder / "dump.rdb")
        store.start()

        def as_before() -> bool:
            return bool(stored() == whole)

        wait_for(as_before, 30, "all that is newer than the file")
        assert asked.get(mark) == b"1"
        assert running.process is process and process is not None and process.poll() is None
        assert running.metric("fraud_sink_store_losses_total") == 1
        assert running.stop() == 0


def lake_rows(config: DetectorConfig, name: str) -> list[Any]:
    table = DeltaTable(f"{config.storage_uri}/lake/{name}").to_pyarrow_table()
    return list(table.sort_by([("partition", "ascending"), ("offset", "ascending")]).to_pylist())


def put_back(folder: Path, older: Path) -> None:
    """As a copy of the bucket is: what came later is gone, the log's newer entries with it."""
    shutil.rmtree(folder)
    shutil.copytree(older, folder)


def lake_sink(config: DetectorConfig, folder: Path) -> AbstractContextManager[SinkProcess]:
    return sink("fraud_sinks.lake", config, folder)


@pytest.mark.accept
@pytest.mark.parametrize("runs", [True, False], ids=["under a running sink", "while none runs"])
def test_an_earlier_folder_of_the_lake_gets_every_row_once(
    broker: Broker, make: Make, tmp_path: Path, runs: bool
) -> None:
    """The table's own commits say how far it had read: it goes on from there, also in the process that knew more."""
    config = make(2)
    folder, older = tmp_path / "lake", tmp_path / "older"
    with lake_sink(config, tmp_path) as running:
        produce(broker, config, 0)
        running.start()
        running.await_ready()
        shutil.copytree(folder, older)
        produce(broker, config, HALF)
        wait_for(lambda: len(lake_rows(config, "decisions")) == 2 * HALF, 60, "all rows")
        whole = lake_rows(config, "decisions")
        if not runs:
            assert running.stop() == 0
        put_back(folder, older)
        assert len(lake_rows(config, "decisions")) == HALF
        if not runs:
            running.start()
        # What a running sink is asked to write next shows it what is gone.
        broker.produce(config.identity.topic("decisions"), [("t_x", decision("tx-last"))])
        wait_for(lambda: len(lake_rows(config, "decisions")) == 2 * HALF + 1, 90, "every row again")
        again = [row for row in lake_rows(config, "decisions") if row["id"] != "tx-last"]
        assert again == whole
        assert running.metric("fraud_sink_store_losses_total") == runs
        assert running.stop() == 0


@pytest.mark.accept
def test_a_table_that_delta_restored_is_whole_after_a_rebuild(
    broker: Broker, make: Make, tmp_path: Path
) -> None:
    """Its log still says that all was read: a sink that goes on writes nothing of what lacks, the command does."""
    config = make(1)
    with lake_sink(config, tmp_path) as running:
        produce(broker, config, 0)
        running.start()
        running.await_ready()
        assert running.stop() == 0
        whole = lake_rows(config, "decisions")
        DeltaTable(f"{config.storage_uri}/lake/decisions").restore(0)
        running.start()
        running.await_ready()
        assert running.stop() == 0
        assert lake_rows(config, "decisions") == []
        running.start("--rebuild")
        assert running.wait(60) == 0, running.tail()
        assert lake_rows(config, "decisions") == whole
