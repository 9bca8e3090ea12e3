"""What an item takes in the real store, beside the constants of ``item_sizes``: within 30 %, else the constant is to be changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest

from fraud_contracts.item_sizes import CLAIM_SECONDS, CLAIM_WHOLE_SECONDS, FEATURES, ItemSizes
from fraud_contracts.sizing import Load, profile_bytes
from fraud_pipelines.features import compile_detector
from fraud_process.kafka import KafkaAccess
from fraud_process.store_address import StoreAddress
from fraud_serving import claims
from fraud_serving.decision import profile_reader
from fraud_sinks.database import Database, migrate
from fraud_sinks.lake import LakeWriter
from fraud_sinks.lake_tables import DECISIONS, LABELS
from fraud_sinks.ledger import LabelProducer, LedgerWriter
from fraud_sinks.meters import Meters
from fraud_sinks.records import Place, Record
from fraud_testing import kafka, postgres
from fraud_testing.required import require
from fraud_testing.scored import START, Scored, ScoredPayments, example

pytestmark = pytest.mark.integration
ITEMS = ItemSizes()
CONFIG = example()
OF = CONFIG.identity
ROWS = 2_000
DAY_MS = 86_400_000
NOW = 1_790_000_000_000


@pytest.fixture(scope="module")
def payments() -> ScoredPayments:
    return ScoredPayments(CONFIG)


@pytest.fixture(scope="module")
def scored(payments: ScoredPayments) -> list[Scored]:
    return list(payments.make(ROWS))


@pytest.fixture(scope="module")
def broker() -> Iterator[kafka.Broker]:
    require(kafka.missing())
    with kafka.broker() as running:
        yield running


def fits(constant: float, measured: float) -> None:
    assert constant == pytest.approx(measured, rel=0.3), f"the store uses {measured:,.1f}"


def mean(sizes: list[int]) -> float:
    return sum(sizes) / len(sizes)


def published(one: Scored, offset: int) -> Record:
    value = orjson.dumps(one.decision)
    return Record(OF.topic("decisions"), 0, offset, one.event["time"], one.customer.encode(), value)


def label_of(one: Scored) -> dict[str, Any]:
    event, known = one.event, one.event["time"] + DAY_MS
    return {
        "id": event["id"],
        "time": event["time"],
        "entities": event["entities"],
        "fraud": True,
        "source": "chargeback",
        "claimed": known,
        "known": known,
    }


def report_of(one: Scored) -> bytes:
    return orjson.dumps({"id": one.event["id"], "label": "fraud", "source": "chargeback"})


def per_item(store: Any, count: int, fill: Callable[[], None]) -> float:
    """Growth of Redis' memory by an item, of which ``fill`` writes ``count``."""
    before = store.info("memory")["used_memory"]
    fill()
    return float(store.info("memory")["used_memory"] - before) / count


def test_the_records_have_as_many_features_as_the_constants_assume() -> None:
    """The constants are of the preset's vector."""
    assert len(compile_detector(CONFIG.spec).names) == FEATURES


def test_a_claim_lives_as_long_as_is_assumed() -> None:
    """And so does a pending event."""
    assert claims.TTL_SECONDS == CLAIM_SECONDS
    assert claims.RETRY_WINDOW_SECONDS == CLAIM_WHOLE_SECONDS
    assert profile_reader.PENDING_SECONDS == 600


def claimed(scored: list[Scored], store: Any) -> None:
    attempts = [
        claims.ClaimAttempt(
            OF.redis_claim(one.event["id"]), claims.pack(one.decision, appended=True, published=True)
        )
        for one in scored
    ]
    store.execute_command(*claims.take(attempts, OF.redis_due, NOW))


def test_a_claim_in_redis(scored: list[Scored], store: Any) -> None:
    """With the decision in it, and its entry among those that are to be shrunk."""
    fits(ITEMS.claim_whole, per_item(store, ROWS, lambda: claimed(scored, store)))


def test_a_small_claim_in_redis(scored: list[Scored], store: Any) -> None:
    """After its retry window."""

    def fill() -> None:
        claimed(scored, store)
        over = NOW + claims.RETRY_WINDOW_SECONDS * 1000 + 1
        assert store.execute_command(*claims.shrink(OF.redis_due, over, ROWS)) == ROWS

    fits(ITEMS.claim_small, per_item(store, ROWS, fill))


def test_a_pending_event_in_redis(scored: list[Scored], store: Any) -> None:
    """A sorted set of one event for each key, as the inline door leaves it."""

    def fill() -> None:
        for one in scored:
            name = OF.redis_pending(f"723f70:customer:{one.event['id']}")
            store.zadd(name, {orjson.dumps(one.event): one.event["time"]}, nx=True)
            store.expire(name, profile_reader.PENDING_SECONDS)

    fits(ITEMS.pending, per_item(store, ROWS, fill))


def test_a_profile_in_redis_beside_its_bytes(
    scored: list[Scored], payments: ScoredPayments, store: Any
) -> None:
    """Key, entry and what the allocator rounds up."""
    states = payments.states

    def fill() -> None:
        for key, state in states.items():
            store.set(OF.redis_profile(key), state)

    value = mean([len(state) for state in states.values()])
    fits(ITEMS.redis_key + value, per_item(store, len(states), fill))


@pytest.mark.parametrize("events", [3, 15, 60, 120, 250, 1_000])
def test_a_profile_by_the_events_in_its_window(events: int) -> None:
    """A customer's, its events spread evenly over the longest window; the counterparty's is no larger."""
    features = compile_detector(CONFIG.spec)
    stage = features.stages[0]
    state = None
    for at in range(events):
        event: Any = {
            "id": f"e{at}",
            "time": START + at * 30 * DAY_MS // events,
            "amount": 1_250 + at,
            "currency": "USD",
            "entities": {"customer": "t_0a115c6efb9fa11dee201abe6627d7d7", "counterparty": None},
            "fields": {"category": "travel", "channel": "pos"},
        }
        state = features.observe({stage.entity: state}, event, 1)[1][stage.entity]
    assert state is not None
    load = Load(rate=events / 37 / 86_400, keys=(1,))
    fits(profile_bytes(load, 1, ITEMS), len(state))


def test_the_values_of_records(scored: list[Scored]) -> None:
    """As JSON: what a client sends, the event, the feature record, the decision, a label and its report."""
    vector = FEATURES * ITEMS.vector
    decision = mean([len(orjson.dumps(one.decision)) for one in scored])
    fits(ITEMS.transaction, mean([len(one.raw) for one in scored]))
    fits(ITEMS.event, mean([len(orjson.dumps(one.event)) for one in scored]))
    fits(vector, mean([len(orjson.dumps(one.decision["vector"])) for one in scored]))
    fits(ITEMS.decision + vector, decision)
    fits(ITEMS.feature_record + vector, mean([len(orjson.dumps(one.record)) for one in scored]))
    fits(ITEMS.label, mean([len(orjson.dumps(label_of(one))) for one in scored]))
    fits(ITEMS.label_report, mean([len(report_of(one)) for one in scored]))


def send(broker: kafka.Broker, topic: str, batches: Iterable[Sequence[Scored]]) -> None:
    """Each as a batch of its own."""
    producer = broker.producer(linger_ms=50)
    for batch in batches:
        for one in batch:
            producer.produce(topic, orjson.dumps(one.decision), one.customer.encode())
        producer.flush(30)


def on_disk(broker: kafka.Broker, topic: str) -> int:
    return sum(path.stat().st_size for path in broker.folder.rglob(f"{topic}-0/*.log"))


def test_a_record_in_a_topic_beside_its_value(broker: kafka.Broker, scored: list[Scored]) -> None:
    """Each in a batch of its own, as at the inline door."""
    topic, some = OF.topic("decisions"), scored[:200]
    broker.create([topic])
    send(broker, topic, ([one] for one in some))
    value = mean([len(orjson.dumps(one.decision)) for one in some])
    fits(ITEMS.record, on_disk(broker, topic) / len(some) - value)


def test_what_compression_leaves(broker: kafka.Broker, scored: list[Scored]) -> None:
    """Of decisions, each in a batch of its own, by lz4."""
    some = [[one] for one in scored[:200]]
    sizes = []
    for codec in ("uncompressed", "lz4"):
        topic = f"tests.{codec}"
        broker.create([topic], config={"compression.type": codec})
        send(broker, topic, some)
        sizes.append(on_disk(broker, topic))
    fits(ITEMS.compression, sizes[1] / sizes[0])


def test_rows_of_the_ledger(broker: kafka.Broker, scored: list[Scored]) -> None:
    """Tables with their indexes; each decision has a label and its report."""
    require(postgres.missing())
    broker.create([OF.topic("labels")])
    schema = OF.database_schema
    with postgres.server() as database:
        migrate(database.dsn, schema)
        labels = LabelProducer(KafkaAccess(broker.bootstrap), OF.topic("labels"), "counterparty")
        writer = LedgerWriter(Database(StoreAddress(database.dsn), schema), CONFIG, labels, Meters("d", "l"))
        records = [published(one, at) for at, one in enumerate(scored)]
        reports = [
            Record(OF.topic("label-reports"), 0, at, one.event["time"] + DAY_MS, None, report_of(one))
            for at, one in enumerate(scored)
        ]
        writer.start([records[0].place, reports[0].place])
        for at in range(0, ROWS, 500):
            writer.write(records[at : at + 500])
            writer.write(reports[at : at + 500])
        writer.close()
        with psycopg.connect(database.dsn, autocommit=True) as connection:

            def size(*tables: str) -> float:
                total = 0
                for table in tables:
                    connection.execute(f"VACUUM FULL {schema}.{table}".encode())
                    query = "SELECT pg_total_relation_size(%s::regclass)"
                    row = connection.execute(query, (f"{schema}.{table}",)).fetchone()
                    total += int(row[0]) if row else 0
                return total / ROWS

            fits(ITEMS.ledger_decision, size("decisions"))
            fits(ITEMS.ledger_label, size("labels", "label_reports"))


def test_rows_of_the_lake(scored: list[Scored], tmp_path: Path) -> None:
    """Files of many rows, as they are once they are put together; decisions of one day."""
    day = [
        Record(*published(one, at)[:5], orjson.dumps({**one.decision, "decided": START + at}))
        for at, one in enumerate(scored)
    ]
    labels = [
        Record(OF.topic("labels"), 0, at, START, None, orjson.dumps({**label_of(one), "known": START + at}))
        for at, one in enumerate(scored)
    ]
    for kind, records, constant in (
        (DECISIONS, day, ITEMS.lake_decision),
        (LABELS, labels, ITEMS.lake_label),
    ):
        folder = tmp_path / kind.name
        writer = LakeWriter(str(folder), "sizes", Meters("d", "lake"), kind=kind)
        writer.start([Place(records[0].topic, 0)])
        writer.write(records)
        fits(constant, sum(path.stat().st_size for path in folder.rglob("*.parquet")) / ROWS)
