"""``python -m fraud_sinks.ledger``: decisions and label reports to PostgreSQL, joined labels back to Kafka.

Order of a batch: one transaction stores decisions, reports, labels and how far the topics were read; labels marked
unpublished (the outbox) are produced and awaited; they are marked published; then the loop commits the offsets. After a
crash the rest of that order is done again: rows are written by key, and a label may be on its topic twice, which the feature
engine ignores. A database that lost everything lost its progress too, so the topics are read from the beginning.

Of several decisions of one id the one stands that the log took first; the others go to ``decision_conflicts`` and are
counted. What can't be stored at all goes to ``rejected``, a decision as bytes: one bad record must neither stop the ledger
nor vanish. Every row follows from the topics alone, so a ledger that is rebuilt from them is the same, row by row.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import psycopg
from psycopg.rows import dict_row

from fraud_contracts.config import POSTGRES_DSN, DetectorConfig
from fraud_contracts.label_report import source_kinds
from fraud_process.kafka import KafkaAccess
from fraud_process.postgres import address_of
from fraud_process.store_address import store_address
from fraud_sinks import run
from fraud_sinks.database import RECORD_ERRORS, Database, migrate
from fraud_sinks.ledger_conflicts import DecisionEntry, settle
from fraud_sinks.ledger_labels import LabelProducer
from fraud_sinks.ledger_records import (
    DecisionRow,
    UnfitError,
    decision,
    readable,
    report,
)
from fraud_sinks.ledger_reports import ReportEntry, standing_report
from fraud_sinks.loop import Reading
from fraud_sinks.meters import Meters
from fraud_sinks.records import Place, Record, StoreLostError

log = logging.getLogger(__name__)

PUBLISH_ROWS: Final = 1_000

_INSERT_DECISIONS: Final = """
INSERT INTO decisions (id, content, record, raw, entity, topic, lineage, partition, "offset", written)
SELECT id, content, record, raw, entity, topic, lineage, partition, "offset", to_timestamp(written / 1000.0)
FROM unnest(%s::text[], %s::bytea[], %s::jsonb[], %s::bytea[], %s::text[], %s::text[], %s::int[], %s::int[], %s::bigint[],
    %s::bigint[]) AS n (id, content, record, raw, entity, topic, lineage, partition, "offset", written)
ON CONFLICT (id) DO NOTHING
"""
_PLACES: Final = 'SELECT id, content, topic, lineage, partition, "offset" FROM decisions WHERE id = ANY(%s)'
_ENTRIES: Final = """
SELECT content, hash, (extract(epoch FROM written) * 1000)::bigint, topic, lineage, partition, "offset", record::text, raw,
    entity
FROM decisions WHERE id = %s
UNION ALL
SELECT content, record ->> 'hash', (extract(epoch FROM written) * 1000)::bigint, topic, lineage, partition, "offset",
    record::text, raw, NULL
FROM decision_conflicts WHERE id = %s
"""
_REPLACE: Final = """
UPDATE decisions SET content = %s, record = %s, raw = %s, entity = %s, topic = %s, lineage = %s, partition = %s,
    "offset" = %s, written = to_timestamp(%s / 1000.0)
WHERE id = %s
"""
_RELABEL: Final = """
UPDATE labels l SET time = d.time, entities = d.entities, published = false FROM decisions d
WHERE l.id = %s AND d.id = l.id AND (l.time, l.entities) IS DISTINCT FROM (d.time, d.entities)
"""
_FORGET_CONFLICTS: Final = "DELETE FROM decision_conflicts WHERE id = %s"
_INSERT_CONFLICT: Final = """
INSERT INTO decision_conflicts (topic, lineage, partition, "offset", id, kind, record, raw, content, written)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, to_timestamp(%s / 1000.0))
"""
_INSERT_REPORTS: Final = """
INSERT INTO label_reports (id, fraud, source, claimed, known, topic, lineage, partition, "offset")
SELECT * FROM unnest(%s::text[], %s::bool[], %s::text[], %s::bigint[], %s::bigint[], %s::text[], %s::int[], %s::int[],
    %s::bigint[])
ON CONFLICT DO NOTHING
"""
_JOIN: Final = """
UPDATE label_reports r SET joined = true FROM decisions d
WHERE r.id = ANY(%s) AND NOT r.joined AND d.id = r.id RETURNING r.id
"""
_REPORTS: Final = """
SELECT id, fraud, source, claimed, known, topic, lineage, partition, "offset" FROM label_reports WHERE id = ANY(%s)
"""
_UPSERT_LABELS: Final = """
INSERT INTO labels (id, fraud, source, claimed, known, revision, time, entities)
SELECT n.id, n.fraud, n.source, n.claimed, n.known, n.revision, d.time, d.entities
FROM unnest(%s::text[], %s::bool[], %s::text[], %s::bigint[], %s::bigint[], %s::int[])
    AS n (id, fraud, source, claimed, known, revision)
JOIN decisions d ON d.id = n.id
ON CONFLICT (id) DO UPDATE SET fraud = excluded.fraud, source = excluded.source, claimed = excluded.claimed,
    known = excluded.known, revision = excluded.revision,
    published = labels.published AND (labels.fraud, labels.source, labels.claimed, labels.known)
        IS NOT DISTINCT FROM (excluded.fraud, excluded.source, excluded.claimed, excluded.known)
WHERE labels.revision <> excluded.revision
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
INSERT INTO rejected (topic, lineage, partition, "offset", reason, payload, written)
VALUES (%s, %s, %s, %s, %s, %s, to_timestamp(%s / 1000.0)) ON CONFLICT DO NOTHING
"""
_TOPICS: Final = "SELECT topic_id, lineage FROM topics WHERE topic = %s"
_NEW_TOPIC: Final = "INSERT INTO topics (topic, topic_id, lineage) VALUES (%s, %s, %s)"
_PROGRESS: Final = "SELECT topic, lineage, partition, following FROM progress"
_ADVANCE: Final = """
INSERT INTO progress (topic, lineage, partition, following) VALUES (%s, %s, %s, %s)
ON CONFLICT (topic, lineage, partition) DO UPDATE SET following = excluded.following
"""


class Spot(NamedTuple):
    """A place as the ledger keeps it: ``lineage`` counts the topics of one name, see the migration to version 3."""

    topic: str
    lineage: int
    partition: int


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
        self._kinds = source_kinds(config.spec.labels)
        # What this process has committed. A database that has less was put back to an earlier state.
        self._following: dict[Spot, int] = {}
        self._lineages: dict[tuple[str, str], int] = {}
        # A database that is written from the beginning doesn't know which labels were published. None is until it has caught
        # up: it would publish every former label again. Then only those go out that the topic lacks.
        self._filling: set[Place] = set()
        # A row in ``progress`` which says that the labels from before the database was filled are published.
        self._filled = Spot(config.identity.topic("labels"), 0, -1)

    def start(self, places: Sequence[Place]) -> Mapping[Place, int]:
        """Begins where the database's progress says, and publishes labels that a crash left unpublished."""
        with self._database.transaction() as cursor:
            for topic, topic_id in sorted({(place.topic, place.topic_id) for place in places}):
                self._lineages[topic, topic_id] = self._lineage(cursor, topic, topic_id)
            progress = self._progress(cursor)
        if not self._rebuild:
            self._following = {spot: progress[spot] for spot in map(self._spot, places) if spot in progress}
        self._filling = set(places) if self._rebuild or self._filled not in progress else set()
        self._publish()
        return {place: progress.get(self._spot(place), 0) for place in places}

    def write(self, records: Sequence[Record]) -> int:
        written = self._store(records)
        self._publish()
        return written

    def caught_up(self, place: Place, following: int) -> None:
        """The ledger keeps no mark. One that was filled anew publishes the labels that the topic lacks."""
        if self._filling == {place}:
            published, unreadable = self._labels.last()
            self._meters.refused.inc(unreadable)
            self._send(published)
            if not self._rebuild:
                with self._database.transaction() as cursor:
                    cursor.execute(_ADVANCE, (*self._filled, 0))
        self._filling.discard(place)

    def tick(self) -> None:
        with self._database.transaction() as cursor:
            self._check(cursor)
        self._publish()

    def close(self) -> None:
        self._database.close()

    def _store(self, records: Sequence[Record]) -> int:
        """All records in one transaction. Where PostgreSQL refuses one, halves are tried until it is alone."""
        decisions: list[DecisionRow] = []
        reports: list[ReportEntry] = []
        rejected: list[tuple[Record, str]] = []
        for record in records:
            try:
                if record.topic == self._decisions:
                    decisions.append(decision(record, self._first_entity, self._spot(record.place).lineage))
                else:
                    reports.append(report(record, self._kinds, self._spot(record.place).lineage))
            except UnfitError as error:
                rejected.append((record, str(error)))
        try:
            with self._database.transaction() as cursor:
                self._check(cursor)
                written = self._rows(cursor, decisions, reports)
                fresh = self._reject(cursor, rejected)
                self._advance(cursor, records)
        except RECORD_ERRORS as error:
            if len(records) > 1:
                middle = len(records) // 2
                return self._store(records[:middle]) + self._store(records[middle:])
            reason = (error.diag.message_primary or type(error).__name__)[:500]
            with self._database.transaction() as cursor:
                written, fresh = 0, self._reject(cursor, [(records[0], reason)])
                self._advance(cursor, records)
        self._meters.refused.inc(fresh)
        if not self._rebuild:
            self._following |= {self._spot(record.place): record.offset + 1 for record in records}
        return written

    def _lineage(self, cursor: psycopg.Cursor[Any], topic: str, topic_id: str) -> int:
        """The topic's number among the topics of its name, added where it is new. Without an id it counts as the newest."""
        lineages: dict[str, int] = dict(cursor.execute(_TOPICS, (topic,)).fetchall())
        newest = max(lineages.values(), default=-1)
        if topic_id in lineages or not topic_id:
            return lineages.get(topic_id, max(newest, 0))
        cursor.execute(_NEW_TOPIC, (topic, topic_id, newest + 1))
        if lineages:
            self._meters.reread("the topic was made anew", {"topic": topic, "topic_id": topic_id})
        return newest + 1

    def _spot(self, place: Place) -> Spot:
        lineage = self._lineages.get((place.topic, place.topic_id), 0)
        return Spot(place.topic, lineage, place.partition)

    @staticmethod
    def _progress(cursor: psycopg.Cursor[Any]) -> dict[Spot, int]:
        cursor.execute(_PROGRESS)
        return {Spot(*spot): following for *spot, following in cursor.fetchall()}

    def _check(self, cursor: psycopg.Cursor[Any]) -> None:
        """StoreLostError where the database has less than this process committed: a restored backup, or a replica promoted
        without the last transactions. What is missing must be read again."""
        progress = self._progress(cursor)
        if any(progress.get(spot, 0) < following for spot, following in self._following.items()):
            raise StoreLostError("postgres", "the database was put back to an earlier state")

    def _rows(
        self, cursor: psycopg.Cursor[Any], decisions: list[DecisionRow], reports: list[ReportEntry]
    ) -> int:
        written = 0
        ids = {row.id for row in decisions} | {one.id for one in reports}
        if decisions:
            # The oldest first: of several of one id in a batch that one is inserted.
            decisions = sorted(decisions, key=lambda one: one.entry.age)
            columns = [
                (d.id, e.content, e.record, e.raw, e.entity, *e.spot, e.offset, e.written)
                for d in decisions
                for e in (d.entry,)
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
        cursor.execute(_PLACES, ([row.id for row in decisions],))
        stored = {row[0]: (bytes(row[1]), row[2:]) for row in cursor.fetchall()}
        more: dict[str, list[DecisionRow]] = {}
        for row in decisions:
            content, (*spot, offset) = stored[row.id]
            here = tuple(spot) == row.entry.spot
            if here and content == row.entry.content and offset <= row.entry.offset:
                continue  # the record that stands, read again, or its repeat
            more.setdefault(row.id, []).append(row)
        for event_id, rows in more.items():
            self._settle(cursor, event_id, rows)

    def _settle(self, cursor: psycopg.Cursor[Any], event_id: str, rows: list[DecisionRow]) -> None:
        cursor.execute(_ENTRIES, (event_id, event_id))
        entries = [DecisionEntry(*row) for row in cursor.fetchall()]
        before, contents = entries[0], {bytes(one.content) for one in entries}
        standing, others = settle([*entries, *(row.entry for row in rows)])
        if standing.age != before.age:
            cursor.execute(
                _REPLACE,
                (
                    *(standing.content, standing.record, standing.raw, standing.entity),
                    *(*standing.spot, standing.offset, standing.written, event_id),
                ),
            )
            cursor.execute(_RELABEL, (event_id,))
        cursor.execute(_FORGET_CONFLICTS, (event_id,))
        for one, kind in others:
            cursor.execute(
                _INSERT_CONFLICT,
                (*one.spot, one.offset, event_id, kind, one.record, one.raw, one.content, one.written),
            )
        for row in {row.entry.content: row for row in rows if row.entry.content not in contents}.values():
            self._meters.conflict(row.door)
            where = {"partition": row.entry.partition, "offset": row.entry.offset}
            log.warning("decision conflicts with the stored one", extra={"data": where})

    @staticmethod
    def _label(cursor: psycopg.Cursor[Any], ids: list[str]) -> int:
        """Labels of these transactions, from all their reports."""
        cursor.execute(_REPORTS, (ids,))
        by_id: dict[str, list[ReportEntry]] = {}
        for row in cursor.fetchall():
            by_id.setdefault(row[0], []).append(ReportEntry(*row))
        standing = [(standing_report(reports), len(reports)) for reports in by_id.values()]
        columns = [(one.id, one.fraud, one.source, one.claimed, one.known, count) for one, count in standing]
        cursor.execute(_UPSERT_LABELS, [list(column) for column in zip(*columns, strict=True)])
        return int(cursor.rowcount)

    def _reject(self, cursor: psycopg.Cursor[Any], rejected: list[tuple[Record, str]]) -> int:
        """Reports are written by clients and may hold anything, a card's number too: of those only the place is kept."""
        fresh = 0
        for record, reason in rejected:
            where = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
            payload = record.value if record.topic == self._decisions else None
            spot = self._spot(record.place)
            cursor.execute(_REJECT, (*spot, record.offset, reason, payload, record.appended))
            if cursor.rowcount:
                fresh += 1
                log.error("record rejected", extra={"data": {"reason": reason, **where}})
        return fresh

    def _advance(self, cursor: psycopg.Cursor[Any], records: Sequence[Record]) -> None:
        if not self._rebuild:
            following = {self._spot(record.place): record.offset + 1 for record in records}
            cursor.executemany(_ADVANCE, [(*spot, offset) for spot, offset in sorted(following.items())])

    def _publish(self) -> None:
        if not self._filling:
            self._send()

    def _send(self, published: Mapping[str, bytes] | None = None) -> None:
        """Empties the outbox. A label that changed meanwhile has another revision and stays in it."""
        while True:
            with self._database.transaction() as cursor:
                cursor.row_factory = dict_row
                rows = cursor.execute(_OUTBOX, (PUBLISH_ROWS,)).fetchall()
            if not rows:
                return
            fit = [row for row in rows if readable(row["entities"])]
            if len(fit) < len(rows):
                self._meters.refused.inc(len(rows) - len(fit))
                log.error("labels of unreadable entities", extra={"data": {"count": len(rows) - len(fit)}})
            self._labels.send(fit, published)
            with self._database.transaction() as cursor:
                cursor.execute(_PUBLISHED, ([row["id"] for row in rows], [row["revision"] for row in rows]))


def make(config: DetectorConfig, meters: Meters, rebuild: bool) -> tuple[LedgerWriter, Reading]:
    address, schema = store_address(POSTGRES_DSN), config.identity.database_schema
    migrate(address_of(address), schema)
    labels = LabelProducer(
        KafkaAccess.of(config.kafka), config.identity.topic("labels"), config.spec.entities[-1].name
    )
    writer = LedgerWriter(Database(address, schema), config, labels, meters, rebuild)
    return writer, run.reading(config, "ledger", ("decisions", "label-reports"), batch=500, linger=0.02)


if __name__ == "__main__":
    sys.exit(run.main("ledger", make))
