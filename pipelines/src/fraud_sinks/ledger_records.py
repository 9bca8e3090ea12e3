"""What the ledger reads: decisions and label reports, checked and turned into its rows. No I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import orjson

from fraud_contracts.detector_event import LabelKind
from fraud_contracts.errors import EventError
from fraud_contracts.event_values import identifier
from fraud_contracts.label_report import ReportError, parse_report
from fraud_contracts.records import Label
from fraud_sinks.ledger_conflicts import DecisionEntry
from fraud_sinks.ledger_reports import ReportEntry
from fraud_sinks.records import Record

# What the audit adds after the decision; a repeat of one decision may carry other values here and is no conflict.
_AUDIT: Final = frozenset({"shadow", "streamed", "parity", "source", "appended"})


class UnfitError(ValueError):
    """A record that is not what its topic promises; the message is the reason with which it is kept in ``rejected``."""


class DecisionRow(NamedTuple):
    """``entry.record`` is JSON text; ``entry.raw`` the original bytes where PostgreSQL's jsonb can't hold them (U+0000)."""

    id: str
    door: str
    entry: DecisionEntry


def _object(record: Record) -> dict[str, Any]:
    try:
        document = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError as error:
        raise UnfitError("no valid JSON") from error
    if not isinstance(document, dict):
        raise UnfitError("no JSON object")
    return document


def _id(value: Any) -> str:
    try:
        return identifier(value, "id")
    except EventError as error:
        raise UnfitError(error.message) from error


def decision(record: Record, first_entity: str, lineage: int = 0) -> DecisionRow:
    document = _object(record)
    event = document.get("event")
    if not isinstance(event, dict) or not isinstance(event.get("entities"), dict):
        raise UnfitError("no decision: event.entities is missing")
    if not readable(event["entities"]):
        raise UnfitError("no decision: event.entities must be text or null")
    for name in ("action", "decided", "door"):
        if document.get(name) is None:
            raise UnfitError(f"no decision: {name} is missing")
    assert record.value is not None
    decided = {name: value for name, value in document.items() if name not in _AUDIT}
    text, raw = record.value.decode(), None
    if "\\u0000" in text:
        raw, text = record.value, orjson.dumps(_without_nul(document)).decode()
    return DecisionRow(
        _id(document.get("id")),
        str(document["door"]),
        DecisionEntry(
            content=hashlib.sha256(orjson.dumps(decided, option=orjson.OPT_SORT_KEYS)).digest(),
            hash=document.get("hash"),
            written=record.appended,
            topic=record.topic,
            lineage=lineage,
            partition=record.partition,
            offset=record.offset,
            record=text,
            raw=raw,
            entity=event["entities"].get(first_entity),
        ),
    )


def readable(entities: Any) -> bool:
    """Whether these are entities, as events and labels have them."""
    return isinstance(entities, dict) and all(
        one is None or isinstance(one, str) for one in entities.values()
    )


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(item) for key, item in value.items()}
    return value


def report(record: Record, kinds: Mapping[str, LabelKind], lineage: int = 0) -> ReportEntry:
    """``kinds`` are of the detector's sources; ``known`` is the append time: what the log says, not what the sender claims."""
    try:
        parsed = parse_report(record.value or b"", kinds, record.appended)
    except (EventError, ReportError) as error:
        raise UnfitError(error.message) from error
    return ReportEntry(
        parsed.id,
        parsed.fraud,
        parsed.source,
        record.appended if parsed.claimed is None else parsed.claimed,
        record.appended,
        record.topic,
        lineage,
        record.partition,
        record.offset,
    )


def label(row: dict[str, Any]) -> Label:
    """The record for the ``labels`` topic."""
    return {
        "id": row["id"],
        "time": row["time"],
        "entities": row["entities"],
        "fraud": row["fraud"],
        "source": row["source"],
        "claimed": row["claimed"],
        "known": row["known"],
    }
