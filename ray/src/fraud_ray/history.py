"""Import of history: files with a detector's own field names become canonical events with labels.

Rows go through the very code that judges live transactions. A row that is refused is counted under its reason and never
silently lost; the card shows the counts. A file that isn't the table that the detector names is an error.
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
from fraud_contracts.training_end import EndReason
from fraud_pipelines.events import EPOCH, EventSchema, Tokeniser
from fraud_pipelines.labels import KNOWN, PATTERN, history_delay
from fraud_ray.errors import TrainingError
from fraud_ray.lake import Decided, Lake

LOG = logging.getLogger(__name__)
SUFFIXES: Final = (".csv", ".csv.gz", ".parquet")
_TRUE, _FALSE = ("1", "true", "t", "yes"), ("0", "false", "f", "no")
_NO_FRACTION: Final = re.compile(r"(?<=[0-9])\.0+\Z")
_MS: Final = re.compile(r"[0-9]{1,15}")
_EXAMPLES: Final = 5
_BATCH: Final = 8192
_DELTA_LOG: Final = "_delta_log"
_UNDATED: Final = -1
_MOST_PATTERNS: Final = 20
# What pyarrow raises for a value that Python has no form for: of dates, durations, zones, text, nested names.
_BEYOND_PYTHON: Final = (ValueError, OverflowError, LookupError, pyarrow.ArrowException)


@dataclass
class History:
    """Events in order of time with, side by side, whether each is fraud and when that is known (UTC ms).

    Rows of the lake carry the vector that they were decided on; those of files have None and are computed by replay.
    """

    events: list[Event] = field(default_factory=list)
    fraud: list[bool] = field(default_factory=list)
    known: list[int] = field(default_factory=list)
    pattern: list[str] = field(default_factory=list)
    decided: list[Decided | None] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)
    lake: dict[str, Any] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def labels(self) -> list[dict[str, Any]]:
        """Labels as the stream would have had them, by the time they were known: the files' frauds, and all of the lake's."""
        rows = [
            _label_of(event, known)
            for event, fraud, known, decided in zip(
                self.events, self.fraud, self.known, self.decided, strict=True
            )
            if fraud and decided is None
        ]
        return sorted([*rows, *self.told], key=lambda row: int(row["known"]))

    def sort(self) -> None:
        """By time; of equal times the files' order stays."""
        order = sorted(range(len(self.events)), key=lambda i: self.events[i]["time"])
        self.events = [self.events[i] for i in order]
        self.fraud = [self.fraud[i] for i in order]
        self.known = [self.known[i] for i in order]
        self.pattern = [self.pattern[i] for i in order]
        self.decided = [self.decided[i] for i in order]

    def take_in(self, lake: Lake) -> None:
        """Adds what the platform decided. An id that the files have, too, is the lake's; without a label there, the files'."""
        at = {event["id"]: i for i, event in enumerate(self.events)}
        both = 0
        for event_id, decided in lake.decided.items():
            label = lake.standing.get(event_id)
            known = decided.event["time"] if label is None else label["known"]
            here = at.get(event_id)
            if here is None:
                self.events.append(decided.event)
                self.fraud.append(label is not None and label["fraud"])
                self.known.append(known)
                self.pattern.append("")
                self.decided.append(decided)
                continue
            both += 1
            self.events[here], self.decided[here] = decided.event, decided
            if label is not None:
                self.fraud[here], self.known[here] = label["fraud"], known
            elif self.fraud[here]:  # only the files know of it: for the features, too
                self.told.append(_label_of(decided.event, self.known[here]))
        self.told += lake.labels
        self.lake = {
            "decisions": len(lake.decided),
            "in_files_too": both,
            "labels": len(lake.labels),
            "labels_without_decision": lake.strays,
            "snapshot": lake.digests,
        }
        self.sort()


def _label_of(event: Event, known: int) -> dict[str, Any]:
    return {
        "id": event["id"],
        "time": event["time"],
        "entities": event["entities"],
        "fraud": True,
        "known": known,
    }


def locate(storage_uri: str, path: str) -> tuple[fs.FileSystem, dict[str, str]]:
    """The file system of a storage URI (file:// or s3://) and the history files below ``path`` by their names there, sorted."""
    uri = f"{storage_uri.rstrip('/')}/{path.strip('/')}"
    try:
        system, root = fs.FileSystem.from_uri(uri)
        found = system.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
        if not found:  # the path may be one file
            found = [info for info in [system.get_file_info(root)] if info.type is fs.FileType.File]
    except (OSError, ValueError) as error:
        raise TrainingError(EndReason.HISTORY_UNREADABLE, f"{uri} can't be listed: {error}") from error
    paths = {
        info.path.removeprefix(root).strip("/") or info.base_name: info.path
        for info in found
        if info.type is fs.FileType.File
    }
    delta = next((name for name in paths if _DELTA_LOG in name.split("/")), None)
    if delta is not None:
        raise TrainingError(
            EndReason.HISTORY_UNREADABLE,
            f"{delta.partition(_DELTA_LOG)[0] or uri} is a Delta table: beside its rows its folder holds those that were changed or "
            "deleted since; export the table to Parquet files",
        )
    hidden = [name for name in paths if any(part.startswith((".", "_")) for part in name.split("/"))]
    good = {name: paths[name] for name in sorted(paths) if name.endswith(SUFFIXES) and name not in hidden}
    other = len(paths) - len(good) - len(hidden)
    if other:
        LOG.warning("files of other kinds are left out", extra={"data": {"files": other, "kinds": SUFFIXES}})
    passed = sum(name.endswith(SUFFIXES) for name in hidden)
    if passed:
        LOG.warning(
            "files whose name or folder begins with _ or . are left out", extra={"data": {"files": passed}}
        )
    if not good:
        but = f" ({passed} are left out whose name or folder begins with _ or .)" if passed else ""
        raise TrainingError(
            EndReason.NO_HISTORY,
            f"no history: {uri} holds no {', '.join(SUFFIXES)} file{but}; put labelled transactions there",
        )
    return system, good


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
    """(where, row or why there is none) of one file: text cells from CSV, typed ones from Parquet.

    A file that can't be read, or lacks a ``needed`` column, is an error and no gap. Parquet columns that are neither
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
        # Compression is told by the name: .gz is opened as such.
        with (
            system.open_input_stream(path) as stream,
            io.TextIOWrapper(stream, csv_rows.ENCODING, newline="") as text,
        ):
            for line, found in csv_rows.rows(text, needed):
                where = f"line {line}"
                yield f"{name} {where}", found
    except TableError as error:
        raise TrainingError(EndReason.HISTORY_UNREADABLE, f"{name} {error}") from error
    except (OSError, UnicodeDecodeError, pyarrow.ArrowException) as error:
        after = f" after {where}" if where else ""
        raise TrainingError(EndReason.HISTORY_UNREADABLE, f"{name} can't be read{after}: {error}") from error


def _label(row: Mapping[str, Any], name: str) -> bool | None:
    value = row.get(name, "")
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    text = _NO_FRACTION.sub("", text.strip().lower())
    return True if text in _TRUE else False if text in _FALSE else None


def _is_empty(value: Any) -> bool:
    """Whether a cell holds nothing: a data frame's gap in a column of numbers is nan."""
    return value is None or value == "" or value != value


def _known_ms(value: Any) -> int | None:
    """Optional column: milliseconds, as text or in whatever type of number, or a time of a Parquet file."""
    if isinstance(value, datetime):
        return (value - EPOCH) // timedelta(milliseconds=1) if value.tzinfo else None
    text = _NO_FRACTION.sub("", str(value))
    known = int(text) if _MS.fullmatch(text) else None
    return known if known is not None and known <= MAX_TIME else None


Word = tuple[int, bool]  # when it was known (or undated), and whether it is fraud


def _standing(words: Sequence[Word], undated: int) -> tuple[bool, int]:
    """What a payment was, and since when that is known, of the rows' words in their order.

    The word that was known last holds, as in the ledger, and counts from the first of those that agree with it. A word
    without a date may be any age, so each that has one comes after it; among themselves the later row speaks.
    """
    by_time = sorted(words, key=lambda word: word[0])
    fraud = by_time[-1][1]
    known = undated
    for when, other in reversed(by_time):
        if other != fraud or when == _UNDATED:
            break
        known = when
    return fraud, known


class _Importer:
    def __init__(self, spec: DetectorSpec, tokeniser: Tokeniser, now_ms: int) -> None:
        assert spec.model.train is not None
        event = spec.event
        self.schema = EventSchema(event, spec.entities)
        self.label_field = spec.model.train.history.label_field
        needed = (event.id.field, event.time.field, event.amount.field, event.amount.currency_field)
        # These may be null, so a file needn't have their columns.
        self.optional = [*(e.field for e in spec.entities), *(f.name for f in event.fields), KNOWN, PATTERN]
        self.needed = [
            name for name in (*needed, spec.entities[0].field, self.label_field) if name is not None
        ]
        self.delay = history_delay(spec.entities)
        self.tokeniser, self.now = tokeniser, now_ms
        self.out = History()
        self._seen: dict[str, str] = {}  # in the order of out.events
        self._dated = bytearray()  # of each event, whether its label has a date
        self._frauds: set[str] = set()  # by their first rows
        self._words: dict[str, list[Word]] = {}  # what further rows say of an event
        # A detector that declares the column as its own may mean anything by it, a secret even.
        declared = {*event.sensitive, *(f.name for f in event.fields)}
        self._pattern = None if PATTERN in declared else PATTERN

    def refuse(self, reason: str, where: str, message: str, count: int = 1) -> None:
        self.out.refused[reason] += count
        if len(self.out.examples) < _EXAMPLES:
            self.out.examples.append(f"{where}: {message}")

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
        known = _known_ms(row[KNOWN]) if dated else event["time"] + self.delay
        if known is None or known < event["time"]:
            self.refuse("invalid_known", where, f"{KNOWN} must be UTC milliseconds, not before the event")
            return
        digest = self.schema.hash(event)
        before = self._seen.get(event["id"])
        if before is not None:
            self._again(event["id"], before == digest, (known if dated else _UNDATED, fraud), where)
            return
        self._seen[event["id"]] = digest
        self._dated.append(dated)
        if fraud:
            self._frauds.add(event["id"])
        self.out.events.append(event)
        self.out.fraud.append(fraud)
        self.out.known.append(known)
        self.out.decided.append(None)
        self.out.pattern.append(str(row.get(self._pattern) or "") if self._pattern else "")

    def _again(self, event_id: str, same: bool, word: Word, where: str) -> None:
        """A further row of an id; ``same``: of the same body."""
        if not same:
            self.refuse("id_reused", where, "the id was seen before with another body")
            return
        words = self._words.setdefault(event_id, [])
        before = words[-1][1] if words else event_id in self._frauds
        words.append(word)
        if before == word[1]:
            self.refuse("repeat", where, "the id was seen before")
        else:
            told = "the id was seen before with another label; the later word holds"
            self.refuse("label_changed", where, told)

    def finish(self) -> History:
        """What was imported, each payment with the label that holds."""
        out = self.out
        for i, event in enumerate(out.events) if self._words else ():
            further = self._words.get(event["id"])
            if further is not None:
                first = (out.known[i] if self._dated[i] else _UNDATED, out.fraud[i])
                out.fraud[i], out.known[i] = _standing([first, *further], event["time"] + self.delay)
        # Many values are no kinds of fraud.
        if len(set(out.pattern)) > _MOST_PATTERNS:
            out.pattern = [""] * len(out.pattern)
        out.sort()
        return out


def load(
    spec: DetectorSpec, storage_uri: str, tokeniser: Tokeniser, now_ms: int, required: bool = True
) -> History:
    """All files' history of a detector in order of time; TrainingError where there is none that can be used.

    Not ``required``: then it is empty.
    """
    assert spec.model.train is not None
    try:
        system, paths = locate(storage_uri, spec.model.train.history.path)
    except TrainingError as error:
        if required or error.reason is not EndReason.NO_HISTORY:
            raise
        return History()
    importer = _Importer(spec, tokeniser, now_ms)
    out = importer.out
    for name, path in paths.items():
        count = 0
        for where, found in rows(system, name, path, importer.needed, importer.optional):
            if isinstance(found, RefusedLines):
                importer.refuse(found.reason, where, found.message, found.count)
                count += found.count
            else:
                importer.take(found, where)
                count += 1
        out.files[name] = count
        LOG.info("history file read", extra={"data": {"file": name, "rows": count}})
    if out.refused:
        told = {"refused": dict(out.refused), "examples": out.examples}
        LOG.warning("history rows refused", extra={"data": told})
    if not out.events and required:
        raise TrainingError(
            EndReason.NO_HISTORY,
            f"no row of the history could be used: rows {out.files}, refused {dict(out.refused)} {out.examples}",
        )
    return importer.finish()
