"""Which data a lake table holds at one version: what a training run records, and how the same rows are read again.

Rows of the lake never change (but for an id that came with two decisions), and each carries its place in Kafka. So the
offsets up to which the topics had been read name a snapshot for ever, whatever happens to its files: compaction replaces
small files by new ones, and replaced files are deleted after a week.

A recreated topic has offsets from 0 again, so its id belongs to the place: ``topic/partition/id``. A property of the table
lists the ids that a topic's name has had. Rows, offsets and snapshots from before ids were kept are of the first id; a
broker without topic ids has none.

Tables are those of the ``deltalake`` package; nothing is imported from it here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict


class LakeFile(TypedDict):
    path: str
    rows: int
    bytes: int


class Manifest(TypedDict):
    """``read_to``: per ``topic/partition/id`` the offset after the last record. ``digest`` names the rows, not the files."""

    table: str
    version: int
    rows: int
    bytes: int
    read_to: dict[str, int]
    digest: str
    files: list[LakeFile]


def digest(name: str, rows: int, read_to: Mapping[str, int]) -> str:
    named = json.dumps([name, rows, dict(read_to)], sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(named.encode()).hexdigest()


def topic_ids(table: Any, topic: str) -> list[str]:
    """The ids that the topic of this name has had, the oldest first."""
    return [
        one for one in table.metadata().configuration.get(topic_ids_property(topic), "").split(",") if one
    ]


def topic_ids_property(topic: str) -> str:
    return f"fraud.topicIds.{topic}"


def place(topic: str, partition: int, topic_id: str = "") -> str:
    return f"{topic}/{partition}/{topic_id}" if topic_id else f"{topic}/{partition}"


def following(table: Any, application: str, topic: str, partition: int, topic_id: str) -> int | None:
    """The offset after the last record that the table holds; None where it has none of this place."""
    at: int | None = table.transaction_version(f"{application}/{place(topic, partition, topic_id)}")
    if at is None and topic_ids(table, topic)[:1] == [topic_id]:
        at = table.transaction_version(f"{application}/{place(topic, partition)}")
    return at


def manifest(table: Any, name: str, application: str, topic: str, partitions: int) -> Manifest:
    """The manifest of an open table at the version at which it is open. ``application`` is the sink's group."""
    files: list[LakeFile] = []
    actions = table.get_add_actions(flatten=True)
    columns = [actions.column(column).to_pylist() for column in ("path", "num_records", "size_bytes")]
    for path, rows, size in sorted(zip(*columns, strict=True)):
        files.append({"path": path, "rows": rows, "bytes": size})
    read_to = {
        place(topic, partition, topic_id): at
        for topic_id in topic_ids(table, topic) or [""]
        for partition in range(partitions)
        if (at := following(table, application, topic, partition, topic_id)) is not None
    }
    rows = sum(one["rows"] for one in files)
    return {
        "table": name,
        "version": table.version(),
        "rows": rows,
        "bytes": sum(one["bytes"] for one in files),
        "read_to": read_to,
        "digest": digest(name, rows, read_to),
        "files": files,
    }


def named(read_to: Mapping[str, int], first: str) -> dict[str, int]:
    """``read_to`` with the topic's ``first`` id added to places that were recorded without an id."""
    return {f"{at}/{first}" if first and at.count("/") == 1 else at: upto for at, upto in read_to.items()}


def within(read_to: Mapping[str, int], row: Mapping[str, Any], first: str = "") -> bool:
    """Whether a row belongs to the snapshot with this ``read_to``; ``first``: the first id of the topic's name."""
    at = place(row["topic"], row["partition"], row.get("topic_id") or first)
    return bool(row["offset"] < read_to.get(at, 0))


def standing_decisions(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each id the decision that stands, as in the ledger: the one that the log took first. Ids keep the input's order.

    A second decision of an id is a conflict, which the ledger lists in ``decision_conflicts``.
    """
    first: dict[str, tuple[Any, ...]] = {}
    standing: dict[str, dict[str, Any]] = {}
    for row in rows:
        age = (row["appended"] or 0, row["topic"], row["partition"], row["offset"])
        if row["id"] not in first or age < first[row["id"]]:
            first[row["id"]], standing[row["id"]] = age, row
    return list(standing.values())
