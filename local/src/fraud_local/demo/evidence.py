"""Collects what the platform holds about the demo's traffic: topics, ledger, lake, seeds, as one JSON object a line.

Topics are read as a committed reader would (``read_committed``), from their first record to the end seen at the start.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
from confluent_kafka import Consumer, TopicPartition
from deltalake import DeltaTable

from fraud_contracts.config import DetectorConfig

Say = Callable[..., None]


def read_topic(
    config: DetectorConfig, noun: str
) -> Iterator[tuple[int, int, bytes | None, bytes | None, int]]:
    """(partition, offset, key, value, append time) of every committed record of a topic."""
    topic = config.identity.topic(noun)
    consumer = Consumer(
        {
            "bootstrap.servers": config.kafka.bootstrap_servers,
            "group.id": config.identity.group("demo-evidence"),
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        }
    )
    try:
        partitions = [TopicPartition(topic, p, 0) for p in range(config.kafka.partitions)]
        consumer.assign(partitions)
        open_partitions = set(range(config.kafka.partitions))
        while open_partitions:
            for message in consumer.consume(5000, timeout=1.0):
                if message.error():
                    open_partitions.discard(message.partition())
                    continue
                stamp = message.timestamp()[1]
                yield message.partition(), message.offset(), message.key(), message.value(), stamp
    finally:
        consumer.close()


def placed_rows(config: DetectorConfig, noun: str) -> Iterator[dict[str, Any]]:
    """Records of a topic with their place in it, which the audit needs: which of two emissions was the first.

    Without the decision that a feature record may carry: it is in ``decisions``.
    """
    for partition, offset, _, value, stamp in read_topic(config, noun):
        if value:
            yield {**json.loads(value), "decision": None, "at": [stamp, partition, offset]}


def ids_of(config: DetectorConfig, noun: str) -> set[str]:
    return {json.loads(value)["id"] for _, _, _, value, _ in read_topic(config, noun) if value}


def ledger_rows(config: DetectorConfig) -> Iterator[dict[str, Any]]:
    """Every row of the ledger's decisions, as the record that it holds."""
    schema = config.identity.database_schema
    with psycopg.connect(os.environ["POSTGRES_DSN"]) as connection:
        for (record,) in connection.execute(f'SELECT record FROM "{schema}".decisions'):  # noqa: S608 - our own name
            yield record


def ledger_count(config: DetectorConfig) -> int:
    schema = config.identity.database_schema
    with psycopg.connect(os.environ["POSTGRES_DSN"]) as connection:
        row = connection.execute(f'SELECT count(*) FROM "{schema}".decisions').fetchone()  # noqa: S608
        return int(row[0]) if row else 0


def lake_table(config: DetectorConfig) -> DeltaTable:
    return DeltaTable(config.storage_uri.rstrip("/") + "/lake/decisions")


def lake_rows(config: DetectorConfig) -> Iterator[dict[str, Any]]:
    """Every row of the lake; a row's ``record`` column holds the decision's JSON."""
    for batch in lake_table(config).to_pyarrow_dataset().to_batches():
        for row in batch.to_pylist():
            record = row.get("record")
            yield json.loads(record) if isinstance(record, str | bytes) else row


def lake_count(config: DetectorConfig) -> int:
    return int(lake_table(config).to_pyarrow_dataset().count_rows())


def dump(path: Path, rows: Iterator[dict[str, Any]]) -> int:
    count = 0
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=3) as stream:
        for row in rows:
            stream.write(json.dumps(row, default=str) + "\n")
            count += 1
    return count


def _settled(what: str, reach: Callable[[], int], wanted: int, deadline: float, say: Say) -> None:
    """Polls until ``reach`` gives ``wanted``; gives up at the deadline, and the summary shows what is lacking."""
    last = -1
    while True:
        try:
            have = reach()
        except Exception as error:  # a store that isn't there yet is a state to wait through, and is shown
            have = -1
            say(event="waiting", what=f"{what}: {type(error).__name__}: {error}"[:300])
        if have != last:
            say(event="settling", what=what, have=have, wanted=wanted)
            last = have
        if have >= wanted or time.monotonic() > deadline:
            return
        time.sleep(1)


def collect(
    config: DetectorConfig,
    out: Path,
    expected: set[str],
    malformed_stream: int,
    settle_seconds: float,
    say: Say,
) -> None:
    """Waits for the last record's final state in each store, then dumps every store."""
    deadline = time.monotonic() + settle_seconds
    _settled("decisions", lambda: len(expected & ids_of(config, "decisions")), len(expected), deadline, say)
    decided = len(ids_of(config, "decisions"))
    _settled(
        "dead letters",
        lambda: sum(1 for _ in read_topic(config, "dead-letters")),
        malformed_stream,
        deadline,
        say,
    )
    _settled("ledger", lambda: ledger_count(config), decided, deadline, say)
    _settled("lake", lambda: lake_count(config), decided, deadline, say)
    topics = {"decisions": "decisions", "dead_letters": "dead-letters"}
    for name, noun in topics.items():
        rows = (json.loads(value) for _, _, _, value, _ in read_topic(config, noun) if value)
        say(event="dumped", what=name, rows=dump(out / f"{name}.jsonl.gz", rows))
    for noun in ("features", "labels"):
        say(event="dumped", what=noun, rows=dump(out / f"{noun}.jsonl.gz", placed_rows(config, noun)))
    say(event="dumped", what="ledger", rows=dump(out / "ledger.jsonl.gz", ledger_rows(config)))
    say(event="dumped", what="lake", rows=dump(out / "lake.jsonl.gz", lake_rows(config)))
    seeds = (
        {"key": key.decode(), "profile": base64.b64encode(value).decode()}
        for _, _, key, value, _ in read_topic(config, "seeds")
        if key and value
    )
    say(event="dumped", what="seeds", rows=dump(out / "seeds.jsonl.gz", seeds))
    (out / "detector.json").write_text(config.to_json())
