"""``python -m fraud_sinks.ledger``: decisions and label reports to PostgreSQL, joined labels back to Kafka.

Order of a batch: one transaction stores decisions, reports, labels and how far the topics were read; labels marked unpublished (the outbox) are
produced and awaited; they are marked published; then the loop commits the offsets. A crash anywhere repeats the rest of
that order: rows are written by key, and a label may be on its topic twice, which the feature engine ignores. A database
that lost everything lost its progress too, so the topics are read from the beginning.

A decision is never overwritten: another one of the same id goes to ``decision_conflicts`` and is counted. What can't be
stored at all goes to ``rejected`` as bytes: one bad record must neither stop the ledger nor vanish.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson
import psycopg
from confluent_kafka import KafkaException, Producer
from psycopg.rows import dict_row

from fraud_contracts.config import DetectorConfig
from fraud_contracts.errors import StoreError
from fraud_sinks import run
from fraud_sinks.database import Database, migrate
from fraud_sinks.ledger_records import DecisionRow, Report, UnfitError, decision, label, report, verdict
from fraud_sinks.loop import Reading
from fraud_sinks.meters import Meters
from fraud_sinks.records import Place, Record

log = logging.getLogger(__name__)

PUBLISH_ROWS: Final = 1_000
PUBLISH_SECONDS: Final = 15.0

_INSERT_DECISIONS: Final = """
INSERT INTO decisions (id, content, record, raw, entity, topic, partition, "offset")
SELECT * FROM unnest(%s::text[], %s::bytea[], %s::jsonb[], %s::bytea[], %s::text[], %s::text[], %s::int[], %s::bigint[])
ON CONFLICT (id) DO NOTHING
"""
_STORED: Final = "SELECT id, content, hash FROM decisions WHERE id = ANY(%s)"
_INSERT_CONFLICT: Final = """
INSERT INTO decision_conflicts (topic, partition, "offset", id, kind, record, raw)
VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""
_INSERT_REPORTS: Final = """
INSERT INTO label_reports (id, fraud, source, claimed, known, topic, partition, "offset")
SELECT * FROM unnest(%s::text[], %s::bool[], %s::text[], %s::bigint[], %s::bigint[], %s::text[], %s::int[], %s::bigint[])
ON CONFLICT DO NOTHING
"""
_JOIN: Final = """
UPDATE label_reports r SET joined = true FROM decisions d
WHERE r.id = ANY(%s) AND NOT r.joined AND d.id = r.id RETURNING r.id
"""
_REPORTS: Final = """
SELECT id, fraud, source, claimed, known, topic, partition, "offset" FROM label_reports WHERE id = ANY(%s)
"""
_UPSERT_LABELS: Final = """
INSERT INTO labels (id, fraud, source, claimed, known, time, entities)
SELECT n.id, n.fraud, n.source, n.claimed, n.known, d.time, d.entities
FROM unnest(%s::text[], %s::bool[], %s::text[], %s::bigint[], %s::bigint[]) AS n (id, fraud, source, claimed, known)
JOIN decisions d ON d.id = n.id
ON CONFLICT (id) DO UPDATE SET fraud = excluded.fraud, source = excluded.source, claimed = excluded.claimed,
    known = excluded.known, revision = labels.revision + 1, published = false
WHERE (labels.fraud, labels.source, labels.claimed, labels.known)
    IS DISTINCT FROM (excluded.fraud, excluded.source, excluded.claimed, excluded.known)
"""
_OUTBOX: Final = """
SELECT id, fraud, source, claimed, known, time, entities, revision FROM labels
WHERE NOT published ORDER BY known, id LIMIT %s
"""
_PUBLISHED: Final = """
UPDATE labels l SET published = true FROM unnest(%s::text[], %s::int[]) AS p (id, revision)
WHERE l.id = p.id AND l.revision = p.revision
"""
_REJECT: Final = """
INSERT INTO rejected (topic, partition, "offset", reason, payload) VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""
_ADVANCE: Final = """
INSERT INTO progress (topic, partition, following) VALUES (%s, %s, %s)
ON CONFLICT (topic, partition) DO UPDATE SET following = excluded.following
"""


class LabelProducer:
    """Sends labels and waits for the broker's word on each. Hashes keys as Java clients do, as Flink expects of a keyed topic."""

    def __init__(self, bootstrap: str, topic: str, counterparty: str) -> None:
        self._topic, self._counterparty = topic, counterparty
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "acks": "all",
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "delivery.timeout.ms": int(PUBLISH_SECONDS * 1000),
                "linger.ms": 2,
            }
        )

    def send(self, rows: Iterable[dict[str, Any]]) -> None:
        failed: list[str] = []

        def delivered(error: Any, _: Any) -> None:
            if error is not None:
                failed.append(str(error))

        try:
            for row in rows:
                key = row["entities"].get(self._counterparty) or row["id"]
                self._producer.produce(
                    self._topic, orjson.dumps(label(row)), key.encode(), on_delivery=delivered
                )
            waiting = self._producer.flush(PUBLISH_SECONDS + 5)
        except (KafkaException, BufferError) as error:
            raise StoreError("kafka", f"labels: {error}") from error
        if waiting or failed:
            raise StoreError("kafka", f"labels not published: {failed[:1] or waiting}")


class LedgerWriter:
    """``rebuild``: another process owns the progress; this one only writes rows again."""

    def __init__(
        self,
        database: Database,
        config: DetectorConfig,
        labels: LabelProducer,
        meters: Meters,
        rebuild: bool = False,
    ) -> None:
        self._database, self._labels, self._meters, self._rebuild = database, labels, meters, rebuild
        self._decisions = config.identity.topic("decisions")
        self._first_entity = config.spec.entities[0].name
        self._sources = frozenset(source.name for source in config.spec.labels.sources)

    def start(self, places: Sequence[Place]) -> Mapping[Place, int]:
        """As the database says. A crash may have left labels unpublished."""
        self._publish()
        with self._database.transaction() as cursor:
            cursor.execute("SELECT topic, partition, following FROM progress")
            known = {Place(topic, partition): following for topic, partition, following in cursor.fetchall()}
        return {place: known.get(place, 0) for place in places}

    def write(self, records: Sequence[Record]) -> int:
        written = self._store(records)
        self._publish()
        return written

    def caught_up(self, place: Place, following: int) -> None:
        """The ledger keeps no mark."""

    def tick(self) -> None:
        self._publish()

    def close(self) -> None:
        self._database.close()

    def _store(self, records: Sequence[Record]) -> int:
        """All records in one transaction. Where PostgreSQL refuses one, halves are tried until it is alone."""
        decisions: list[DecisionRow] = []
        reports: list[Report] = []
        rejected: list[tuple[Record, str]] = []
        for record in records:
            try:
                if record.topic == self._decisions:
                    decisions.append(decision(record, self._first_entity))
                else:
                    reports.append(report(record, self._sources))
            except UnfitError as error:
                rejected.append((record, str(error)))
        try:
            with self._database.transaction() as cursor:
                written = self._rows(cursor, decisions, reports)
                fresh = self._reject(cursor, rejected)
                self._advance(cursor, records)
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            if len(records) > 1:
                middle = len(records) // 2
                return self._store(records[:middle]) + self._store(records[middle:])
            reason = (error.diag.message_primary or type(error).__name__)[:500]
            with self._database.transaction() as cursor:
                written, fresh = 0, self._reject(cursor, [(records[0], reason)])
                self._advance(cursor, records)
        self._meters.refused.inc(fresh)
        return written

    def _rows(self, cursor: psycopg.Cursor[Any], decisions: list[DecisionRow], reports: list[Report]) -> int:
        written = 0
        ids = {row.id for row in decisions} | {one.id for one in reports}
        if decisions:
            columns = [
                (
                    d.id,
                    d.content,
                    d.record,
                    d.raw,
                    d.entity,
                    d.source.topic,
                    d.source.partition,
                    d.source.offset,
                )
                for d in decisions
            ]
            cursor.execute(_INSERT_DECISIONS, [list(column) for column in zip(*columns, strict=True)])
            written += cursor.rowcount
            if cursor.rowcount < len(decisions):
                self._conflicts(cursor, decisions)
        if reports:
            cursor.execute(_INSERT_REPORTS, [list(column) for column in zip(*reports, strict=True)])
            written += cursor.rowcount
        cursor.execute(_JOIN, (sorted(ids),))
        joined = sorted({row[0] for row in cursor.fetchall()})
        if joined:
            written += self._label(cursor, joined)
        return written

    def _conflicts(self, cursor: psycopg.Cursor[Any], decisions: list[DecisionRow]) -> None:
        cursor.execute(_STORED, ([row.id for row in decisions],))
        stored = {row[0]: (row[1], row[2]) for row in cursor.fetchall()}
        for row in decisions:
            content, body = stored[row.id]
            if bytes(content) == row.content:
                continue
            kind = "decision" if body == row.hash else "body"
            where = row.source
            cursor.execute(
                _INSERT_CONFLICT,
                (where.topic, where.partition, where.offset, row.id, kind, row.record, row.raw),
            )
            if cursor.rowcount:
                self._meters.conflict(row.door)
                log.warning(
                    "decision conflicts with the stored one",
                    extra={"data": {"kind": kind, "partition": where.partition, "offset": where.offset}},
                )

    @staticmethod
    def _label(cursor: psycopg.Cursor[Any], ids: list[str]) -> int:
        """Labels of these transactions, from all their reports."""
        cursor.execute(_REPORTS, (ids,))
        by_id: dict[str, list[Report]] = {}
        for row in cursor.fetchall():
            by_id.setdefault(row[0], []).append(Report(*row))
        standing = [verdict(reports) for reports in by_id.values()]
        columns = [(one.id, one.fraud, one.source, one.claimed, one.known) for one in standing]
        cursor.execute(_UPSERT_LABELS, [list(column) for column in zip(*columns, strict=True)])
        return int(cursor.rowcount)

    @staticmethod
    def _reject(cursor: psycopg.Cursor[Any], rejected: list[tuple[Record, str]]) -> int:
        fresh = 0
        for record, reason in rejected:
            where = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
            cursor.execute(_REJECT, (record.topic, record.partition, record.offset, reason, record.value))
            if cursor.rowcount:
                fresh += 1
                log.error("record rejected", extra={"data": {"reason": reason, **where}})
        return fresh

    def _advance(self, cursor: psycopg.Cursor[Any], records: Sequence[Record]) -> None:
        if not self._rebuild:
            following = {record.place: record.offset + 1 for record in records}
            cursor.executemany(_ADVANCE, [(*place, offset) for place, offset in sorted(following.items())])

    def _publish(self) -> None:
        """Empties the outbox. A label that changed meanwhile has another revision and stays in it."""
        while True:
            with self._database.transaction() as cursor:
                cursor.row_factory = dict_row
                rows = cursor.execute(_OUTBOX, (PUBLISH_ROWS,)).fetchall()
            if not rows:
                return
            self._labels.send(rows)
            with self._database.transaction() as cursor:
                cursor.execute(_PUBLISHED, ([row["id"] for row in rows], [row["revision"] for row in rows]))


def make(config: DetectorConfig, meters: Meters, rebuild: bool) -> tuple[LedgerWriter, Reading]:
    dsn, schema = os.environ["POSTGRES_DSN"], config.identity.database_schema
    migrate(dsn, schema)
    labels = LabelProducer(
        config.kafka.bootstrap_servers, config.identity.topic("labels"), config.spec.entities[-1].name
    )
    writer = LedgerWriter(Database(dsn, schema), config, labels, meters, rebuild)
    return writer, run.reading(config, "ledger", ("decisions", "label-reports"), batch=500, linger=0.02)


if __name__ == "__main__":
    sys.exit(run.main("ledger", make))
