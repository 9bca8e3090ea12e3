"""``python -m fraud_sinks.lake``: decisions and labels to Delta tables below ``<storage.uri>/lake``, each exactly once.

Every commit of the table carries, as Delta's own ``txn`` actions, the offset after the last record of each partition in it.
Data and offsets are thus one atomic write: a restart begins where the table says. Kafka's committed offsets only show the
lag. A table that is gone is written from the beginning, one whose folder was put back from there on, and a topic that was made anew from
its beginning: its id is part of the place.

A table is keyed: a record whose key it has adds no row, whether it was read again or published again. Of two decisions of
one id the one stands that the log took first, as in the ledger; the other is counted as refused. Commits of one topic
exclude each other by a ``txn`` of the topic, so that the rows that a batch looked up are still the same when it commits.

What the tables hold is in ``lake_tables``.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from pyarrow.fs import FileType

from fraud_contracts import lake, lake_snapshot
from fraud_contracts.config import DetectorConfig
from fraud_contracts.errors import StoreError
from fraud_contracts.lake import storage_options
from fraud_sinks import run
from fraud_sinks.lake_ids import IdsInLake
from fraud_sinks.lake_tables import DECISIONS, LABELS, ORIGIN, LakeTable
from fraud_sinks.loop import Reading
from fraud_sinks.meters import Meters
from fraud_sinks.records import Place, Record, StoreLostError

log = logging.getLogger(__name__)

BATCH_ROWS: Final = 20_000
LINGER_SECONDS: Final = 10.0
# A commit every ten seconds makes small files: where there are too many they are put together.
LOOK_SECONDS: Final = 300.0
# For so long no other sink puts files together: far longer than that takes, clocks that differ included.
CLAIM_MS: Final = 1_200_000
SMALL_BYTES: Final = 16 << 20
SMALL_FILES: Final = 64
TARGET_BYTES: Final = 128 << 20
KEEP_HOURS: Final = 168  # replaced files and old versions stay a week: a reader may be on them
SWEEP_SECONDS: Final = 86_400.0

_UNFIT: Final = (ValueError, KeyError, TypeError, AttributeError, OverflowError, pa.ArrowException)


class LakeWriter:
    """One table. ``rebuild``: moves the recorded offsets only forward; a sink may run beside it."""

    def __init__(
        self,
        uri: str,
        application: str,
        meters: Meters,
        rebuild: bool = False,
        kind: LakeTable = DECISIONS,
    ) -> None:
        self._uri, self._application, self._meters, self._rebuild = uri, application, meters, rebuild
        self._kind = kind
        self._options = storage_options(uri, os.environ)
        self._table: DeltaTable | None = None
        self._ids = IdsInLake()
        self._looked = self._swept = -SWEEP_SECONDS

    def start(self, places: Sequence[Place]) -> Mapping[Place, int]:
        with _errors():
            table = self._open()
            for topic, topic_id in sorted({(place.topic, place.topic_id) for place in places}):
                self._name_topic(table, topic, topic_id)
            return {place: self._following(table, place) or 0 for place in places}

    def write(self, records: Sequence[Record]) -> int:
        with _errors():
            table = self._open()
            data = self._new(table, self._arrow(records))
            following = {record.place: record.offset + 1 for record in records}
            recorded = {place: self._following(table, place) for place in following}
            # Everything before these records is written by now: a sink that starts on a rebuilt table goes on from here.
            moved = {
                place: at
                for place, at in following.items()
                if (at > (recorded[place] or 0) if self._rebuild else at != recorded[place])
            }
            if not data.num_rows and not moved:
                return 0
            now = int(datetime.now(UTC).timestamp() * 1000)
            offsets = [Transaction(self._app(table, place), at, now) for place, at in moved.items()]
            topics = {record.topic for record in records}
            alone = [Transaction(f"{self._application}/{topic}", now, now) for topic in sorted(topics)]
            commit = CommitProperties(app_transactions=[*offsets, *alone])
            write_deltalake(table, data, mode="append", commit_properties=commit)
            return int(data.num_rows)

    def caught_up(self, place: Place, following: int) -> None:
        """The lake keeps no mark."""

    def tick(self) -> None:
        """Puts small files together, and once a day takes away what was replaced more than a week ago."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS or self._table is None:
            return
        self._looked = now
        try:
            table = self._open()
            sizes = table.get_add_actions(flatten=True).column("size_bytes").to_pylist()
            if sum(size < SMALL_BYTES for size in sizes) >= SMALL_FILES and self._claims_upkeep(table):
                metrics = table.optimize.compact(target_size=TARGET_BYTES)
                table.create_checkpoint()
                counts = {name: metrics[name] for name in ("numFilesAdded", "numFilesRemoved")}
                log.info("files put together", extra={"data": {"table": self._kind.name, **counts}})
            if now - self._swept >= SWEEP_SECONDS:
                table.vacuum(retention_hours=KEEP_HOURS, dry_run=False)
                table.cleanup_metadata()
                self._swept = now
        except (DeltaError, OSError) as error:  # the data are safe without it; next time will do
            log.warning("upkeep failed", extra={"data": {"error": str(error)}})

    def _claims_upkeep(self, table: DeltaTable) -> bool:
        """Whether this sink is the one that puts files together now. DeltaError where another one claimed it at the same moment.

        The library lets two compactions of the same files both commit, and each of their rows is then in the table twice.
        """
        name, now = f"{self._application}/upkeep", int(time.time() * 1000)
        last = table.transaction_version(name)
        if last is not None and now - last < CLAIM_MS:
            return False
        claim = CommitProperties(app_transactions=[Transaction(name, now, now)])
        write_deltalake(table, self._arrow([]), mode="append", commit_properties=claim)
        return True

    def close(self) -> None:
        self._table = None

    def _open(self) -> DeltaTable:
        """The table as it is now. It is created where there is none at the process's start; StoreLostError where it vanishes later, or
        an earlier version of its folder is put in its place."""
        if self._table is not None:
            # A commit on top of versions that are gone would be no version of any table.
            if not self._is_there(self._table.version()):
                raise StoreLostError("lake", "the table is gone, or an earlier one is in its place")
            self._table.update_incremental()
            return self._table
        try:
            self._table = DeltaTable(self._uri, storage_options=self._options)
        except TableNotFoundError:
            self._table = DeltaTable.create(
                self._uri,
                self._kind.schema,
                mode="ignore",
                partition_by=["date"],
                name=self._kind.name,
                storage_options=self._options,
                configuration={"delta.logRetentionDuration": f"interval {KEEP_HOURS} hours"},
            )
        self._widen(self._table)
        return self._table

    def _is_there(self, version: int) -> bool:
        """Whether the folder still has the table's version; the newest one's entry in its log is never swept."""
        files = DeltaStorageHandler(self._uri, self._options)
        (found,) = files.get_file_info([f"_delta_log/{version:020d}.json"])
        return bool(found.type is not FileType.NotFound)

    def _widen(self, table: DeltaTable) -> None:
        """Adds the columns that a table of an older version lacks; its rows have nulls there."""
        columns = {field.name for field in table.schema().fields}
        new = [field for field in Schema.from_arrow(self._kind.schema).fields if field.name not in columns]
        if new:
            table.alter.add_columns(new)

    def _name_topic(self, table: DeltaTable, topic: str, topic_id: str) -> None:
        """Notes a topic's id beside those that its name has had. Places from before the first id count as that topic's."""
        ids = lake_snapshot.topic_ids(table, topic)
        if not topic_id or topic_id in ids:
            return
        named = {lake_snapshot.topic_ids_property(topic): ",".join([*ids, topic_id])}
        table.alter.set_table_properties(named, raise_if_not_exists=False)
        table.update_incremental()
        if ids:
            self._meters.reread("the topic was made anew", {"topic": topic, "topic_id": topic_id})

    def _topic_id(self, table: DeltaTable, place: Place) -> str:
        """The place's topic id; where the broker has no ids, that of the newest topic of the name."""
        return place.topic_id or next(reversed(lake_snapshot.topic_ids(table, place.topic)), "")

    def _app(self, table: DeltaTable, place: Place) -> str:
        at = lake_snapshot.place(place.topic, place.partition, self._topic_id(table, place))
        return f"{self._application}/{at}"

    def _following(self, table: DeltaTable, place: Place) -> int | None:
        topic_id = self._topic_id(table, place)
        return lake_snapshot.following(table, self._application, place.topic, place.partition, topic_id)

    def _arrow(self, records: Sequence[Record]) -> pa.Table:
        """A batch as rows. Where one of its records doesn't fit, each is tried alone and those that don't fit are refused."""
        row, schema = self._kind.row, self._kind.schema
        try:
            return pa.Table.from_pylist([row(record) for record in records], schema)
        except _UNFIT:
            pass  # at least one record doesn't fit; below shows which
        rows = []
        for record in records:
            try:
                one = row(record)
                pa.Table.from_pylist([one], schema)
                rows.append(one)
            except _UNFIT as error:
                # The ledger keeps its bytes; a row of other types would make the table unreadable for all.
                self._meters.refused.inc()
                where = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
                log.error("record refused", extra={"data": {"why": type(error).__name__, **where}})
        return pa.Table.from_pylist(rows, schema)

    def _new(self, table: DeltaTable, data: pa.Table) -> pa.Table:
        """The rows to append: those whose key the table lacks, and those that replace a stored row, which is deleted."""
        kind = self._kind
        columns = list(dict.fromkeys(("date", "id", *kind.key, *kind.same, *ORIGIN, "appended")))
        rows = data.select(columns).to_pylist()
        around = [timedelta(days=days) for days in range(-kind.reach, kind.reach + 1)]
        days = {day + step for day in {row["date"] for row in rows} for step in around}
        stored = self._ids.rows(table, days, {row["id"] for row in rows}, columns)
        standing_rows = {self._key(row): row for row in sorted(stored, key=_age, reverse=True)}
        new: dict[tuple[Any, ...], int] = {}
        later = []
        for at, row in sorted(enumerate(rows), key=lambda one: _age(one[1])):
            key = self._key(row)
            current = standing_rows.get(key)
            if current is not None and not self._replaces(row, current):
                continue
            if current is not None:
                later.append(current)
            standing_rows[key], new[key] = row, at
        for row in later:
            quoted = row["id"].replace("'", "''")
            table.delete(f"date = '{row['date']}' AND id = '{quoted}'")
        return data.take(pa.array(sorted(new.values()), pa.int64()))

    def _key(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] for name in self._kind.key)

    def _replaces(self, row: Mapping[str, Any], current: Mapping[str, Any]) -> bool:
        """Whether ``row`` replaces ``current``, which has the same key: the older one stands. The same record read again, or
        its repeat, replaces nothing; any other pair is counted as refused, whichever of the two stands."""
        again = all(current[name] in (None, row[name]) for name in ORIGIN)
        if again or all(row[name] == current[name] for name in self._kind.same):
            return False
        self._meters.refused.inc()
        log.error("another one of this id is there", extra={"data": {name: row[name] for name in ORIGIN}})
        return _age(row) < _age(current)


def _age(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """As the ledger orders decisions of one id."""
    return row["appended"] or 0, row["topic"], row["partition"], row["offset"]


class LakeTables:
    """Several tables behind one loop, each fed from its own topic."""

    def __init__(self, by_topic: Mapping[str, LakeWriter]) -> None:
        self._by_topic = by_topic

    def start(self, places: Sequence[Place]) -> Mapping[Place, int]:
        starts: dict[Place, int] = {}
        for topic, writer in self._by_topic.items():
            starts.update(writer.start([place for place in places if place.topic == topic]))
        return starts

    def write(self, records: Sequence[Record]) -> int:
        """A failure after the first table's commit is retried with both tables; the first then has nothing new to write."""
        rows = 0
        for topic, writer in self._by_topic.items():
            mine = [record for record in records if record.topic == topic]
            rows += writer.write(mine) if mine else 0
        return rows

    def caught_up(self, place: Place, following: int) -> None:
        self._by_topic[place.topic].caught_up(place, following)

    def tick(self) -> None:
        for writer in self._by_topic.values():
            writer.tick()

    def close(self) -> None:
        for writer in self._by_topic.values():
            writer.close()


class _errors:
    """The table's errors as the loop knows them."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, (DeltaError, OSError)):
            raise StoreError("lake", str(error)) from error


def make(config: DetectorConfig, meters: Meters, rebuild: bool) -> tuple[LakeTables, Reading]:
    group = config.identity.group("lake-sink")
    tables = LakeTables(
        {
            config.identity.topic(kind.name): LakeWriter(
                lake.table(config.storage_uri, kind.name), group, meters, rebuild, kind
            )
            for kind in (DECISIONS, LABELS)
        }
    )
    nouns = (DECISIONS.name, LABELS.name)
    return tables, run.reading(config, "lake", nouns, batch=BATCH_ROWS, linger=LINGER_SECONDS)


if __name__ == "__main__":
    sys.exit(run.main("lake", make))
