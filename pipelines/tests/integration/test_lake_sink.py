"""The lake from a real Kafka to a Delta table: each decision exactly once, whatever dies and when."""

from __future__ import annotations

import shutil
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import DeltaError

from fraud_contracts import lake, lake_snapshot
from fraud_contracts.config import DetectorConfig
from fraud_contracts.errors import StoreError
from fraud_process.kafka import KafkaAccess
from fraud_sinks import lake as lake_sink
from fraud_sinks import lake_manifest
from fraud_sinks.lake import LakeWriter
from fraud_sinks.lake_tables import DECISIONS, LABELS
from fraud_sinks.loop import Loop, Reading
from fraud_sinks.meters import Meters
from fraud_sinks.records import Place, Record
from fraud_testing.kafka import Broker, wait_for
from fraud_testing.sinks import sink

pytestmark = pytest.mark.integration
Make = Callable[..., DetectorConfig]
DAY = 1_764_000_000_000


def decision(event_id: str, decided: int = DAY) -> bytes:
    event = {
        "id": event_id,
        "time": decided - 5,
        "amount": 1250,
        "currency": "EUR",
        "entities": {"customer": f"t_{event_id}", "counterparty": None},
        "fields": {},
    }
    return orjson.dumps(
        {
            "id": event_id,
            "hash": "h",
            "door": "stream",
            "event": event,
            "set": "s",
            "vector": [0.1, None, 3.0],
        }
        | {"action": "review", "score": 600, "probability": 0.5, "release": "r", "model_version": None}
        | {"model_digest": None, "arm": None, "bucket": None, "degraded": ["no_model"], "decided": decided}
    )


def table(config: DetectorConfig) -> pa.Table:
    return DeltaTable(f"{config.storage_uri}/lake/decisions").to_pyarrow_table()


def ids(config: DetectorConfig) -> Counter[str]:
    return Counter(table(config)["id"].to_pylist())


def test_a_crash_between_append_and_commit_repeats_nothing(broker: Broker, make: Make) -> None:
    """The offsets are in the table's own commit: what Kafka was never told is still not written twice."""
    config = make(2)
    topic = config.identity.topic("decisions")
    broker.produce(topic, [(f"t_{n}", decision(f"tx-{n}")) for n in range(1_000)])
    group = config.identity.group("lake-sink")
    reading = Reading(KafkaAccess(broker.bootstrap), (topic,), group, "pod-0", batch=150, linger=0.1)

    def writer(kind: type[LakeWriter]) -> LakeWriter:
        return kind(f"{config.storage_uri}/lake/decisions", group, Meters("d", "lake"))

    class DiesAfterThree(LakeWriter):
        batches = 0

        def write(self, records: Sequence[Record]) -> int:
            done = super().write(records)
            DiesAfterThree.batches += 1
            if DiesAfterThree.batches == 3:
                raise SystemExit("died after the append, before the commit of offsets")
            return done

    with pytest.raises(SystemExit):
        Loop(reading, writer(DiesAfterThree), Meters("d", "lake")).run()
    before = table(config).num_rows
    assert 0 < before < 1_000
    assert sum(max(0, offset) for offset in broker.committed(group, topic).values()) < before

    class StopsWhenDone(LakeWriter):
        def tick(self) -> None:
            if rest_loop.ready():
                rest_loop.stop()

    rest_loop = Loop(reading, writer(StopsWhenDone), Meters("d", "lake"))
    rest_loop.run()
    assert ids(config) == Counter({f"tx-{n}": 1 for n in range(1_000)})


def test_partitions_change_hands_without_a_repeat(broker: Broker, make: Make) -> None:
    """A second replica joins amid the flow and the first leaves: what each had in hand is written before it lets go."""
    config = make(4)
    topic, group = config.identity.topic("decisions"), config.identity.group("lake-sink")

    def loop(name: str) -> Loop:
        writer = LakeWriter(f"{config.storage_uri}/lake/decisions", group, Meters("d", "lake"))
        return Loop(
            Reading(KafkaAccess(broker.bootstrap), (topic,), group, name, batch=100, linger=0.3),
            writer,
            Meters("d", "lake"),
        )

    loops = [loop("pod-0"), loop("pod-1")]
    with ThreadPoolExecutor(2) as pool:
        runs = []
        try:
            for turn in range(6):
                start = turn * 200
                broker.produce(topic, [(f"t_{n}", decision(f"tx-{n}")) for n in range(start, start + 200)])
                if turn in (0, 2):
                    runs.append(pool.submit(loops[len(runs)].run))
                if turn == 2:
                    wait_for(loops[1].ready, 60, "the second replica")
                if turn == 4:
                    loops[0].stop()
                    runs[0].result(60)
            wait_for(lambda: len(ids(config)) == 1_200, 60, "all decisions")
        finally:  # the pool waits for both
            for running in loops:
                running.stop()
        runs[1].result(60)
    assert set(ids(config).values()) == {1}


def test_an_append_whose_answer_was_lost_is_recognised(make: Make) -> None:
    """The loop tries the same batch again after an error; the table says that it is in."""
    config = make(1)
    writer = LakeWriter(f"{config.storage_uri}/lake/decisions", "app", Meters("d", "lake"))
    batch = [Record("t", 0, n, DAY, None, decision(f"tx-{n}")) for n in range(10)]
    assert writer.write(batch) == 10
    assert writer.write(batch) == 0
    assert writer.write([*batch, Record("t", 0, 10, DAY, None, decision("tx-10"))]) == 1
    assert set(ids(config).values()) == {1}


def test_an_id_is_one_row(make: Make) -> None:
    """Published twice, in one batch, later, or with another decision on another day: the first one stands, others are counted."""
    config = make(1)
    meters = Meters("d", "lake")
    writer = LakeWriter(f"{config.storage_uri}/lake/decisions", "app", meters)
    other, tomorrow = decision("a").replace(b"review", b"decline"), decision("b", DAY + 86_400_000)
    values = [decision("a"), decision("it's"), decision("a"), decision("b"), other]
    assert writer.write([Record("t", 0, at, DAY + at, None, value) for at, value in enumerate(values)]) == 3
    assert meters.refused._value.get() == 1
    values = [decision("b"), tomorrow, decision("it's"), decision("c")]
    assert (
        writer.write([Record("t", 0, 5 + at, DAY + 5 + at, None, value) for at, value in enumerate(values)])
        == 1
    )
    assert meters.refused._value.get() == 2
    rows = table(config).sort_by("offset").to_pylist()
    assert [(row["id"], row["offset"], row["action"]) for row in rows] == [
        ("a", 0, "review"),
        ("it's", 1, "review"),
        ("b", 3, "review"),
        ("c", 8, "review"),
    ]


def test_of_two_decisions_the_one_that_the_log_took_first_stands(make: Make) -> None:
    """In whatever order partitions are read: the lake says what the ledger says."""
    records = [
        Record("t", 0, 7, DAY + 1, None, decision("it's")),
        Record("t", 1, 3, DAY + 2, None, decision("it's", DAY - 86_400_000)),
    ]
    rows_by_order = []
    for order in (records, records[::-1]):
        config = make(1)
        writer = LakeWriter(f"{config.storage_uri}/lake/decisions", "app", Meters("d", "lake"))
        for record in order:
            writer.write([Record("t", 2, 0, DAY, None, decision("other"))])
            writer.write([record])
        rows_by_order.append(table(config).select(["id", "partition", "decided"]).sort_by("id").to_pylist())
        shutil.rmtree(Path(config.storage_uri.removeprefix("file://")) / "lake")
    assert rows_by_order[0] == rows_by_order[1]
    assert rows_by_order[0][0] == {"id": "it's", "partition": 0, "decided": DAY}
    assert len(rows_by_order[0]) == 2


def test_of_two_writers_at_one_offset_one_fails(make: Make) -> None:
    """A process that was thought dead can't append beside its successor."""
    config = make(1)
    uri = f"{config.storage_uri}/lake/decisions"
    zombie, successor = (LakeWriter(uri, "app", Meters("d", "lake")) for _ in range(2))
    batch = [Record("t", 0, n, DAY, None, decision(f"tx-{n}")) for n in range(10)]
    table = zombie._open()
    assert successor.write(batch) == 10
    zombie._open = lambda: table  # type: ignore[method-assign]  # as if its look at the table came before
    with pytest.raises(StoreError, match="Concurrent transaction"):
        zombie.write(batch)


def test_rows_hold_what_training_reads(make: Make) -> None:
    """Vector with nulls, entities, money and the whole record, in the partition of the day of the decision; a bad record is refused alone."""
    config = make(1)
    meters = Meters("d", "lake")
    writer = LakeWriter(f"{config.storage_uri}/lake/decisions", "app", meters)
    bad = decision("bad").replace(b"1250", b'"much"')
    values = [decision("one"), bad, b"{}", decision("two", decided=DAY + 86_400_000)]
    writer.write([Record("t", 0, at, DAY, None, value) for at, value in enumerate(values)])
    rows = {row["id"]: row for row in table(config).to_pylist()}
    assert set(rows) == {"one", "two"}
    assert rows["one"]["vector"] == [0.1, None, 3.0]
    assert rows["one"]["entities"] == [("customer", "t_one"), ("counterparty", None)]
    assert (rows["one"]["amount"], rows["one"]["degraded"]) == (1250, ["no_model"])
    assert orjson.loads(rows["one"]["record"]) == orjson.loads(decision("one"))
    assert [str(rows[event_id]["date"]) for event_id in ("one", "two")] == ["2025-11-24", "2025-11-25"]
    assert meters.refused._value.get() == 2


@pytest.mark.parametrize(
    "change",
    [
        *({"decided": at} for at in (1e20, 2**62, 253402300799000, -62135596800000)),
        {"event": {"id": None, "time": 1, "amount": 1, "entities": {}}},
        {"event": {"entities": []}},
        {"degraded": 1},
    ],
    ids=str,
)
def test_a_record_that_is_no_row_is_refused(make: Make, change: dict[str, object]) -> None:
    """Whatever stands in its place, the records beside it are written."""
    meters = Meters("d", "lake")
    config = make(1)
    writer = LakeWriter(f"{config.storage_uri}/lake/decisions", "app", meters)
    values = [decision("one"), orjson.dumps(orjson.loads(decision("bad")) | change), decision("two")]
    assert writer.write([Record("t", 0, at, DAY, None, value) for at, value in enumerate(values)]) == 2
    assert sorted(ids(config)) == ["one", "two"]
    assert meters.refused._value.get() == 1


def label(event_id: str, fraud: bool, known_at: int) -> bytes:
    entities = {"customer": f"t_{event_id}", "counterparty": None}
    return orjson.dumps(
        {"id": event_id, "time": DAY - 5, "entities": entities, "fraud": fraud, "source": "analyst"}
        | {"claimed": known_at - 1, "known": known_at}
    )


def test_a_label_published_twice_is_there_once(make: Make) -> None:
    """The ledger may publish a label again, in the same batch or later; a correction is a row of its own."""
    uri = f"{make(1).storage_uri}/lake/labels"
    writer = LakeWriter(uri, "app", Meters("d", "lake"), kind=LABELS)
    values = [label("a", True, DAY), label("b", True, DAY), label("a", True, DAY)]
    assert writer.write([Record("t", 0, at, DAY, None, value) for at, value in enumerate(values)]) == 2
    values = [label("b", True, DAY), label("a", False, DAY + 86_400_000), b"{}"]
    more = [Record("t", 0, 3 + at, DAY, None, value) for at, value in enumerate(values)]
    assert writer.write(more) == 1
    assert writer.write(more) == 0
    table_rows = DeltaTable(uri).to_pyarrow_table().to_pylist()
    labels = sorted((row["id"], row["fraud"], row["known"], row["offset"]) for row in table_rows)
    assert labels == [("a", False, DAY + 86_400_000, 4), ("a", True, DAY, 0), ("b", True, DAY, 1)]


def test_two_sinks_put_the_same_files_together_once(make: Make) -> None:
    """Both find the table in need of it; one does it, and no row is there twice."""
    config = make(1)
    topic, group = config.identity.topic("decisions"), config.identity.group("lake-sink")
    uri = lake.table(config.storage_uri, "decisions")
    one, other = (LakeWriter(uri, group, Meters("d", "lake")) for _ in range(2))
    for n in range(lake_sink.SMALL_FILES):
        one.write([Record(topic, 0, n, DAY + n, None, decision(f"tx-{n}", DAY + n))])
    other.start([Place(topic, 0)])
    for writer in (one, other):
        writer.tick()
    for n in range(lake_sink.SMALL_FILES, 2 * lake_sink.SMALL_FILES):
        one.write([Record(topic, 0, n, DAY + n, None, decision(f"tx-{n}", DAY + n))])
    # Within a claim's time nobody does it again; the stale view of the other one makes it none of its own.
    LakeWriter(uri, group, Meters("d", "lake")).tick()
    assert ids(config) == Counter({f"tx-{n}": 1 for n in range(2 * lake_sink.SMALL_FILES)})
    assert len(lake_manifest.read(config, "decisions")["files"]) == 1 + lake_sink.SMALL_FILES


def test_a_claim_of_the_same_moment_is_refused(make: Make) -> None:
    """Two sinks that looked before either wrote: the second claim is no commit."""
    config = make(1)
    topic, group = config.identity.topic("decisions"), config.identity.group("lake-sink")
    uri = lake.table(config.storage_uri, "decisions")
    LakeWriter(uri, group, Meters("d", "lake")).write([Record(topic, 0, 0, DAY, None, decision("tx", DAY))])
    writer = LakeWriter(uri, group, Meters("d", "lake"))
    one, other = DeltaTable(uri), DeltaTable(uri)
    assert writer._claims_upkeep(one)
    with pytest.raises(DeltaError):
        writer._claims_upkeep(other)


def test_small_files_become_few_and_the_snapshot_stays(make: Make, tmp_path: Path) -> None:
    """Upkeep changes neither rows nor where the sink goes on; the manifest's digest names the rows, whatever the files."""
    config = make(1)
    topic, group = config.identity.topic("decisions"), config.identity.group("lake-sink")
    writer = LakeWriter(lake.table(config.storage_uri, "decisions"), group, Meters("d", "lake"))
    for n in range(lake_sink.SMALL_FILES):
        writer.write([Record(topic, 0, n, DAY + n, None, decision(f"tx-{n}", DAY + n))])
    before, rows = lake_manifest.read(config, "decisions"), table(config).sort_by("offset")
    writer.tick()
    after = lake_manifest.read(config, "decisions")
    assert (len(before["files"]), len(after["files"])) == (lake_sink.SMALL_FILES, 1)
    assert before["digest"] == after["digest"]
    assert after["read_to"] == {f"{topic}/0": lake_sink.SMALL_FILES}
    assert table(config).sort_by("offset") == rows
    assert writer.start([Place(topic, 0)]) == {Place(topic, 0): lake_sink.SMALL_FILES}
    writer.write([Record(topic, 0, lake_sink.SMALL_FILES, DAY, None, decision("later"))])
    assert lake_manifest.read(config, "decisions")["digest"] != after["digest"]
    stored = table(config).sort_by("offset").to_pylist()
    snapshot = [row for row in stored if lake_snapshot.within(after["read_to"], row)]
    assert snapshot == rows.to_pylist()
    # As in tables of before ids were keyed.
    again = [{**row, "offset": row["offset"] + 100, "appended": row["appended"] + 1} for row in snapshot]
    assert lake_snapshot.standing_decisions([*again[:9], *snapshot, *again[9:]]) == snapshot


def test_a_table_of_an_older_version_gets_the_new_columns(make: Make) -> None:
    """Its rows have nulls there, and the sink goes on after them."""
    uri = f"{make(1).storage_uri}/lake/decisions"
    old = DECISIONS.schema.remove(DECISIONS.schema.get_field_index("appended"))
    first = Record("t", 0, 0, DAY, None, decision("old"))
    rows = pa.Table.from_pylist([DECISIONS.row(first)], old)
    commit = CommitProperties(app_transactions=[Transaction("app/t/0", 1)])
    write_deltalake(uri, rows, partition_by=["date"], commit_properties=commit)
    writer = LakeWriter(uri, "app", Meters("d", "lake"))
    assert writer.write([first, Record("t", 0, 1, DAY, None, decision("new"))]) == 1
    widened = DeltaTable(uri).to_pyarrow_table().sort_by("offset")
    assert widened.select(["id", "appended"]).to_pylist() == [
        {"id": "old", "appended": None},
        {"id": "new", "appended": DAY},
    ]


def test_killed_restarted_lost_and_rebuilt(broker: Broker, make: Make, tmp_path: Path) -> None:
    """As a process: kill -9 amid a backlog, --rebuild adds nothing to a whole table, and a lost table comes back."""
    config = make(2)
    count = 25_000
    want = Counter({f"tx-{n}": 1 for n in range(count)})
    broker.produce(
        config.identity.topic("decisions"), [(f"t_{n}", decision(f"tx-{n}")) for n in range(count)]
    )
    where = tmp_path / "lake" / "decisions"
    with sink("fraud_sinks.lake", config, tmp_path) as running:
        running.start()
        wait_for(lambda: list(where.glob("_delta_log/*1.json")), 60, "the first append")
        running.stop(signal.SIGKILL)
        running.start()
        running.await_ready()
        assert ids(config) == want
        running.stop()
        running.start("--rebuild")
        assert running.wait() == 0, running.tail()
        assert ids(config) == want
        shutil.rmtree(where)
        running.start()
        running.await_ready()
        assert running.stop() == 0
        assert ids(config) == want
