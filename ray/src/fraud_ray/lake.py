"""What the platform itself has decided and been told, out of the lake: rows to learn from beside the history's files.

A decision comes with the vector that it was made on, and that is what training reads. Of each id the first decision counts
and the label that became known last; earlier labels still reach the features that were computed while they stood.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from fraud_contracts import lake, lake_snapshot
from fraud_contracts.config import DetectorConfig
from fraud_contracts.records import Event
from fraud_contracts.training_end import EndReason
from fraud_ray.errors import TrainingError

LOG = logging.getLogger(__name__)
ReadTo = dict[str, dict[str, int]]
_PLACE: Final = ["id", "topic", "topic_id", "partition", "offset", "appended"]
_DECISION: Final = [*_PLACE, "set", "vector", "degraded", "record"]
_LABEL: Final = [*_PLACE, "fraud", "source", "claimed", "known", "time", "entities"]


@dataclass(frozen=True)
class Decided:
    """``vector`` is None where the decision was made without one, or on profiles that weren't there."""

    event: Event
    vector: list[float | None] | None
    set: str


@dataclass
class Lake:
    """``labels`` holds every label of these decisions by the time it was known; ``standing`` the last one per id.

    ``read_to`` and ``digests`` name the rows per table, so that the same can be read again.
    """

    decided: dict[str, Decided] = field(default_factory=dict)
    labels: list[dict[str, Any]] = field(default_factory=list)
    standing: dict[str, dict[str, Any]] = field(default_factory=dict)
    strays: int = 0
    read_to: ReadTo = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)


def _rows(
    config: DetectorConfig, name: str, columns: list[str], upto: Mapping[str, int] | None, found: Lake
) -> list[dict[str, Any]]:
    """Rows of a table as it is now, or those that a recorded snapshot held; none where there is no table yet."""
    uri = lake.table(config.storage_uri, name)
    try:
        table = DeltaTable(uri, storage_options=lake.storage_options(uri, os.environ))
    except TableNotFoundError:
        if upto:
            raise TrainingError(
                EndReason.SNAPSHOT_GONE, f"{uri} isn't there, but was when the model was made"
            ) from None
        return []
    group, topic = config.identity.group("lake-sink"), config.identity.topic(name)
    told = lake_snapshot.manifest(table, name, group, topic, config.kafka.partitions)
    first = next(iter(lake_snapshot.topic_ids(table, topic)), "")
    # Columns that an older table lacks are nulls.
    there = {one.name for one in table.schema().fields}
    rows = table.to_pyarrow_table(columns=[column for column in columns if column in there]).to_pylist()
    read_to = told["read_to"] if upto is None else dict(upto)
    named = lake_snapshot.named(read_to, first)
    kept = [{**dict.fromkeys(columns), **row} for row in rows if lake_snapshot.within(named, row, first)]
    if upto is not None and any(told["read_to"].get(place, 0) < at for place, at in named.items()):
        raise TrainingError(EndReason.SNAPSHOT_GONE, f"{uri} holds less than when the model was made")
    found.read_to[name], found.digests[name] = read_to, lake_snapshot.digest(name, len(kept), read_to)
    return kept


def _decided(row: Mapping[str, Any]) -> Decided:
    event: Event = orjson.loads(row["record"])["event"]
    # A default profile makes everybody a new customer: true to the decision, but nothing to learn from.
    blind = any(str(what).startswith("profiles") for what in row["degraded"] or ())
    return Decided(event, None if blind else row["vector"], str(row["set"]))


def read(config: DetectorConfig, as_of: int, upto: ReadTo | None = None) -> Lake:
    """Decisions and labels; what became known after ``as_of`` isn't known. ``upto``: a recorded snapshot's ``read_to``."""
    found = Lake()
    try:
        decisions = _rows(
            config, lake.DECISIONS, _DECISION, None if upto is None else upto.get(lake.DECISIONS, {}), found
        )
        labels = _rows(
            config, lake.LABELS, _LABEL, None if upto is None else upto.get(lake.LABELS, {}), found
        )
    except (DeltaError, OSError) as error:
        raise TrainingError(EndReason.LAKE_UNREADABLE, f"the lake can't be read: {error}") from error
    for row in lake_snapshot.standing_decisions(decisions):
        found.decided[row["id"]] = _decided(row)
    labels = [row for row in labels if row["known"] <= as_of]
    for row in sorted(labels, key=lambda one: (one["known"], one["topic"], one["partition"], one["offset"])):
        if row["id"] not in found.decided:
            found.strays += 1  # the decision is on its way: its own table is written apart
            continue
        label = {name: row[name] for name in ("id", "time", "fraud", "source", "claimed", "known")}
        label["entities"] = dict(row["entities"])
        found.labels.append(label)
        found.standing[row["id"]] = label
    LOG.info(
        "lake read",
        extra={
            "data": {"decisions": len(found.decided), "labels": len(found.labels), "strays": found.strays}
        },
    )
    return found
