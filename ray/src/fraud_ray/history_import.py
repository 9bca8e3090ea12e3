"""Rows of history become canonical events with labels, as columns. A refused row is counted under its reason.

Rows go through the code that validates live transactions. Whether an id came before is looked for when all rows are there: to
know the ids while reading would take more memory than the rows themselves.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import pyarrow
from numpy.typing import NDArray

from fraud_contracts.detector import DetectorSpec
from fraud_contracts.errors import EventError
from fraud_contracts.event_values import MAX_TIME
from fraud_contracts.standing_label import standing_label
from fraud_pipelines.events import EPOCH, FALSE_WORDS, TRUE_WORDS, EventSchema, Tokeniser
from fraud_pipelines.labels import KNOWN, PATTERN, history_delay
from fraud_ray.columns import BATCH, EventBuilder, Ints, TextBuilder, first_equal
from fraud_ray.training_history import TrainingHistory

_NO_FRACTION: Final = re.compile(r"(?<=[0-9])\.0+\Z")
_MS: Final = re.compile(r"[0-9]{1,15}")
_EXAMPLES: Final = 5
_UNDATED: Final = -1
_MOST_PATTERNS: Final = 20
_BODY: Final = 16  # bytes of a body's hash


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


class _Refusals:
    """Counts by reason, and the first examples in the order of files and lines, whenever each was found."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self._examples: list[tuple[tuple[int, int], str]] = []

    def add(self, reason: str, at: tuple[int, int], text: str, count: int = 1) -> None:
        """``at``: number of the file, and of the line or row in it."""
        self.count[reason] += count
        if len(self._examples) < _EXAMPLES or at < self._examples[-1][0]:
            self._examples = sorted([*self._examples, (at, text)])[:_EXAMPLES]

    def examples(self) -> list[str]:
        return [text for _, text in self._examples]


class Importer:
    """Call ``begin`` for each file, then ``refuse`` and ``take`` for its rows; ``finish`` gives the history."""

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
        self.refusals = _Refusals()
        self._files: list[tuple[str, str]] = []  # name, and what its rows are called
        self._starts: list[int] = []  # of each file, how many rows were taken before it
        self._events, self._patterns = EventBuilder(spec), TextBuilder()
        self._known, self._lines = array("q"), array("q")
        self._fraud, self._dated, self._bodies = bytearray(), bytearray(), bytearray()
        # Where the detector declares the column, its values may be anything, even secret.
        declared = {*event.sensitive, *(f.name for f in event.fields)}
        self._pattern = None if PATTERN in declared else PATTERN

    def __len__(self) -> int:
        """Rows that were taken so far, those of ids that came before too."""
        return len(self._events)

    def begin(self, name: str, unit: str) -> None:
        """From now on rows of this file come, each called a ``unit``."""
        self._files.append((name, unit))
        self._starts.append(len(self))

    def refuse(self, reason: str, number: int, message: str, count: int = 1) -> None:
        self._refuse(reason, len(self._files) - 1, number, message, count)

    def _refuse(self, reason: str, file: int, number: int, message: str, count: int = 1) -> None:
        name, unit = self._files[file]
        self.refusals.add(reason, (file, number), f"{name} {unit} {number}: {message}", count)

    def take(self, row: Mapping[str, Any], number: int) -> None:
        try:
            event = self.schema.canonical(row, self.tokeniser, self.now)
        except EventError as error:
            self.refuse(str(error.reason), number, error.message)
            return
        fraud = _label(row, self.label_field)
        if fraud is None:
            self.refuse("invalid_label", number, f"{self.label_field} must be 1 or 0")
            return
        dated = not _is_empty(row.get(KNOWN))
        known_at = _utc_ms(row[KNOWN]) if dated else event["time"] + self.delay
        if known_at is None or known_at < event["time"]:
            self.refuse("invalid_known", number, f"{KNOWN} must be UTC milliseconds, not before the event")
            return
        self._fraud.append(fraud)
        self._dated.append(dated)
        self._known.append(known_at)
        self._lines.append(number)
        self._bodies += bytes.fromhex(self.schema.hash(event))
        self._patterns.append(str(row.get(self._pattern) or "") if self._pattern else "")
        self._events.add(event)
        if len(self) % BATCH == 0:
            self._patterns.flush()

    def _again(self, rows: Sequence[int], first: Ints) -> dict[int, list[RowLabel]]:
        """Refuses rows whose id an earlier row had; -> by that row the labels of those with its body, in the rows' order."""
        further: dict[int, list[RowLabel]] = {}
        body = _BODY
        for row in rows:
            base, number, file = int(first[row]), self._lines[row], bisect_right(self._starts, row) - 1
            if self._bodies[row * body : (row + 1) * body] != self._bodies[base * body : (base + 1) * body]:
                self._refuse("id_reused", file, number, "the id was seen before with another body")
                continue
            labels = further.setdefault(base, [])
            fraud = bool(self._fraud[row])
            before = labels[-1][1] if labels else bool(self._fraud[base])
            labels.append((self._known[row] if self._dated[row] else _UNDATED, fraud))
            if before == fraud:
                self._refuse("repeat", file, number, "the id was seen before")
            else:
                message = "the id was seen before with another label; the later word holds"
                self._refuse("label_changed", file, number, message)
        return further

    def finish(self) -> TrainingHistory:
        """The imported history in order of time, each payment with the label that stands."""
        events, patterns = self._events.columns(), self._patterns.column()
        fraud: NDArray[np.bool_] = np.array(self._fraud, np.bool_)
        known_at = np.array(self._known, np.int64)
        first = first_equal(pyarrow.chunked_array([events.ids]), events.hashes)
        own = first == np.arange(len(first))
        for base, labels in self._again(np.flatnonzero(~own).tolist(), first).items():
            of_base = (int(known_at[base]) if self._dated[base] else _UNDATED, bool(fraud[base]))
            fraud[base], known_at[base] = _standing_label(
                [of_base, *labels], int(events.time[base]) + self.delay
            )
        rows = np.flatnonzero(own)
        # By time; of equal times the files' order stays.
        rows = rows[np.argsort(events.time[rows], kind="stable")]
        events.take(rows)
        patterns = patterns.take(pyarrow.array(rows))
        # A column of so many values doesn't name kinds of fraud.
        if len(patterns.unique()) > _MOST_PATTERNS:
            patterns = pyarrow.nulls(len(rows), patterns.type)
        nothing = np.zeros(0, np.int64)
        return TrainingHistory(
            events=events,
            fraud=fraud[rows],
            known_at=known_at[rows],
            pattern=patterns,
            decided=np.full(len(rows), -1, np.int64),
            told=(nothing, np.zeros(0, np.bool_), nothing),
            refused=self.refusals.count,
            examples=self.refusals.examples(),
        )
