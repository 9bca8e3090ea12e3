"""Each store built again from the topics is equal to the one that the sinks filled live, key by key and row by row; and
what the loss of Kafka itself leaves."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis as client
from deltalake import DeltaTable

from fraud_contracts import profile_header
from fraud_contracts.config import DetectorConfig
from fraud_contracts.names import profile_key
from fraud_contracts.profile_header import Header
from fraud_testing import kafka, postgres, redis
from fraud_testing.detectors import detector
from fraud_testing.kafka import Broker, wait_for
from fraud_testing.ledger import DAY, Ledger, decision, report
from fraud_testing.sinks import SinkProcess, sink

pytestmark = pytest.mark.integration
COUNT = 3_000
WAVES = 4
TABLES = ("decisions", "decision_conflicts", "label_reports", "labels", "rejected", "progress")


def produce(broker: Broker, config: DetectorConfig, wave: int) -> None:
    """A quarter of everything: decisions, their repeats and conflicts, reports that come early, late and twice, profiles of
    two feature sets and two epochs."""
    mine = range(wave * COUNT // WAVES, (wave + 1) * COUNT // WAVES)
    decisions: list[tuple[str, bytes]] = []
    reports: list[tuple[str, bytes]] = []
    for n in mine:
        action = ("review", "decline")[n % 2] if n % 9 == 0 else "approve"
        value = decision(f"tx-{n}", action=action, decided=DAY + n, vector=[float(n), None], arm="stable")
        decisions.append((f"t_{n}", value))
        if n % 100 == 0:
            decisions.append((f"t_{n}", value))  # emitted again
        if n % 150 == 7:  # another body under the same id, of another card, so perhaps on the other partition
            decisions.insert(-3, (f"t_other_{n}", decision(f"tx-{n}", hash=f"h{n}", decided=DAY + n)))
        if n % 150 == 8:
            decisions.append((f"t_{n}", decision(f"tx-{n}", action="decline", decided=DAY + n, score=999)))
        if n % 20 == 0:
            reports.append((f"tx-{n}", report(f"tx-{n}")))
        if n % 60 == 0 and n >= COUNT // WAVES:  # about a decision of an earlier wave
            earlier = f"tx-{n - 740}"
            reports.append((earlier, report(earlier, "legitimate", "chargeback")))
            reports.append((earlier, report(earlier, "legitimate", "analyst")))
    decisions += [("k", b"not json"), ("k", decision(f"nul-{wave}", release="a\0b"))]
    reports += [("never", report(f"never-{wave}")), ("bad", b"{}")]
    broker.produce(config.identity.topic("label-reports"), reports)
    broker.produce(config.identity.topic("decisions"), decisions)
    profiles = []
    for set8 in (config.feature_set[:8], "00112233"):
        for n in range(600):
            header = Header(1, set8, 1 + (wave > 1), wave * 1_000 + n, n * 2**40)
            key = profile_key(set8[:6], "customer", f"t_{(n * 7) % 200}")
            profiles.append((key, profile_header.pack(header) + bytes([wave]) * (n % 50)))
    broker.produce(config.identity.topic("profiles"), profiles)


def keys(store: redis.Server) -> dict[bytes, Any]:
    """Without what a running sink says of another set's profiles, which it says again with the next of them."""
    asked = client.Redis.from_url(store.url)
    return {
        name: asked.get(name) if asked.type(name) == b"string" else asked.hgetall(name)
        for name in sorted(asked.keys("*"))
        if not name.endswith(b":001122")
    }


def rows(ledger: Ledger) -> dict[str, list[Any]]:
    return {table: ledger.rows(f"SELECT to_jsonb(t) AS row FROM {table} t ORDER BY 1") for table in TABLES}


def lake(config: DetectorConfig) -> dict[str, list[Any]]:
    rows_by_table = {}
    for name in ("decisions", "labels"):
        table = DeltaTable(f"{config.storage_uri}/lake/{name}").to_pyarrow_table()
        order = [(column, "ascending") for column in ("topic", "partition", "offset")]
        rows_by_table[name] = table.sort_by(order).to_pylist()
    return rows_by_table


def test_rebuilt_stores_equal_the_originals(
    broker: Broker, make: Callable[..., DetectorConfig], tmp_path: Path
) -> None:
    """Filled live with a kill -9 of each sink, then emptied and rebuilt by the commands; nothing is published again."""
    config = make(2).model_copy(update={"epoch": 2})
    with ExitStack() as stack:
        database, store = stack.enter_context(postgres.server()), stack.enter_context(redis.server())
        addresses = {"POSTGRES_DSN": database.dsn, "REDIS_URL": store.url}
        sinks: list[SinkProcess] = [
            stack.enter_context(sink(f"fraud_sinks.{name}", config, tmp_path, **addresses))
            for name in ("profile", "ledger", "lake")
        ]
        for wave in range(WAVES):
            produce(broker, config, wave)
            for one in sinks:
                if wave == 2:
                    one.stop(signal.SIGKILL)
                if wave in (0, 2):
                    one.start()
            for one in sinks:
                one.await_ready()
        ledger = Ledger(database, config)
        count = broker.count(config.identity.topic("decisions"))
        labels = config.identity.topic("labels")
        wait_for(
            lambda: ledger.one("SELECT sum(following) FROM progress WHERE topic LIKE '%decisions%'") == count,
            60,
            "the ledger to be whole",
        )
        wait_for(lambda: len(lake(config)["decisions"]) == COUNT + WAVES, 60, "the lake to be whole")
        wait_for(lambda: len(lake(config)["labels"]) == broker.count(labels), 60, "the lake's labels")
        wait_for(lambda: all(one.metric("fraud_sink_lag_records") == 0 for one in sinks), 60, "no lag")
        for one in sinks:
            assert one.stop() == 0
        former_keys, former_rows, former_lake = keys(store), rows(ledger), lake(config)
        sent = broker.count(labels)
        assert len(former_keys) == 2 * 200 + 2  # profiles, the mark of completeness, the progress
        assert len(former_rows["decisions"]) == COUNT + WAVES
        assert len(former_rows["decision_conflicts"]) == COUNT // 150 * 2
        assert (len(former_rows["rejected"]), len(former_rows["label_reports"])) == (
            2 * WAVES,
            150 + 2 * 37 + WAVES,
        )
        assert sum(row[0]["fraud"] for row in former_rows["labels"]) == 150 - 37
        assert all(row[0]["published"] for row in former_rows["labels"])
        assert sorted(
            (row["id"], row["partition"], row["offset"]) for row in former_lake["decisions"]
        ) == sorted(ledger.rows('SELECT id, partition, "offset" FROM decisions'))

        client.Redis.from_url(store.url).flushall()
        ledger.connection.execute(f"DROP SCHEMA {config.identity.database_schema} CASCADE")
        shutil.rmtree(tmp_path / "lake")
        for one in sinks:
            one.start("--rebuild")
        for one in sinks:
            assert one.wait(120) == 0, one.tail()
        assert keys(store) == former_keys
        again = rows(ledger)
        assert again.pop("progress") == []  # a rebuild may run beside a sink, whose progress it is
        assert again == {table: kept for table, kept in former_rows.items() if table != "progress"}
        assert lake(config) == former_lake

        for one in sinks:
            one.start()
        for one in sinks:
            one.await_ready()
            assert one.stop() == 0
        assert keys(store) == former_keys
        assert rows(ledger) == former_rows
        assert lake(config) == former_lake
        assert broker.count(labels) == sent
        assert {orjson.loads(m.value())["id"] for m in broker.read(labels)} == {
            row[0]["id"] for row in former_rows["labels"]
        }


@pytest.mark.accept
def test_a_killed_broker_costs_the_sinks_nothing(make: Callable[..., DetectorConfig], tmp_path: Path) -> None:
    """kill -9 of Kafka amid a backlog, twice: the same processes go on, every row once; told to stop without Kafka, they end in time."""
    with ExitStack() as stack:
        broker = stack.enter_context(kafka.broker())
        database, store = stack.enter_context(postgres.server()), stack.enter_context(redis.server())
        config = detector(broker.bootstrap, 2, name="killed").model_copy(
            update={"storage_uri": f"file://{tmp_path}"}
        )
        broker.create_detector_topics(str(config.identity), 2)
        addresses = {"POSTGRES_DSN": database.dsn, "REDIS_URL": store.url}
        sinks = [
            stack.enter_context(sink(f"fraud_sinks.{name}", config, tmp_path, **addresses))
            for name in ("profile", "ledger", "lake")
        ]
        for wave in range(2):
            produce(broker, config, wave)
            for one in sinks:
                if wave == 0:
                    one.start()
            broker.stop(signal.SIGKILL)
            broker.start()
        produce(broker, config, 2)
        count = broker.count(config.identity.topic("decisions"))
        for one in sinks:
            one.await_ready(120)
        ledger = Ledger(database, config)
        wait_for(
            lambda: ledger.one("SELECT sum(following) FROM progress WHERE topic LIKE '%decisions%'") == count,
            90,
            "the ledger to be whole",
        )
        whole = ledger.one("SELECT count(*) FROM decisions")
        wait_for(lambda: len(lake(config)["decisions"]) == whole, 90, "the lake to be whole")
        assert len({row["id"] for row in lake(config)["decisions"]}) == whole
        asked = client.Redis.from_url(store.url)
        wait_for(lambda: asked.get(config.identity.redis_complete(config.hash6)), 60, "all profiles")
        for one in sinks:
            assert one.process is not None
            assert one.process.poll() is None
        broker.stop(signal.SIGKILL)
        for one in sinks:
            assert one.process is not None
            one.process.terminate()
        for one in sinks:
            one.wait(28)  # a Pod has 30 s
