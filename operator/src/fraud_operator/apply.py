"""The one verb: ``apply(desired | None)``. It writes only what differs, deletes what is no longer wanted, forces nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from fraud_contracts import names
from fraud_operator.desired.common import Child
from fraud_operator.kube import (
    BY_KIND,
    CHILD_KINDS,
    ApiError,
    ConflictError,
    Json,
    Kind,
    Kube,
    UnknownKindError,
)

Key = tuple[str, str]


def covers(live: Any, wanted: Any) -> bool:
    """Whether everything wanted is in the live value. Lists of named objects are compared by name, as the server merges them."""
    if isinstance(wanted, Mapping):
        return isinstance(live, Mapping) and all(
            key in live and covers(live[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        if not isinstance(live, list) or len(live) < len(wanted):
            return False
        if wanted and all(isinstance(item, Mapping) and "name" in item for item in wanted):
            by_name = {item.get("name"): item for item in live if isinstance(item, Mapping)}
            return all(item["name"] in by_name and covers(by_name[item["name"]], item) for item in wanted)
        return len(live) == len(wanted) and all(covers(a, b) for a, b in zip(live, wanted, strict=True))
    return bool(live == wanted)


@dataclass
class Report:
    """What a pass wrote and what it couldn't. ``problems`` maps (kind, name) to a message for a person."""

    written: list[tuple[str, str, str]] = field(default_factory=list)
    problems: dict[Key, str] = field(default_factory=dict)
    conflicts: dict[Key, str] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)


@dataclass
class Applier:
    """Remembers what it wrote last, to tell a settled child from a changed one without asking the server to compare.

    The memory is only a shortcut: without it (a new process) each child is applied once, and the server leaves an
    unchanged object's resourceVersion as it is.
    """

    kube: Kube
    _seen: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def apply(self, child: Child, live: Json | None, report: Report) -> None:
        kind = BY_KIND[child.kind]
        namespace = child.body["metadata"]["namespace"]
        digest = hashlib.sha256(json.dumps(child.body, sort_keys=True).encode()).hexdigest()
        memory = (child.kind, namespace, child.name)
        if child.once and live is not None:
            return
        if live is not None and self._seen.get(memory) == digest and covers(live, child.body):
            return
        try:
            after = self.kube.create(kind, child.body) if child.once else self.kube.apply(kind, child.body)
        except UnknownKindError:
            report.missing.add(child.kind)
            return
        except ConflictError as error:
            if child.once:
                return  # made by a pass whose answer we never saw; it is there, which is all that was wanted
            fields = ", ".join(error.fields) or error.message
            report.conflicts[child.kind, child.name] = f"another manager owns {fields}"
            return
        except ApiError as error:
            report.problems[child.kind, child.name] = error.message
            return
        self._seen[memory] = digest
        before = None if live is None else live["metadata"].get("resourceVersion")
        if after["metadata"].get("resourceVersion") != before:
            report.written.append((child.kind, child.name, "created" if live is None else "changed"))

    def delete(self, live: Json, report: Report) -> None:
        meta = live["metadata"]
        if meta.get("deletionTimestamp"):
            return
        try:
            if self.kube.delete(BY_KIND[live["kind"]], meta["namespace"], meta["name"], meta.get("uid")):
                report.written.append((live["kind"], meta["name"], "deleted"))
        except ApiError as error:
            report.problems[live["kind"], meta["name"]] = error.message
        self._seen.pop((live["kind"], meta["namespace"], meta["name"]), None)

    def forget(self, namespace: str, detector: str) -> None:
        """Drops the memory of a detector's children once it is gone."""
        for memory in [m for m in self._seen if m[1] == namespace and m[2].startswith(detector)]:
            del self._seen[memory]


def snapshot(
    kube: Kube, namespace: str, uid: str, pool: Executor | None = None
) -> tuple[dict[Key, Json], set[str]]:
    """All children with the detector's label, and the kinds that the API server doesn't know.

    Secrets aren't listed: the operator may get them by name only.
    """

    def listed(kind: Kind) -> list[Json] | None:
        try:
            return kube.list(kind, namespace, f"{names.UID_LABEL}={uid}")
        except UnknownKindError:
            return None

    kinds = [kind for kind in CHILD_KINDS if kind.kind != "Secret"]
    answers = list(pool.map(listed, kinds) if pool is not None else map(listed, kinds))
    found = {
        (kind.kind, item["metadata"]["name"]): item
        for kind, items in zip(kinds, answers, strict=True)
        for item in items or []
    }
    return found, {kind.kind for kind, items in zip(kinds, answers, strict=True) if items is None}


def _of_another(child: Json) -> bool:
    """Whether another controller made it: KServe copies our labels to the Service and Deployment that it makes."""
    return any(
        owner.get("controller") and owner.get("kind") != names.KIND
        for owner in child["metadata"].get("ownerReferences") or []
    )


def surplus(live: Mapping[Key, Json], desired: Iterable[Child], keep: Iterable[Key] = ()) -> list[Json]:
    """Children of ours that nobody wants any more, in a stable order."""
    wanted = {(child.kind, child.name) for child in desired} | set(keep)
    return [live[key] for key in sorted(live) if key not in wanted and not _of_another(live[key])]
