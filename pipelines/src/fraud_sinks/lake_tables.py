"""The lake's tables: their columns, and how a record becomes a row. Each is partitioned by ``date``, a UTC day.

``decisions`` by the day of the decision: ``record`` is the whole decision as JSON, the other columns are for reading without
parsing it. ``vector`` is what was decided on; training reads it instead of computing it again.

``labels`` by the day on which the label became known: one row per label that the ledger joined, corrections beside what
they correct. Of one transaction the row that became known last holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

import orjson
import pyarrow as pa

from fraud_contracts import lake
from fraud_sinks.records import Record

_ORIGIN_FIELDS: Final = [
    ("topic", pa.string()),
    ("topic_id", pa.string()),
    ("partition", pa.int32()),
    ("offset", pa.int64()),
    ("appended", pa.int64()),
]
ORIGIN: Final = ("topic", "topic_id", "partition", "offset")
MAX_MS: Final = 32_503_680_000_000  # the year 3000
_ENTITIES: Final = pa.map_(pa.string(), pa.string())


@dataclass(frozen=True)
class LakeTable:
    """A table's columns and keys.

    ``key``: columns of which each combination is in one row only, within ``reach`` days around that row's. ``same``: columns
    in which a second record of a key equals the first where it is a repeat of it; else the two are in conflict.
    """

    name: str
    schema: pa.Schema
    row: Callable[[Record], dict[str, Any]]
    key: tuple[str, ...]
    same: tuple[str, ...] = ()
    reach: int = 0


def _day(ms: int) -> date:
    if not 0 <= ms < MAX_MS:
        raise ValueError("no time of this platform")
    return datetime.fromtimestamp(ms / 1000, UTC).date()


def _id(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("an id is text")
    return value


def _origin(record: Record) -> dict[str, Any]:
    """Where the row comes from, and when the log took it in (ms)."""
    return {
        "topic": record.topic,
        "topic_id": record.topic_id or None,
        "partition": record.partition,
        "offset": record.offset,
        "appended": record.appended,
    }


_SAME: Final = (
    "hash", "door", "decided", "set", "vector", "action", "score", "probability", "release", "model_version",
    "model_digest", "arm", "bucket", "degraded",
)  # fmt: skip


def _decision(record: Record) -> dict[str, Any]:
    """A decision as a row; KeyError, TypeError, ValueError or AttributeError where the record is none."""
    decision = orjson.loads(record.value or b"")
    event = decision["event"]
    return {
        **{name: decision.get(name) for name in _SAME},
        "date": _day(decision["decided"]),
        "id": _id(event["id"]),
        "time": event["time"],
        "amount": event["amount"],
        "currency": event.get("currency"),
        "entities": list(event["entities"].items()),
        "record": (record.value or b"").decode(),
        **_origin(record),
    }


def _label(record: Record) -> dict[str, Any]:
    label = orjson.loads(record.value or b"")
    return {
        "date": _day(label["known"]),
        "id": _id(label["id"]),
        "fraud": label["fraud"],
        "source": label["source"],
        "claimed": label["claimed"],
        "known": label["known"],
        "time": label["time"],
        "entities": list(label["entities"].items()),
        **_origin(record),
    }


DECISIONS: Final = LakeTable(
    lake.DECISIONS,
    pa.schema(
        [
            ("date", pa.date32()),
            ("id", pa.string()),
            ("hash", pa.string()),
            ("door", pa.string()),
            ("time", pa.int64()),
            ("decided", pa.int64()),
            ("amount", pa.int64()),
            ("currency", pa.string()),
            ("entities", _ENTITIES),
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
            *_ORIGIN_FIELDS,
        ]
    ),
    _decision,
    key=("id",),
    same=_SAME,
    # A claim lives for a day: until then a resend has the first decision and its day. Two days of reach also cover an id that
    # was decided again after its claim expired. A later one is among the ledger's conflicts, and readers take the first.
    reach=2,
)
# After a crash between broker and database the ledger publishes a label again; the table holds it once.
LABELS: Final = LakeTable(
    lake.LABELS,
    pa.schema(
        [
            ("date", pa.date32()),
            ("id", pa.string()),
            ("fraud", pa.bool_()),
            ("source", pa.string()),
            ("claimed", pa.int64()),
            ("known", pa.int64()),
            ("time", pa.int64()),
            ("entities", _ENTITIES),
            *_ORIGIN_FIELDS,
        ]
    ),
    _label,
    key=("date", "id", "fraud", "source", "claimed", "known"),
)
