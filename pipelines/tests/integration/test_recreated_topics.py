"""A topic is deleted and made anew: offsets mean other records, so every stored place is of a topic's id, not of its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
import redis as client
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from fraud_contracts import lake, lake_snapshot, profile_header
from fraud_contracts.config import DetectorConfig
from fraud_contracts.names import profile_key
from fraud_contracts.profile_header import Header
from fraud_sinks import lake_manifest
from fraud_sinks.database import migrate
from fraud_sinks.lake_tables import DECISIONS
from fraud_sinks.records import Record
from fraud_testing.kafka import Broker, wait_for
from fraud_testing.ledger import DAY, Ledger, decision, ledger_sink, report
from fraud_testing.postgres import Server
from fraud_testing.redis import Server as Store
from fraud_testing.sinks import SinkProcess, sink

pytestmark = pytest.mark.integration
Make = Callable[..., DetectorConfig]
REREADS = "fraud_sink_rereads_total"


def ids(config: DetectorConfig) -> list[str]:
    rows = DeltaTable(lake.table(config.storage_uri, "decisions")).to_pyarrow_table(columns=["id"])
    return sorted(rows["id"].to_pylist())


def named(what: str, count: int) -> list[str]:
    return sorted(f"{what}-{n}" for n in range(count))


def send(broker: Broker, config: DetectorConfig, names: Sequence[str]) -> None:
    broker.produce(config.identity.topic("decisions"), [(f"t_{name}", decision(name)) for name in names])


def through(running: SinkProcess) -> None:
    running.start()
    running.await_ready()


@pytest.mark.parametrize("count", [10, 25], ids=["as long as before", "longer than before"])
def test_the_lake_gets_all_of_a_topic_made_anew(
    broker: Broker, make: Make, tmp_path: Path, count: int
) -> None:
    """While the sink was away the topic was made anew: every record is a row, and it is counted, once."""
    config = make(1)
    with sink("fraud_sinks.lake", config, tmp_path) as running:
        send(broker, config, named("old", 15))
        through(running)
        assert running.stop() == 0
        before = lake_manifest.read(config, "decisions")
        broker.remake(config.identity.topic("decisions"))
        send(broker, config, named("new", count))
        through(running)
        assert ids(config) == sorted([*named("old", 15), *named("new", count)])
        assert running.metric(REREADS) == 1
        assert running.stop() == 0
        through(running)
        assert running.metric(REREADS) == 0
        assert running.stop() == 0
    # A snapshot of before still names the same rows.
    table = DeltaTable(lake.table(config.storage_uri, "decisions")).to_pyarrow_table().to_pylist()
    snapshot = [row["id"] for row in table if lake_snapshot.within(before["read_to"], row)]
    assert sorted(snapshot) == named("old", 15)
    assert sum(lake_manifest.read(config, "decisions")["read_to"].values()) == 15 + count


def test_a_running_sink_notices_that_a_topic_was_made_anew(
    broker: Broker, make: Make, tmp_path: Path
) -> None:
    """The consumer goes on at whatever offset it was: the sink looks for the topic's id and begins again in the same process."""
    config = make(1)
    with sink("fraud_sinks.lake", config, tmp_path) as running:
        send(broker, config, named("old", 10))
        through(running)
        process = running.process
        broker.remake(config.identity.topic("decisions"))
        send(broker, config, named("new", 20))
        wait_for(lambda: ids(config) == sorted([*named("old", 10), *named("new", 20)]), 60, "all rows")
        assert running.metric(REREADS) == 1
        assert running.process is process
        assert process is not None
        assert process.poll() is None
        assert running.stop() == 0


def test_the_lake_goes_on_where_it_was_before_ids_were_kept(
    broker: Broker, make: Make, tmp_path: Path
) -> None:
    """Rows and offsets without an id are of the topic as it is now: nothing is read again; of a later topic everything is."""
    config = make(1)
    topic, uri = config.identity.topic("decisions"), lake.table(config.storage_uri, "decisions")
    old = DECISIONS.schema.remove(DECISIONS.schema.get_field_index("topic_id"))
    rows = [
        DECISIONS.row(Record(topic, 0, n, DAY, None, decision(name)))
        for n, name in enumerate(named("old", 10))
    ]
    place = Transaction(f"{config.identity.group('lake-sink')}/{topic}/0", 10)
    commit = CommitProperties(app_transactions=[place])
    write_deltalake(uri, pa.Table.from_pylist(rows, old), partition_by=["date"], commit_properties=commit)
    snapshot = lake_manifest.read(config, "decisions")["read_to"]
    assert snapshot == {f"{topic}/0": 10}
    send(broker, config, named("not the table's", 10))  # would be rows if these were read
    with sink("fraud_sinks.lake", config, tmp_path) as running:
        through(running)
        assert running.metric(REREADS) == 0
        send(broker, config, ["after"])
        running.stop()
        through(running)
        running.stop()
        assert ids(config) == sorted([*named("old", 10), "after"])
        broker.remake(topic)
        send(broker, config, named("new", 5))
        through(running)
        assert running.stop() == 0
    assert ids(config) == sorted([*named("old", 10), *named("new", 5), "after"])
    table = DeltaTable(uri)
    first = lake_snapshot.topic_ids(table, topic)[0]
    assert lake_manifest.read(config, "decisions")["read_to"][f"{topic}/0/{first}"] == 11
    recorded = lake_snapshot.named(snapshot, first)
    kept = [row for row in table.to_pyarrow_table().to_pylist() if lake_snapshot.within(recorded, row, first)]
    assert sorted(row["id"] for row in kept) == named("old", 10)


def test_the_ledger_keeps_both_topics_records(
    broker: Broker, database: Server, make: Make, tmp_path: Path
) -> None:
    """Decisions, conflicts, reports and rejected records of both are there, though their offsets are the same."""
    config = make(1)
    decisions, reports = config.identity.topic("decisions"), config.identity.topic("label-reports")

    def fill(what: str) -> None:
        names = named(what, 5)
        send(broker, config, names)
        broker.produce(decisions, [("k", decision(names[0], hash="h2")), ("k", b"no decision")])
        broker.produce(reports, [(name, report(name)) for name in names] + [("k", b"no report")])

    with ledger_sink(config, tmp_path, database) as running:
        fill("old")
        through(running)
        assert running.stop() == 0
        for topic in (decisions, reports):
            broker.remake(topic)
        fill("new")
        through(running)
        ledger = Ledger(database, config)
        counts = {"decisions": 10, "label_reports": 10, "labels": 10, "rejected": 4, "decision_conflicts": 2}
        assert {table: ledger.one(f"SELECT count(*) FROM {table}") for table in counts} == counts
        assert running.metric(REREADS) == 2
        assert running.stop() == 0
        through(running)
        assert running.metric(REREADS) == 0
        assert running.stop() == 0


def test_the_ledger_goes_on_where_it_was_before_ids_were_kept(
    broker: Broker, database: Server, make: Make, tmp_path: Path
) -> None:
    """Progress of version 2 is that of the topic as it is now."""
    config = make(1)
    migrate(database.dsn, config.identity.database_schema, "v0002")
    topic = config.identity.topic("decisions")
    ledger = Ledger(database, config)
    ledger.connection.execute("INSERT INTO progress VALUES (%s, 0, 5)", (topic,))
    send(broker, config, named("read", 5))
    with ledger_sink(config, tmp_path, database) as running:
        through(running)
        assert ledger.one("SELECT count(*) FROM decisions") == 0
        send(broker, config, ["after"])
        wait_for(lambda: ledger.one("SELECT count(*) FROM decisions") == 1, 10, "the next one")
        assert running.metric(REREADS) == 0
        assert running.stop() == 0


def test_profiles_of_a_topic_made_anew_are_all_read(
    broker: Broker, store: Store, make: Make, tmp_path: Path
) -> None:
    """The mark of completeness goes until they are; the progress of before ids were kept stays in use."""
    config = make(1)
    topic, redis = config.identity.topic("profiles"), client.Redis.from_url(store.url)
    mark, progress = (
        config.identity.redis_complete(config.hash6),
        config.identity.redis_progress(config.hash6),
    )

    def put(names: Sequence[str], seq: int) -> dict[bytes, bytes]:
        profiles = {
            profile_key(config.hash6, "customer", name): profile_header.pack(
                Header(1, config.feature_set[:8], 1, seq, 7)
            )
            for name in names
        }
        broker.produce(topic, list(profiles.items()))
        return {config.identity.redis_profile(key).encode(): value for key, value in profiles.items()}

    put(named("lost", 10), 1)
    redis.hset(progress, "0", 10)
    redis.set(mark, 1)
    with sink("fraud_sinks.profile", config, tmp_path, REDIS_URL=store.url) as running:
        through(running)
        assert redis.dbsize() == 2  # nothing was read again
        assert running.metric(REREADS) == 0
        want = put(named("old", 10), 1)
        wait_for(lambda: redis.dbsize() == 12, 10, "the next ones")
        assert running.stop() == 0
        broker.remake(topic)
        want |= put(named("new", 30), 1)
        through(running)
        assert redis.get(mark) == b"1"
        assert dict(zip(sorted(want), redis.mget(sorted(want)), strict=True)) == want
        assert running.metric(REREADS) == 1
        assert running.stop() == 0
