"""Import of history: files with a detector's own field names become canonical events with labels.

Rows go through the code that validates live transactions. A refused row is counted under its reason, and the
card shows the counts. A file that isn't the table that the detector names is an error.
"""

from __future__ import annotations

import io
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import pyarrow
import pyarrow.parquet
from pyarrow import fs

from fraud_contracts import csv_rows
from fraud_contracts.csv_rows import RefusedLines, TableError
from fraud_contracts.detector import DetectorSpec
from fraud_contracts.errors import EventError
from fraud_contracts.event_values import MAX_TIME
from fraud_contracts.records import Event
from fraud_contracts.standing_label import standing_label
from fraud_contracts.training_end import EndReason
from fraud_pipelines.events import EPOCH, FALSE_WORDS, TRUE_WORDS, EventSchema, Tokeniser
from fraud_pipelines.labels import KNOWN, PATTERN, history_delay
from fraud_ray.errors import TrainingError
from fraud_ray.history_files import locate
from fraud_ray.lake import DecidedEvent, LakeSnapshot

LOG = logging.getLogger(__name__)
_NO_FRACTION: Final = re.compile(r"(?<=[0-9])\.0+\Z")
_MS: Final = re.compile(r"[0-9]{1,15}")
_EXAMPLES: Final = 5
_BATCH: Final = 8192
_UNDATED: Final = -1
_MOST_PATTERNS: Final = 20
# What pyarrow raises for a value that Python has no form for: of dates, durations, zones, text, nested names.
_BEYOND_PYTHON: Final = (ValueError, OverflowError, LookupError, pyarrow.ArrowException)


@dataclass
class TrainingHistory:
    """Events in order of time; beside each whether it is fraud and since when that is known (UTC ms).

    ``decided`` holds the vector that an event of the lake was decided on; it is None for an event of the
    files, whose vector is computed by replay. ``decided_labels`` are the labels of the lake's events.
    """

    events: list[Event] = field(default_factory=list)
    fraud: list[bool] = field(default_factory=list)
    known_at: list[int] = field(default_factory=list)
    pattern: list[str] = field(default_factory=list)
    decided: list[DecidedEvent | None] = field(default_factory=list)
    decided_labels: list[dict[str, Any]] = field(default_factory=list)
    lake: dict[str, Any] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def labels(self) -> list[dict[str, Any]]:
        """Labels as the stream would have had them, by the time they were known: the files' frauds, and all of the lake's."""
        rows = [
            _fraud_label(event, known_at)
            for event, fraud, known_at, decided in zip(
                self.events, self.fraud, self.known_at, self.decided, strict=True
            )
            if fraud and decided is None
        ]
        return sorted([*rows, *self.decided_labels], key=lambda row: int(row["known"]))

    def sort(self) -> None:
        """By time; of equal times the files' order stays."""
        order = sorted(range(len(self.events)), key=lambda i: self.events[i]["time"])
        self.events = [self.events[i] for i in order]
        self.fraud = [self.fraud[i] for i in order]
        self.known_at = [self.known_at[i] for i in order]
        self.pattern = [self.pattern[i] for i in order]
        self.decided = [self.decided[i] for i in order]

    def add_lake(self, lake: LakeSnapshot) -> None:
        """Adds the events that the platform decided.

        Of an id that files and lake both hold, the lake's event counts; its label is the lake's where the
        lake has one, else the files'.
        """
        at = {event["id"]: i for i, event in enumerate(self.events)}
        both = 0
        for event_id, decided in lake.decided.items():
            label = lake.standing.get(event_id)
            known_at = decided.event["time"] if label is None else label["known"]
            here = at.get(event_id)
            if here is None:
                self.events.append(decided.event)
                self.fraud.append(label is not None and label["fraud"])
                self.known_at.append(known_at)
                self.pattern.append("")
                self.decided.append(decided)
                continue
            both += 1
            self.events[here], self.decided[here] = decided.event, decided
            if label is not None:
                self.fraud[here], self.known_at[here] = label["fraud"], known_at
            elif self.fraud[here]:  # only the files have this label, and the features count it, too
                self.decided_labels.append(_fraud_label(decided.event, self.known_at[here]))
        self.decided_labels += lake.labels
        self.lake = {
            "decisions": len(lake.decided),
            "in_files_too": both,
            "labels": len(lake.labels),
            "labels_without_decision": lake.labels_without_decision,
            "snapshot": lake.digests,
        }
        self.sort()


def _fraud_label(event: Event, known_at: int) -> dict[str, Any]:
    return {
        "id": event["id"],
        "time": event["time"],
        "entities": event["entities"],
        "fraud": True,
        "known": known_at,
    }


def _typed_rows(batch: pyarrow.RecordBatch) -> list[dict[str, Any] | RefusedLines]:
    """The rows of a batch; one that holds what no Python value can (a year above 9999, say) is refused."""
    try:
        return list(batch.to_pylist())
    except _BEYOND_PYTHON:
        return [_typed_row(batch, i) for i in range(batch.num_rows)]


def _typed_row(batch: pyarrow.RecordBatch, i: int) -> dict[str, Any] | RefusedLines:
    row: dict[str, Any] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            row[name] = column[i].as_py()
        except _BEYOND_PYTHON:
            return RefusedLines("unreadable_value", f"{name} holds what can't be read", 1)
    return row


def rows(
    system: fs.FileSystem, name: str, path: str, needed: Sequence[str], optional: Sequence[str]
) -> Iterator[tuple[str, Mapping[str, Any] | RefusedLines]]:
    """(where, row or the refused lines) of one file: text cells from CSV, typed ones from Parquet.

    TrainingError where the file can't be read or lacks a ``needed`` column. Parquet columns that are neither
    needed nor ``optional`` aren't read.
    """
    where = ""
    try:
        if name.endswith(".parquet"):
            with system.open_input_file(path) as source:
                file = pyarrow.parquet.ParquetFile(source)
                names = file.schema_arrow.names
                csv_rows.check_columns(names, needed)
                columns = [column for column in names if column in needed or column in optional]
                number = 0
                # Parquet takes a nested column's path for a name, too.
                for batch in file.iter_batches(_BATCH, columns=columns):
                    for row in _typed_rows(batch.select(columns)):
                        number += 1
                        where = f"row {number}"
                        yield f"{name} {where}", row
            return
        # pyarrow tells the compression by the name's suffix (.gz).
        with (
            system.open_input_stream(path) as stream,
            io.TextIOWrapper(stream, csv_rows.ENCODING, newline="") as text,
        ):
            for line, cells in csv_rows.rows(text, needed):
                where = f"line {line}"
                yield f"{name} {where}", cells
    except TableError as error:
        raise TrainingError(EndReason.HISTORY_UNREADABLE, f"{name} {error}") from error
    except (OSError, UnicodeDecodeError, pyarrow.ArrowException) as error:
        after = f" after {where}" if where else ""
        raise TrainingError(EndReason.HISTORY_UNREADABLE, f"{name} can't be read{after}: {error}") from error


def _label(row: Mapping[str, Any], name: str) -> bool | None:
    value = row.get(name, "")
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    text = _NO_FRACTION.sub("", text.strip().lower())
    return True if text in TRUE_WORDS else False if text in FALSE_WORDS else None


def _is_empty(value: Any) -> bool:
    """Whether a cell is empty; NaN counts, as a data frame writes it for a gap in a column of numbers."""
    return value is None or value == "" or value != value


def _utc_ms(value: Any) -> int | None:
    """UTC milliseconds of a cell: text, a number of any type or a Parquet file's time; else None."""
    if isinstance(value, datetime):
        return (value - EPOCH) // timedelta(milliseconds=1) if value.tzinfo else None
    text = _NO_FRACTION.sub("", str(value))
    ms = int(text) if _MS.fullmatch(text) else None
    return ms if ms is not None and ms <= MAX_TIME else None


RowLabel = tuple[int, bool]  # when it became known (or _UNDATED), and whether it is fraud


def _standing_label(labels: Sequence[RowLabel], undated: int) -> tuple[bool, int]:
    """Whether a payment is fraud, and since when that is known, by the labels of its rows in the rows' order.

    An undated label is older than every dated one; of several undated ones the last row's stands, and is known
    since ``undated``. Of dated ones ``standing_label`` says which.
    """
    dated = sorted((label for label in labels if label[0] != _UNDATED), key=lambda label: label[0])
    if not dated:
        return labels[-1][1], undated
    known_at, fraud = standing_label(reversed(dated), lambda label: label[1])
    return fraud, known_at


class _Importer:
    def __init__(self, spec: DetectorSpec, tokeniser: Tokeniser, now_ms: int) -> None:
        assert spec.model.train is not None
        event = spec.event
        self.schema = EventSchema(event, spec.entities)
        self.label_field = spec.model.train.history.label_field
        needed = (event.id.field, event.time.field, event.amount.field, event.amount.currency_field)
        # These values may be null, so a file may lack their columns.
        self.optional = [*(e.field for e in spec.entities), *(f.name for f in event.fields), KNOWN, PATTERN]
        self.needed = [
            name for name in (*needed, spec.entities[0].field, self.label_field) if name is not None
        ]
        self.delay = history_delay(spec.entities)
        self.tokeniser, self.now = tokeniser, now_ms
        self.history = TrainingHistory()
        self._digests: dict[str, str] = {}  # each id's body, in the order of history.events
        self._dated = bytearray()  # of each event, whether its label has a date
        self._frauds: set[str] = set()  # ids that are fraud by their first row
        self._further_labels: dict[str, list[RowLabel]] = {}  # by id, from the rows after its first
        # Where the detector declares the column, its values may be anything, even secret.
        declared = {*event.sensitive, *(f.name for f in event.fields)}
        self._pattern = None if PATTERN in declared else PATTERN

    def refuse(self, reason: str, where: str, message: str, count: int = 1) -> None:
        self.history.refused[reason] += count
        if len(self.history.examples) < _EXAMPLES:
            self.history.examples.append(f"{where}: {message}")

    def take(self, row: Mapping[str, Any], where: str) -> None:
        try:
            event = self.schema.canonical(row, self.tokeniser, self.now)
        except EventError as error:
            self.refuse(str(error.reason), where, error.message)
            return
        fraud = _label(row, self.label_field)
        if fraud is None:
            self.refuse("invalid_label", where, f"{self.label_field} must be 1 or 0")
            return
        dated = not _is_empty(row.get(KNOWN))
        known_at = _utc_ms(row[KNOWN]) if dated else event["time"] + self.delay
        if known_at is None or known_at < event["time"]:
            self.refuse("invalid_known", where, f"{KNOWN} must be UTC milliseconds, not before the event")
            return
        digest = self.schema.hash(event)
        first_digest = self._digests.get(event["id"])
        if first_digest is not None:
            label = (known_at if dated else _UNDATED, fraud)
            self._take_further(event["id"], first_digest == digest, label, where)
            return
        self._digests[event["id"]] = digest
        self._dated.append(dated)
        if fraud:
            self._frauds.add(event["id"])
        self.history.events.append(event)
        self.history.fraud.append(fraud)
        self.history.known_at.append(known_at)
        self.history.decided.append(None)
        self.history.pattern.append(str(row.get(self._pattern) or "") if self._pattern else "")

    def _take_further(self, event_id: str, same_body: bool, label: RowLabel, where: str) -> None:
        """Refuses a row whose id an earlier row had; keeps its label where the body is the same."""
        if not same_body:
            self.refuse("id_reused", where, "the id was seen before with another body")
            return
        labels = self._further_labels.setdefault(event_id, [])
        fraud_before = labels[-1][1] if labels else event_id in self._frauds
        labels.append(label)
        if fraud_before == label[1]:
            self.refuse("repeat", where, "the id was seen before")
        else:
            message = "the id was seen before with another label; the later word holds"
            self.refuse("label_changed", where, message)

    def finish(self) -> TrainingHistory:
        """The imported history in order of time, each payment with the label that stands."""
        history = self.history
        for i, event in enumerate(history.events) if self._further_labels else ():
            further = self._further_labels.get(event["id"])
            if further is not None:
                first = (history.known_at[i] if self._dated[i] else _UNDATED, history.fraud[i])
                history.fraud[i], history.known_at[i] = _standing_label(
                    [first, *further], event["time"] + self.delay
                )
        # A column of so many values doesn't name kinds of fraud.
        if len(set(history.pattern)) > _MOST_PATTERNS:
            history.pattern = [""] * len(history.pattern)
        history.sort()
        return history


def load(
    spec: DetectorSpec, storage_uri: str, tokeniser: Tokeniser, now_ms: int, required: bool = True
) -> TrainingHistory:
    """The history of all of a detector's files, in order of time.

    TrainingError where a file can't be read; also where there are no files or no usable rows, unless the
    history isn't ``required``: then it is empty.
    """
    assert spec.model.train is not None
    try:
        system, paths = locate(storage_uri, spec.model.train.history.path)
    except TrainingError as error:
        if required or error.reason is not EndReason.NO_HISTORY:
            raise
        return TrainingHistory()
    importer = _Importer(spec, tokeniser, now_ms)
    imported = importer.history
    for name, path in paths.items():
        count = 0
        for where, row in rows(system, name, path, importer.needed, importer.optional):
            if isinstance(row, RefusedLines):
                importer.refuse(row.reason, where, row.message, row.count)
                count += row.count
            else:
                importer.take(row, where)
                count += 1
        imported.files[name] = count
        LOG.info("history file read", extra={"data": {"file": name, "rows": count}})
    if imported.refused:
        refusals = {"refused": dict(imported.refused), "examples": imported.examples}
        LOG.warning("history rows refused", extra={"data": refusals})
    if not imported.events and required:
        raise TrainingError(
            EndReason.NO_HISTORY,
            f"no row of the history could be used: rows {imported.files}, "
            f"refused {dict(imported.refused)} {imported.examples}",
        )
    return importer.finish()
