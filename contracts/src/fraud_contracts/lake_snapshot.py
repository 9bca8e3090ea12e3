"""Which data a lake table holds at one version: what a training run records, and how the same rows are found again.

Rows of the lake never change, and each carries its place in Kafka. So the offsets up to which the topics had been read
name a snapshot for ever, whatever became of its files since: putting small files together gives new ones, and
replaced ones go after a week.

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
    """``read_to``: per ``topic/partition`` the offset after the last record. ``digest`` names the rows, not the files."""

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


def manifest(table: Any, name: str, application: str, places: Iterable[str]) -> Manifest:
    """Of an open table, at the version at which it is open. ``application`` is the sink's group, ``places`` are topic/partition."""
    found: list[LakeFile] = []
    actions = table.get_add_actions(flatten=True)
    columns = [actions.column(column).to_pylist() for column in ("path", "num_records", "size_bytes")]
    for path, rows, size in sorted(zip(*columns, strict=True)):
        found.append({"path": path, "rows": rows, "bytes": size})
    read_to = {
        place: version
        for place in sorted(places)
        if (version := table.transaction_version(f"{application}/{place}")) is not None
    }
    rows = sum(one["rows"] for one in found)
    return {
        "table": name,
        "version": table.version(),
        "rows": rows,
        "bytes": sum(one["bytes"] for one in found),
        "read_to": read_to,
        "digest": digest(name, rows, read_to),
        "files": found,
    }


def within(read_to: Mapping[str, int], row: Mapping[str, Any]) -> bool:
    """Whether a row belongs to the snapshot with this ``read_to``."""
    return bool(row["offset"] < read_to.get(f"{row['topic']}/{row['partition']}", 0))


def once(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each id the decision that stands, as the ledger has it: the one that the log took first. Input order is kept.

    The topic holds an id once; a second one is a conflict, which the ledger lists in ``decision_conflicts``.
    """
    first: dict[str, tuple[Any, ...]] = {}
    kept: dict[str, dict[str, Any]] = {}
    for row in rows:
        age = (row["appended"] or 0, row["topic"], row["partition"], row["offset"])
        if row["id"] not in first or age < first[row["id"]]:
            first[row["id"]], kept[row["id"]] = age, row
    return list(kept.values())
