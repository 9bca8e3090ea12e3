"""``python -m fraud_sinks.lake``: decisions to a Delta table at ``<storage.uri>/lake/decisions``, each exactly once.

Every commit of the table carries, as Delta's own ``txn`` actions, the offset after the last record of each partition in it.
Data and offsets are thus one atomic write: a restart begins where the table says, and an attempt whose answer was lost
is recognised. Kafka's committed offsets only show the lag. A table that is gone is written from the beginning.

Partitioned by ``date``, the UTC day of the decision. ``record`` is the whole decision as JSON; the other columns are for
reading without parsing it. ``vector`` is what was decided on; training reads it instead of computing it again.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from fraud_contracts.config import DetectorConfig
from fraud_contracts.errors import StoreError
from fraud_sinks import run
from fraud_sinks.loop import Reading
from fraud_sinks.meters import Meters
from fraud_sinks.records import Place, Record, StoreLostError

log = logging.getLogger(__name__)

BATCH_ROWS: Final = 20_000
LINGER_SECONDS: Final = 10.0
# A commit every ten seconds makes small files: about once an hour they are put together.
UPKEEP_COMMITS: Final = 360
KEEP_HOURS: Final = 168  # replaced files stay a week, so that a training run's snapshot stays readable

SCHEMA: Final = pa.schema(
    [
        ("date", pa.date32()),
        ("id", pa.string()),
        ("hash", pa.string()),
        ("door", pa.string()),
        ("time", pa.int64()),
        ("decided", pa.int64()),
        ("amount", pa.int64()),
        ("currency", pa.string()),
        ("entities", pa.map_(pa.string(), pa.string())),
        ("set", pa.string()),
        ("vector", pa.list_(pa.float64())),
        ("action", pa.string()),
        ("score", pa.int32()),
        ("probability", pa.float64()),
        ("release", pa.string()),
        ("model_version", pa.string()),
        ("model_digest", pa.string()),
        ("arm", pa.string()),
        ("bucket", pa.int32()),
        ("degraded", pa.list_(pa.string())),
        ("record", pa.string()),
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
    ]
)
_SAME: Final = (
    "hash", "door", "decided", "set", "vector", "action", "score", "probability", "release", "model_version",
    "model_digest", "arm", "bucket", "degraded",
)  # fmt: skip

_UNFIT: Final = (ValueError, KeyError, TypeError, AttributeError, OverflowError, pa.ArrowException)


def row(record: Record) -> dict[str, Any]:
    """A decision as a row; ValueError or another lookup error where the record is none."""
    found = orjson.loads(record.value or b"")
    event = found["event"]
    return {
        **{name: found.get(name) for name in _SAME},
        "date": datetime.fromtimestamp(found["decided"] / 1000, UTC).date(),
        "id": event["id"],
        "time": event["time"],
        "amount": event["amount"],
        "currency": event.get("currency"),
        "entities": list(event["entities"].items()),
        "record": (record.value or b"").decode(),
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
    }


class LakeWriter:
    """``rebuild``: adds only what the table lacks, by origin, and leaves the recorded offsets alone."""

    def __init__(self, uri: str, application: str, meters: Meters, rebuild: bool = False) -> None:
        self._uri, self._application, self._meters, self._rebuild = uri, application, meters, rebuild
        self._options = storage_options(uri)
        self._table: DeltaTable | None = None
        self._commits = 0

    def start(self, places: Sequence[Place]) -> Mapping[Place, int]:
        with _errors():
            table = self._open()
            return {place: self._following(table, place) for place in places}

    def write(self, records: Sequence[Record]) -> int:
        with _errors():
            table = self._open()
            have = {place: self._following(table, place) for place in {record.place for record in records}}
            fresh = [record for record in records if self._rebuild or record.offset >= have[record.place]]
            if not fresh:
                return 0
            data = self._arrow(fresh)
            if self._rebuild:
                return self._merge(table, data)
            following = {record.place: record.offset + 1 for record in fresh}
            now = int(datetime.now(UTC).timestamp() * 1000)
            write_deltalake(
                table,
                data,
                mode="append",
                commit_properties=CommitProperties(
                    app_transactions=[
                        Transaction(self._app(place), offset, now) for place, offset in following.items()
                    ]
                ),
            )
            self._commits += 1
            return int(data.num_rows)

    def caught_up(self, place: Place, following: int) -> None:
        """The lake keeps no mark."""

    def tick(self) -> None:
        if self._commits < UPKEEP_COMMITS:
            return
        self._commits = 0
        try:
            table = self._open()
            table.optimize.compact()
            table.vacuum(retention_hours=KEEP_HOURS, dry_run=False)
            table.create_checkpoint()
            table.cleanup_metadata()
        except (DeltaError, OSError) as error:  # the data are safe without it; next time will do
            log.warning("upkeep failed", extra={"data": {"error": str(error)}})

    def close(self) -> None:
        self._table = None

    def _open(self) -> DeltaTable:
        """The table as it is now; made when this process finds none at its start, missed when it goes later."""
        if self._table is not None:
            try:
                self._table.update_incremental()
                if not DeltaTable.is_deltatable(self._uri, self._options):
                    raise TableNotFoundError(self._uri)
            except TableNotFoundError as error:
                raise StoreLostError(
                    "lake", "the table is gone; it must be written from the beginning"
                ) from error
            return self._table
        try:
            self._table = DeltaTable(self._uri, storage_options=self._options)
        except TableNotFoundError:
            self._table = DeltaTable.create(
                self._uri,
                SCHEMA,
                mode="ignore",
                partition_by=["date"],
                name="decisions",
                storage_options=self._options,
            )
        return self._table

    def _app(self, place: Place) -> str:
        return f"{self._application}/{place.topic}/{place.partition}"

    def _following(self, table: DeltaTable, place: Place) -> int:
        return table.transaction_version(self._app(place)) or 0

    def _arrow(self, records: Sequence[Record]) -> pa.Table:
        """The rows of a batch. Only where that fails is each record tried alone."""
        try:
            return pa.Table.from_pylist([row(record) for record in records], SCHEMA)
        except _UNFIT:
            pass  # at least one record is to blame: found below
        rows = []
        for record in records:
            try:
                one = row(record)
                pa.Table.from_pylist([one], SCHEMA)
                rows.append(one)
            except _UNFIT as error:
                # The ledger keeps its bytes; a row of other types would make the table unreadable for all.
                self._meters.refused.inc()
                where = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
                log.error("decision refused", extra={"data": {"why": type(error).__name__, **where}})
        return pa.Table.from_pylist(rows, SCHEMA)

    @staticmethod
    def _merge(table: DeltaTable, data: pa.Table) -> int:
        if not data.num_rows:
            return 0
        done = (
            table.merge(
                data,
                "t.date = s.date AND t.topic = s.topic AND t.partition = s.partition AND t.offset = s.offset",
                source_alias="s",
                target_alias="t",
            )
            .when_not_matched_insert_all()
            .execute()
        )
        return int(done["num_target_rows_inserted"])


class _errors:
    """The table's errors as the loop knows them."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, (DeltaError, OSError)):
            raise StoreError("lake", str(error)) from error


def storage_options(uri: str) -> dict[str, str] | None:
    """For S3: a commit must never overwrite another's, and plain HTTP is refused unless the endpoint is given so."""
    if not uri.startswith("s3://"):
        return None
    options = {"aws_conditional_put": "etag"}
    if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"):
        options["aws_allow_http"] = "true"
    return options


def make(config: DetectorConfig, meters: Meters, rebuild: bool) -> tuple[LakeWriter, Reading]:
    writer = LakeWriter(
        f"{config.storage_uri.rstrip('/')}/lake/decisions",
        config.identity.group("lake-sink"),
        meters,
        rebuild,
    )
    return writer, run.reading(config, "lake", ("decisions",), batch=BATCH_ROWS, linger=LINGER_SECONDS)


if __name__ == "__main__":
    sys.exit(run.main("lake", make))
