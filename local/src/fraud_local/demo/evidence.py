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
from confluent_kafka import Consumer, KafkaError, TopicPartition
from deltalake import DeltaTable

from fraud_contracts import lake
from fraud_contracts.config import DetectorConfig
from fraud_process.kafka import KafkaAccess

Say = Callable[..., None]


class TopicReader:
    """Reads a topic as a committed reader would, from its first record; a later call goes on where the last one ended."""

    def __init__(self, config: DetectorConfig, noun: str) -> None:
        # Partitions whose end has not been seen yet. librdkafka tells of an end once, not at each call.
        self._open = set(range(config.kafka.partitions))
        self._consumer = Consumer(
            {
                **KafkaAccess.of(config.kafka).settings(),
                "group.id": config.identity.group("demo-evidence"),
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
            }
        )
        topic = config.identity.topic(noun)
        self._consumer.assign([TopicPartition(topic, p, 0) for p in self._open])

    def rows(self) -> Iterator[tuple[int, int, bytes | None, bytes | None, int]]:
        """(partition, offset, key, value, append time) of what was committed since the last call."""
        while (messages := self._consumer.consume(5000, timeout=1.0)) or self._open:
            for message in messages:
                error = message.error()
                if error is None:
                    stamp = message.timestamp()[1]
                    yield message.partition(), message.offset(), message.key(), message.value(), stamp
                elif error.code() == KafkaError._PARTITION_EOF:
                    self._open.discard(message.partition())

    def close(self) -> None:
        self._consumer.close()


def read_topic(
    config: DetectorConfig, noun: str
) -> Iterator[tuple[int, int, bytes | None, bytes | None, int]]:
    """(partition, offset, key, value, append time) of every committed record of a topic."""
    reader = TopicReader(config, noun)
    try:
        yield from reader.rows()
    finally:
        reader.close()


def placed_rows(config: DetectorConfig, noun: str) -> Iterator[dict[str, Any]]:
    """Records of a topic with their place in it, which the audit needs: which of two emissions was the first.

    Without the decision that a feature record may carry: it is in ``decisions``.
    """
    for partition, offset, _, value, stamp in read_topic(config, noun):
        if value:
            yield {**json.loads(value), "decision": None, "at": [stamp, partition, offset]}


class TopicCounter:
    """Ids, or records where they have none, that have reached a topic so far."""

    def __init__(self, config: DetectorConfig, noun: str) -> None:
        self._reader = TopicReader(config, noun)
        self.ids: set[str] = set()
        self.records = 0

    def refresh(self) -> None:
        for _, _, _, value, _ in self._reader.rows():
            self.records += 1
            event_id = json.loads(value)["id"] if value else None
            if event_id is not None:
                self.ids.add(event_id)

    def close(self) -> None:
        self._reader.close()


def ledger_rows(config: DetectorConfig) -> Iterator[dict[str, Any]]:
    """Every row of the ledger's decisions, as the record that it holds."""
    schema = config.identity.database_schema
    # A cursor of the server's: the whole table may not fit here.
    with psycopg.connect(os.environ["POSTGRES_DSN"]) as connection, connection.cursor("evidence") as cursor:
        cursor.itersize = 2_000
        for (record,) in cursor.execute(f'SELECT record FROM "{schema}".decisions'):  # noqa: S608 - our own name
            yield record


def ledger_count(config: DetectorConfig) -> int:
    schema = config.identity.database_schema
    with psycopg.connect(os.environ["POSTGRES_DSN"]) as connection:
        row = connection.execute(f'SELECT count(*) FROM "{schema}".decisions').fetchone()  # noqa: S608
        return int(row[0]) if row else 0


def ledger_labels(config: DetectorConfig) -> Iterator[dict[str, Any]]:
    """The label that stands for each transaction."""
    schema = config.identity.database_schema
    with psycopg.connect(os.environ["POSTGRES_DSN"]) as connection:
        for row in connection.execute(f'SELECT id, fraud, source FROM "{schema}".labels'):  # noqa: S608
            yield dict(zip(("id", "fraud", "source"), row, strict=True))


def lake_table(config: DetectorConfig) -> DeltaTable:
    uri = lake.table(config.storage_uri, lake.DECISIONS)
    return DeltaTable(uri, storage_options=lake.storage_options(uri, os.environ))


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
    reported: set[str],
    settle_seconds: float,
    say: Say,
) -> None:
    """Waits for the last record's final state in each store, then dumps every store."""
    deadline = time.monotonic() + settle_seconds
    decisions, letters = TopicCounter(config, "decisions"), TopicCounter(config, "dead-letters")

    def decided() -> int:
        decisions.refresh()
        return len(expected & decisions.ids)

    def buried() -> int:
        letters.refresh()
        return letters.records

    _settled("decisions", decided, len(expected), deadline, say)
    _settled("dead letters", buried, malformed_stream, deadline, say)
    for counter in (decisions, letters):
        counter.close()
    _settled("ledger", lambda: ledger_count(config), len(decisions.ids), deadline, say)
    _settled("lake", lambda: lake_count(config), len(decisions.ids), deadline, say)

    def labelled() -> int:
        return len(reported & {row["id"] for row in ledger_labels(config) if row["fraud"]})

    _settled("labels", labelled, len(reported), deadline, say)
    (out / "reported.json").write_text(json.dumps(sorted(reported)))
    say(
        event="dumped", what="ledger labels", rows=dump(out / "ledger_labels.jsonl.gz", ledger_labels(config))
    )
    for name, noun in (("decisions", "decisions"), ("dead_letters", "dead-letters")):
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
