"""Turns one file of labelled transactions into history for training and live traffic, shifted so that live means now.

Pure but for reading and writing the files that it is given. All times move by one constant, so gaps, hours between
events and every window stay what they were.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from fraud_contracts import csv_rows

CsvRow = dict[str, str]

MALFORMED_KINDS = (
    "cut_json", "not_an_object", "missing_id", "empty_id", "text_amount", "negative_amount",
    "missing_first_entity", "far_future", "invalid_utf8", "boolean_amount",
)  # fmt: skip


class DataError(Exception):
    """The history file doesn't hold what the detector's spec names."""


@dataclass(frozen=True)
class Shape:
    """The few facts of a FraudDetector's spec that reading its transactions needs."""

    id_field: str
    time_field: str
    time_unit: str
    amount_field: str
    entity_fields: tuple[str, ...]
    numbers: frozenset[str]
    label_field: str
    history_path: str

    @classmethod
    def of(cls, spec: dict[str, Any]) -> Shape:
        event = spec["event"]
        train = spec.get("model", {}).get("train", {})
        history = train.get("history", {})
        numeric = {f["name"] for f in event.get("fields", []) if f.get("type") in ("integer", "number")}
        return cls(
            id_field=event["id"]["field"],
            time_field=event["time"]["field"],
            time_unit=event["time"].get("unit", "ms"),
            amount_field=event["amount"]["field"],
            entity_fields=tuple(entity["field"] for entity in spec["entities"]),
            numbers=frozenset(numeric),
            label_field=history.get("labelField", "is_fraud"),
            history_path=history.get("path", "history/"),
        )

    def needed(self) -> tuple[str, ...]:
        return (self.id_field, self.time_field, self.amount_field, self.label_field, *self.entity_fields)


def read_rows(path: Path, shape: Shape) -> list[CsvRow]:
    """All rows of a CSV file (plain or gzip) in time order; DataError names a missing column, or the line of a bad row."""
    opener = gzip.open if path.suffix == ".gz" else open
    rows: list[CsvRow] = []
    try:
        with opener(path, "rt", newline="", encoding=csv_rows.ENCODING) as stream:
            for line, row in csv_rows.rows(stream, shape.needed()):
                if isinstance(row, csv_rows.RefusedLines):
                    raise DataError(f"{path.name} line {line}: {row.message}")
                fault = _fault(row, shape)
                if fault is not None:
                    raise DataError(f"{path.name} line {line}: {fault}")
                rows.append(row)
    except csv_rows.TableError as error:
        raise DataError(f"{path.name} {error}") from error
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path.name} can't be read: {error}") from error
    rows.sort(key=lambda row: time_ms(row, shape))
    return rows


def _fault(row: CsvRow, shape: Shape) -> str | None:
    """Why a row can't go live; its further entities and fields may be empty."""
    needed = (shape.id_field, shape.time_field, shape.amount_field, shape.entity_fields[0])
    for name in needed:
        if not row[name]:
            return f"{name} is empty"
    try:
        time_ms(row, shape)
    except (ValueError, OverflowError):
        return f"{shape.time_field} is no time"
    for name in (shape.amount_field, *sorted(shape.numbers)):
        try:
            json.loads(row.get(name) or "0")
        except ValueError:
            return f"{name} is no number"
    return None


def check_outside(path: Path, emptied: Path) -> None:
    """DataError where a file that is to be read lies in a folder that is emptied first."""
    if path.resolve().is_relative_to(emptied.resolve()):
        raise DataError(f"{path} lies in {emptied}, which is emptied first: give a copy from elsewhere")


def time_ms(row: CsvRow, shape: Shape) -> int:
    text = row[shape.time_field]
    if shape.time_unit == "rfc3339":
        return int(datetime.fromisoformat(text).timestamp() * 1000)
    return int(text) * (1000 if shape.time_unit == "s" else 1)


def shift(rows: list[CsvRow], shape: Shape, now_ms: int) -> int:
    """Moves all times in place so that the last row is at ``now_ms``; gives the constant in ms (whole seconds)."""
    constant = (now_ms - time_ms(rows[-1], shape)) // 1000 * 1000
    for row in rows:
        if shape.time_unit == "rfc3339":
            moved = datetime.fromisoformat(row[shape.time_field]) + timedelta(milliseconds=constant)
            row[shape.time_field] = moved.isoformat()
        else:
            row[shape.time_field] = str(
                int(row[shape.time_field]) + (constant // 1000 if shape.time_unit == "s" else constant)
            )
    return constant


def write_history(rows: list[CsvRow], path: Path) -> None:
    """Writes rows as gzip CSV, through a neighbour file so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    part = path.with_name(path.name + ".part")
    part.write_bytes(gzip.compress(text.getvalue().encode(), compresslevel=3))
    part.rename(path)


def payload(row: CsvRow, shape: Shape) -> dict[str, Any]:
    """The row as a client would send it: typed JSON, without empty cells and the label that nobody knows yet."""
    out: dict[str, Any] = {}
    for name, text in row.items():
        if name == shape.label_field or not text:
            continue
        if name == shape.amount_field or name in shape.numbers:
            out[name] = json.loads(text)
        elif name == shape.time_field and shape.time_unit != "rfc3339":
            out[name] = int(text)
        else:
            out[name] = text
    return out


def malformed(kind: str, good: dict[str, Any], shape: Shape, number: int) -> bytes:
    """One damaged record made from a good one; its id is its own, so that it can't be taken for the good one."""
    record: dict[str, Any] = {**good, shape.id_field: f"malformed-{number}"}
    if kind == "missing_id":
        del record[shape.id_field]
    elif kind == "empty_id":
        record[shape.id_field] = ""
    elif kind == "text_amount":
        record[shape.amount_field] = "12.50"
    elif kind == "negative_amount":
        record[shape.amount_field] = -1
    elif kind == "boolean_amount":
        record[shape.amount_field] = True
    elif kind == "missing_first_entity":
        del record[shape.entity_fields[0]]
    elif kind == "far_future":
        far = {"ms": 4_070_908_800_000, "s": 4_070_908_800, "rfc3339": "2099-01-01T00:00:00Z"}
        record[shape.time_field] = far[shape.time_unit]
    text = json.dumps(record).encode()
    if kind == "cut_json":
        return text[: len(text) // 2]
    if kind == "not_an_object":
        return json.dumps([record]).encode()
    if kind == "invalid_utf8":
        return text[:-1] + b', "note": "\xff\xfe"}'
    return text


def write_live(rows: list[CsvRow], shape: Shape, bad: int, within: int, path: Path) -> None:
    """Writes what the Pod sends, one JSON line each: door, id (null where malformed), kind, raw text in latin-1.

    Good rows go to the doors in turn; ``bad`` malformed ones lie evenly among the first ``within``, half for each door.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    every = max(1, min(within, len(rows)) // max(1, bad))
    malformed_written = 0
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=3) as stream:
        for number, row in enumerate(rows):
            good = payload(row, shape)
            door = ("inline", "stream")[number % 2]
            key = str(good[shape.entity_fields[0]])
            raw = json.dumps(good).encode()
            stream.write(_line(door, str(good[shape.id_field]), None, key, raw, row[shape.label_field]))
            if malformed_written < bad and number % every == every - 1:
                kind = MALFORMED_KINDS[malformed_written // 2 % len(MALFORMED_KINDS)]
                damaged = malformed(kind, good, shape, malformed_written)
                stream.write(_line(("inline", "stream")[malformed_written % 2], None, kind, key, damaged, ""))
                malformed_written += 1


def _line(door: str, event_id: str | None, kind: str | None, key: str, raw: bytes, label: str) -> str:
    line = {
        "door": door,
        "id": event_id,
        "malformed": kind,
        "key": key,
        "raw": raw.decode("latin-1"),
        "label": label,
    }
    return json.dumps(line) + "\n"


def due(line: dict[str, Any], held: list[dict[str, Any]], *, on_hold: bool) -> list[dict[str, Any]]:
    """What is to be sent now that it is this line's turn. On hold what goes by the topic stays in ``held``; all of that is due afterwards."""
    if on_hold and line["door"] == "stream":
        held.append(line)
        return []
    if on_hold:
        return [line]
    lines = [*held, line]
    held.clear()
    return lines
