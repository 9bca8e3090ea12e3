"""What the ledger reads: decisions and label reports, judged and put in the form of its rows. No I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import orjson

from fraud_contracts.records import Label
from fraud_sinks.ledger_conflicts import Told
from fraud_sinks.records import Record

MAX_ID: Final = 200
MAX_TIME: Final = 2**53
VERDICTS: Final = {"fraud": True, "legitimate": False}

# What the audit adds after the decision; a repeat of one decision may carry other values here and is no conflict.
_AUDIT: Final = frozenset({"shadow", "streamed", "parity", "source", "appended"})


class UnfitError(ValueError):
    """A record that the ledger can't hold as what its topic promises; it is kept as bytes with this reason."""


class DecisionRow(NamedTuple):
    """``told.record`` is JSON text; ``told.raw`` the original bytes where PostgreSQL's jsonb can't hold them (U+0000)."""

    id: str
    door: str
    told: Told


class Report(NamedTuple):
    """A label report. Reports of one transaction are ordered by ``age``: when the log took them in."""

    id: str
    fraud: bool
    source: str
    claimed: int
    known: int
    topic: str
    lineage: int
    partition: int
    offset: int

    @property
    def age(self) -> tuple[int, str, int, int, int]:
        return self.known, self.topic, self.lineage, self.partition, self.offset


def _object(record: Record) -> dict[str, Any]:
    try:
        found = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError as error:
        raise UnfitError("no valid JSON") from error
    if not isinstance(found, dict):
        raise UnfitError("no JSON object")
    return found


def _id(value: Any) -> str:
    """As the door takes ids: text or an integer, printable and short. Anything else can't be a transaction's."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID or not value.isprintable():
        raise UnfitError("id must be 1 to 200 printable characters")
    return value


def decision(record: Record, first_entity: str, lineage: int = 0) -> DecisionRow:
    found = _object(record)
    event = found.get("event")
    if not isinstance(event, dict) or not isinstance(event.get("entities"), dict):
        raise UnfitError("no decision: event.entities is missing")
    if not readable(event["entities"]):
        raise UnfitError("no decision: event.entities must be text or null")
    for name in ("action", "decided", "door"):
        if found.get(name) is None:
            raise UnfitError(f"no decision: {name} is missing")
    assert record.value is not None
    decided = {name: value for name, value in found.items() if name not in _AUDIT}
    text, raw = record.value.decode(), None
    if "\\u0000" in text:
        raw, text = record.value, orjson.dumps(_without_nul(found)).decode()
    return DecisionRow(
        _id(found.get("id")),
        str(found["door"]),
        Told(
            content=hashlib.sha256(orjson.dumps(decided, option=orjson.OPT_SORT_KEYS)).digest(),
            hash=found.get("hash"),
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


def report(record: Record, sources: frozenset[str], lineage: int = 0) -> Report:
    """``known`` is the append time: what the log says, not what the sender claims."""
    found = _object(record)
    verdict = found.get("label")
    if not isinstance(verdict, str) or verdict not in VERDICTS:
        raise UnfitError("label must be fraud or legitimate")
    source = found.get("source")
    if not isinstance(source, str) or source not in sources:
        raise UnfitError("source is none of the detector's labels.sources")
    claimed = found.get("claimed")
    if claimed is None:
        claimed = record.appended
    if not isinstance(claimed, int) or isinstance(claimed, bool) or not 0 <= claimed < MAX_TIME:
        raise UnfitError("claimed must be UTC milliseconds")
    return Report(
        _id(found.get("id")),
        VERDICTS[verdict],
        source,
        claimed,
        record.appended,
        record.topic,
        lineage,
        record.partition,
        record.offset,
    )


def verdict(reports: Iterable[Report]) -> Report:
    """The report that stands: of the run of newest reports that agree, the first.

    The newest report decides what the transaction was. When it became known is when the first report of that run came:
    the stream counts a label from then on and ignores its confirmation, so training must too. The order of arrival
    doesn't matter.
    """
    newest_first = sorted(reports, key=lambda one: one.age, reverse=True)
    standing = newest_first[0]
    for one in newest_first:
        if one.fraud != standing.fraud:
            break
        standing = one
    return standing


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
