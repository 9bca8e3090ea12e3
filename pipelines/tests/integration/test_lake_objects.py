"""The lake in an object store: each decision exactly once, though writers race and the store goes away."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from deltalake import DeltaTable

from fraud_contracts import lake
from fraud_contracts.config import DetectorConfig
from fraud_contracts.errors import StoreError
from fraud_sinks.lake import LakeWriter
from fraud_sinks.meters import Meters
from fraud_sinks.records import Record
from fraud_testing import objects
from fraud_testing.kafka import Broker, wait_for
from fraud_testing.ledger import DAY, decision
from fraud_testing.sinks import sink

pytestmark = pytest.mark.integration
Make = Callable[..., DetectorConfig]
AWAY_SECONDS = 20.0


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[objects.Server]:
    with objects.server_of_environment(monkeypatch) as running:
        yield running


def ids(store: objects.Server, uri: str) -> Counter[str]:
    table = DeltaTable(uri, storage_options=lake.storage_options(uri, store.environment))
    return Counter(table.to_pyarrow_table(columns=["id"])["id"].to_pylist())


def records(first: int, count: int, partition: int = 0) -> list[Record]:
    return [
        Record("t", partition, n, DAY, None, decision(f"tx-{partition}-{n}"))
        for n in range(first, first + count)
    ]


def test_writers_at_once_lose_nothing_of_each_other(store: objects.Server) -> None:
    """Two writers commit to one table at the same time: a commit never takes another's place, and none comes twice."""
    uri = lake.table(store.uri, "decisions")
    LakeWriter(uri, "app", Meters("d", "lake")).write(records(0, 1, 2))

    def write(partition: int) -> None:
        writer = LakeWriter(uri, "app", Meters("d", "lake"))
        for first in range(0, 100, 10):
            batch = records(first, 10, partition)
            while True:
                try:
                    writer.write(batch)
                    break
                except StoreError:  # as the loop does: the other writer was first, so once more
                    continue

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, (0, 1)))
    rows = ids(store, uri)
    assert len(rows) == 201 and set(rows.values()) == {1}


@pytest.mark.accept
def test_a_sink_waits_for_a_store_that_is_away(
    broker: Broker, make: Make, store: objects.Server, tmp_path: Path
) -> None:
    """The store is killed under the sink for twenty seconds: the process lives, and every decision is a row, once."""
    config = make(2).model_copy(update={"storage_uri": store.uri})
    topic, uri = config.identity.topic("decisions"), lake.table(store.uri, "decisions")

    def send(start: int) -> None:
        broker.produce(topic, [(f"t_{n}", decision(f"tx-{n}")) for n in range(start, start + 200)])

    with sink("fraud_sinks.lake", config, tmp_path, **store.environment) as running:
        send(0)
        running.start()
        running.await_ready()
        store.stop(signal.SIGKILL)
        send(200)
        wait_for(lambda: running.metric("fraud_sink_retries_total") > 0, 60, "the outage to be noticed")
        gone = time.monotonic()
        wait_for(lambda: time.monotonic() - gone > AWAY_SECONDS, 30, "the end of the outage")
        store.start()
        wait_for(lambda: len(ids(store, uri)) == 400, 90, "all decisions")
        assert running.process is not None and running.process.poll() is None
        assert running.stop() == 0
    assert set(ids(store, uri).values()) == {1}
