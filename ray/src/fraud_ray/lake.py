"""The platform's own decisions and labels, read from the lake: rows to learn from beside the history's files.

A decision carries the vector that it was made on; training learns from that vector. Of each id the first
decision counts, and the label that became known last. Earlier labels still count in features: a feature reads
the label that stood at its time.
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
from fraud_contracts.lineage import HISTORY
from fraud_contracts.records import Event
from fraud_contracts.training_end import EndReason
from fraud_ray.cut import Cut
from fraud_ray.errors import TrainingError

LOG = logging.getLogger(__name__)
ReadTo = dict[str, dict[str, int]]
_PLACE: Final = ["id", "topic", "topic_id", "partition", "offset", "appended"]
_DECISION: Final = [*_PLACE, "set", "vector", "degraded", "record"]
_LABEL: Final = [*_PLACE, "fraud", "source", "claimed", "known", "time", "entities"]


@dataclass(frozen=True)
class DecidedEvent:
    """An event of the lake. ``vector`` is None where it was decided without a vector or without profiles."""

    event: Event
    vector: list[float | None] | None
    set: str


@dataclass
class LakeSnapshot:
    """What was read from the lake at one moment.

    ``labels`` holds every label of these decisions in the order of ``known``; ``standing`` the last one per
    id. ``read_to`` and ``digests`` name the rows per table, so that the same rows can be read again.
    """

    decided: dict[str, DecidedEvent] = field(default_factory=dict)
    labels: list[dict[str, Any]] = field(default_factory=list)
    standing: dict[str, dict[str, Any]] = field(default_factory=dict)
    labels_without_decision: int = 0
    read_to: ReadTo = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)


def _rows(
    config: DetectorConfig,
    name: str,
    columns: list[str],
    upto: Mapping[str, int] | None,
    snapshot: LakeSnapshot,
) -> list[dict[str, Any]]:
    """Rows of a table as it is now, or those that a recorded snapshot held; none where there is no table yet.

    Writes the table's ``read_to`` and digest into ``snapshot``.
    """
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
    manifest = lake_snapshot.manifest(table, name, group, topic, config.kafka.partitions)
    first = next(iter(lake_snapshot.topic_ids(table, topic)), "")
    # Columns that an older table lacks are nulls.
    present = {column.name for column in table.schema().fields}
    rows = table.to_pyarrow_table(columns=[column for column in columns if column in present]).to_pylist()
    read_to = manifest["read_to"] if upto is None else dict(upto)
    offsets = lake_snapshot.named(read_to, first)
    kept = [{**dict.fromkeys(columns), **row} for row in rows if lake_snapshot.within(offsets, row, first)]
    if upto is not None and any(manifest["read_to"].get(place, 0) < at for place, at in offsets.items()):
        raise TrainingError(EndReason.SNAPSHOT_GONE, f"{uri} holds less than when the model was made")
    snapshot.read_to[name], snapshot.digests[name] = read_to, lake_snapshot.digest(name, len(kept), read_to)
    return kept


def _left_out(cut: Cut, nouns: Mapping[str, str], place: Mapping[str, Any], appended: int | None) -> bool:
    noun = nouns.get(place.get("topic", ""))
    return noun is not None and cut.leaves_out(noun, place["partition"], place["offset"], appended)


def _decided_event(row: Mapping[str, Any], event: Event) -> DecidedEvent:
    # Without profiles everybody looks like a new customer: the decision was made so, but a model must not
    # learn it.
    without_profiles = any(str(mark).startswith("profiles") for mark in row["degraded"] or ())
    return DecidedEvent(event, None if without_profiles else row["vector"], str(row["set"]))


def read(
    config: DetectorConfig, as_of: int, upto: ReadTo | None = None, cut: Cut | None = None
) -> LakeSnapshot:
    """Decisions, and the labels that were known by ``as_of``.

    ``upto``: the ``read_to`` of a recorded snapshot, to read that snapshot's rows. ``cut``: what it leaves to the stream isn't read.
    """
    snapshot = LakeSnapshot()
    try:
        decisions = _rows(
            config,
            lake.DECISIONS,
            _DECISION,
            None if upto is None else upto.get(lake.DECISIONS, {}),
            snapshot,
        )
        labels = _rows(
            config, lake.LABELS, _LABEL, None if upto is None else upto.get(lake.LABELS, {}), snapshot
        )
    except (DeltaError, OSError) as error:
        raise TrainingError(EndReason.LAKE_UNREADABLE, f"the lake can't be read: {error}") from error
    nouns = {config.identity.topic(noun): noun for noun in HISTORY}
    for row in lake_snapshot.standing_decisions(decisions):
        record = orjson.loads(row["record"])
        source = record.get("source") or {}
        if cut is None or not _left_out(cut, nouns, source, record.get("appended")):
            snapshot.decided[row["id"]] = _decided_event(row, record["event"])
    labels = [
        row
        for row in labels
        if row["known"] <= as_of and (cut is None or not _left_out(cut, nouns, row, row["appended"]))
    ]
    for row in sorted(labels, key=lambda one: (one["known"], one["topic"], one["partition"], one["offset"])):
        if row["id"] not in snapshot.decided:
            # The sink may write the decisions' table later than the labels'.
            snapshot.labels_without_decision += 1
            continue
        label = {name: row[name] for name in ("id", "time", "fraud", "source", "claimed", "known")}
        label["entities"] = dict(row["entities"])
        snapshot.labels.append(label)
        snapshot.standing[row["id"]] = label
    LOG.info(
        "lake read",
        extra={
            "data": {
                "decisions": len(snapshot.decided),
                "labels": len(snapshot.labels),
                "strays": snapshot.labels_without_decision,
            }
        },
    )
    return snapshot
