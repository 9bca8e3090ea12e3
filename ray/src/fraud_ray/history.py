"""Import of history: files with a detector's own field names become canonical events with labels.

Rows go through the very code that judges live transactions. A row that is refused is counted under its reason and never
silently lost; the card shows the counts.
"""

from __future__ import annotations

import csv
import io
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import pyarrow
import pyarrow.parquet
from pyarrow import fs

from fraud_contracts.detector import DetectorSpec
from fraud_contracts.errors import EventError
from fraud_contracts.records import Event
from fraud_pipelines.events import EventSchema, Tokeniser
from fraud_pipelines.labels import KNOWN, PATTERN, history_delay
from fraud_ray.errors import TrainingError
from fraud_ray.lake import Decided, Lake

LOG = logging.getLogger(__name__)
SUFFIXES: Final = (".csv", ".csv.gz", ".parquet")
_TRUE, _FALSE = ("1", "1.0", "true", "t", "yes"), ("0", "0.0", "false", "f", "no")
_EXAMPLES: Final = 5
_BATCH: Final = 8192
_MOST_PATTERNS: Final = 20


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


def locate(storage_uri: str, path: str) -> tuple[fs.FileSystem, list[str]]:
    """The file system of a storage URI (file:// or s3://) and the history files below ``path``, sorted by name."""
    uri = f"{storage_uri.rstrip('/')}/{path.strip('/')}"
    try:
        system, root = fs.FileSystem.from_uri(uri)
        found = system.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
        if not found:  # the path may be one file
            found = [info for info in [system.get_file_info(root)] if info.type is fs.FileType.File]
    except (OSError, ValueError) as error:
        raise TrainingError("HistoryUnreadable", f"{uri} can't be listed: {error}") from error
    names = [info.path for info in found if info.type is fs.FileType.File]
    hidden = [name for name in names if name.rsplit("/", 1)[-1].startswith((".", "_"))]
    good = sorted(name for name in names if name.endswith(SUFFIXES) and name not in hidden)
    other = len(names) - len(good) - len(hidden)
    if other:
        LOG.warning("files of other kinds are left out", extra={"data": {"files": other, "kinds": SUFFIXES}})
    if not good:
        raise TrainingError(
            "NoHistory",
            f"no history: {uri} holds no {', '.join(SUFFIXES)} file; put labelled transactions there",
        )
    return system, good


def rows(system: fs.FileSystem, name: str) -> Iterator[Mapping[str, Any]]:
    """Rows of one file: text cells from CSV, typed ones from Parquet. A file that can't be read is an error, not a gap."""
    try:
        if name.endswith(".parquet"):
            with system.open_input_file(name) as source:
                for batch in pyarrow.parquet.ParquetFile(source).iter_batches(_BATCH):
                    yield from batch.to_pylist()
            return
        # Compression is told by the name: .gz is opened as such.
        with system.open_input_stream(name) as stream, io.TextIOWrapper(stream, "utf-8", newline="") as text:
            yield from csv.DictReader(text)
    except (OSError, UnicodeDecodeError, csv.Error, pyarrow.ArrowException) as error:
        raise TrainingError("HistoryUnreadable", f"{name} can't be read: {error}") from error


def _label(row: Mapping[str, Any], name: str) -> bool | None:
    text = str(row.get(name, "")).strip().lower()
    return True if text in _TRUE else False if text in _FALSE else None


def _known_ms(value: Any) -> int | None:
    """Optional column: milliseconds, or a time of a Parquet file."""
    if isinstance(value, datetime):
        return int(value.timestamp() * 1000) if value.tzinfo else None
    text = str(value)
    return int(text) if text.isdecimal() else None


class _Importer:
    def __init__(self, spec: DetectorSpec, tokeniser: Tokeniser, now_ms: int) -> None:
        assert spec.model.train is not None
        self.schema = EventSchema(spec.event, spec.entities)
        self.label_field = spec.model.train.history.label_field
        self.delay = history_delay(spec.entities)
        self.tokeniser, self.now = tokeniser, now_ms
        self.out = History()
        self._seen: dict[str, str] = {}
        # A detector that declares the column as its own may mean anything by it, a secret even.
        declared = {*spec.event.sensitive, *(f.name for f in spec.event.fields)}
        self._pattern = None if PATTERN in declared else PATTERN

    def refuse(self, reason: str, where: str, message: str) -> None:
        self.out.refused[reason] += 1
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
        known: int | None = event["time"] + self.delay
        if row.get(KNOWN) not in (None, ""):
            known = _known_ms(row[KNOWN])
        if known is None or known < event["time"]:
            self.refuse("invalid_known", where, f"{KNOWN} must be milliseconds, not before the event")
            return
        digest = self.schema.hash(event)
        before = self._seen.get(event["id"])
        if before is not None:
            self.refuse("repeat" if before == digest else "id_reused", where, "the id was seen before")
            return
        self._seen[event["id"]] = digest
        self.out.events.append(event)
        self.out.fraud.append(fraud)
        self.out.known.append(known)
        self.out.decided.append(None)
        self.out.pattern.append(str(row.get(self._pattern) or "") if self._pattern else "")


def load(
    spec: DetectorSpec, storage_uri: str, tokeniser: Tokeniser, now_ms: int, required: bool = True
) -> History:
    """All files' history of a detector in order of time; TrainingError where there is none that can be used.

    Not ``required``: then it is empty.
    """
    assert spec.model.train is not None
    try:
        system, names = locate(storage_uri, spec.model.train.history.path)
    except TrainingError as error:
        if required or error.reason != "NoHistory":
            raise
        return History()
    importer = _Importer(spec, tokeniser, now_ms)
    out = importer.out
    for name in names:
        count = 0
        short = name.rsplit("/", 1)[-1]
        for count, row in enumerate(rows(system, name), start=1):
            importer.take(row, f"{short} row {count}")
        out.files[short] = count
        LOG.info("history file read", extra={"data": {"file": short, "rows": count}})
    if out.refused:
        told = {"refused": dict(out.refused), "examples": out.examples}
        LOG.warning("history rows refused", extra={"data": told})
    if not out.events and required:
        raise TrainingError(
            "NoHistory", f"no row of the history could be used: {dict(out.refused)} {out.examples}"
        )
    # Many values are no kinds of fraud.
    if len(set(out.pattern)) > _MOST_PATTERNS:
        out.pattern = [""] * len(out.pattern)
    out.sort()
    return out
