"""Import of history: files with a detector's own field names are read row by row.

Refused rows are counted under their reasons, and the card shows the counts. A file that isn't the table that the detector names is
an error.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pyarrow
import pyarrow.parquet
from pyarrow import fs

from fraud_contracts import csv_rows
from fraud_contracts.csv_rows import RefusedLines, TableError
from fraud_contracts.detector import DetectorSpec
from fraud_contracts.training_end import EndReason
from fraud_pipelines.events import Tokeniser
from fraud_ray.columns import BATCH
from fraud_ray.errors import TrainingError
from fraud_ray.history_files import PARQUET, locate
from fraud_ray.history_import import Importer
from fraud_ray.training_history import TrainingHistory

LOG = logging.getLogger(__name__)
# What is read of a Parquet column at once: a row group may have a million rows.
_BUFFER: Final = 2**20
# What pyarrow raises for a value that Python has no form for: of dates, durations, zones, text, nested names.
_BEYOND_PYTHON: Final = (ValueError, OverflowError, LookupError, pyarrow.ArrowException)


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


def unit(name: str) -> str:
    """What a place in a file is called."""
    return "row" if name.endswith(PARQUET) else "line"


def rows(
    system: fs.FileSystem, name: str, path: str, needed: Sequence[str], optional: Sequence[str]
) -> Iterator[tuple[int, Mapping[str, Any] | RefusedLines]]:
    """(number, row or the refused lines) of one file: text cells from CSV, typed ones from Parquet. ``unit`` says what is numbered.

    TrainingError where the file can't be read or lacks a ``needed`` column. Parquet columns that are neither
    needed nor ``optional`` aren't read.
    """
    number = 0
    try:
        if name.endswith(PARQUET):
            with system.open_input_file(path) as source:
                file = pyarrow.parquet.ParquetFile(source, buffer_size=_BUFFER)
                names = file.schema_arrow.names
                csv_rows.check_columns(names, needed)
                columns = [column for column in names if column in needed or column in optional]
                # Parquet takes a nested column's path for a name, too.
                for batch in file.iter_batches(BATCH, columns=columns):
                    for row in _typed_rows(batch.select(columns)):
                        number += 1
                        yield number, row
            return
        # pyarrow tells the compression by the name's suffix (.gz).
        with (
            system.open_input_stream(path) as stream,
            io.TextIOWrapper(stream, csv_rows.ENCODING, newline="") as text,
        ):
            for number, cells in csv_rows.rows(text, needed):
                yield number, cells
    except TableError as error:
        raise TrainingError(EndReason.HISTORY_UNREADABLE, f"{name} {error}") from error
    except (OSError, UnicodeDecodeError, pyarrow.ArrowException) as error:
        after = f" after {unit(name)} {number}" if number else ""
        raise TrainingError(EndReason.HISTORY_UNREADABLE, f"{name} can't be read{after}: {error}") from error


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
        return TrainingHistory.empty(spec)
    importer = Importer(spec, tokeniser, now_ms)
    files: dict[str, int] = {}
    for name, path in paths.items():
        count = 0
        importer.begin(name, unit(name))
        for number, row in rows(system, name, path, importer.needed, importer.optional):
            if isinstance(row, RefusedLines):
                importer.refuse(row.reason, number, row.message, row.count)
                count += row.count
            else:
                importer.take(row, number)
                count += 1
        files[name] = count
        LOG.info("history file read", extra={"data": {"file": name, "rows": count}})
    imported = importer.finish()
    imported.files = files
    if imported.refused:
        refusals = {"refused": dict(imported.refused), "examples": imported.examples}
        LOG.warning("history rows refused", extra={"data": refusals})
    if not len(imported.events) and required:
        raise TrainingError(
            EndReason.NO_HISTORY,
            f"no row of the history could be used: rows {imported.files}, "
            f"refused {dict(imported.refused)} {imported.examples}",
        )
    return imported
