"""Which objects are a detector's own: only these does the operator write, count as children, or delete."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from functools import lru_cache
from typing import Any, Final

import orjson

from fraud_contracts import names
from fraud_contracts.child_kinds import LISTED_KINDS, Kind
from fraud_operator.desired.child import Child
from fraud_operator.kube import Kube, UnknownKindError
from fraud_operator.objects import ChildKey, Json

_HOLDS_DATA: Final = frozenset(kind.kind for kind in LISTED_KINDS if kind.holds_data)


def is_ours(child: Json, uid: str) -> bool:
    """Whether we made it for the detector of this uid. Labels prove nothing: Strimzi, KServe and people copy ours.

    Proof is an owner reference as we write it, or our field manager's own entry for the label. What was made with
    ``create`` or outlives the detector has the latter.
    """
    meta = child["metadata"]
    if any(
        owner.get("controller") and owner.get("uid") == uid for owner in meta.get("ownerReferences") or []
    ):
        return True
    labels = meta.get("labels") or {}
    return labels.get(names.UID_LABEL) == uid and wrote(
        child, "f:metadata", "f:labels", f"f:{names.UID_LABEL}"
    )


def is_of_another(child: Json, detector: str) -> bool:
    """Whether its label says that it is of another detector than that of this name."""
    labels = child["metadata"].get("labels") or {}
    return str(labels.get(names.DETECTOR_LABEL, detector)) != detector


def bears_our_manager(body: Json) -> bool:
    """Whether our field manager has an entry in it, of whichever field."""
    entries = body["metadata"].get("managedFields") or []
    return any(entry.get("manager") == names.FIELD_MANAGER for entry in entries)


def wrote(child: Json, *path: str) -> bool:
    """Whether a field's value is the one that our field manager wrote last; another's change takes it from us."""

    entries = child["metadata"].get("managedFields") or []
    return any(entry.get("manager") == names.FIELD_MANAGER and owns(entry, *path) for entry in entries)


def owns(entry: Mapping[str, Any], *path: str) -> bool:
    """Whether an entry of managedFields has a field; ``path`` as it is written there, ``f:`` before a key."""
    fields: Any = entry.get("fieldsV1")
    for part in path:
        fields = fields.get(part) if isinstance(fields, Mapping) else None
    return fields is not None


def applied_no_more(child: Json, body: Json) -> bool:
    """Whether all that our field manager has applied is in ``body``, so that applying ``body`` would take no field away.

    False where that can't be told, as after a change of the API version.
    """
    entries = [
        entry
        for entry in child["metadata"].get("managedFields") or []
        if entry.get("manager") == names.FIELD_MANAGER and entry.get("operation") == "Apply"
    ]
    return len(entries) == 1 and (
        entries[0].get("apiVersion") == body["apiVersion"] and _within(entries[0].get("fieldsV1") or {}, body)
    )


def _within(fields: Mapping[str, Any], value: Any) -> bool:
    """Whether each field of a managedFields entry is in a value: ``f:`` names a key, ``k:`` an item by its keys, ``v:`` one by value."""
    for path, below in fields.items():
        what, _, name = path.partition(":")
        if what == "f" and isinstance(value, Mapping) and name in value:
            inner = value[name]
        elif what == "k" and isinstance(value, list):
            keys = _read(name)
            # A key that we leave out has the server's default.
            items = [
                item
                for item in value
                if isinstance(item, Mapping) and all(item.get(k, v) == v for k, v in keys.items())
            ]
            if not items:
                return False
            inner = items[0]
        elif what == "v" and isinstance(value, list) and _read(name) in value:
            inner = None
        elif what == ".":
            continue
        else:
            return False
        if below and not _within(below, inner):
            return False
    return True


@lru_cache(4096)
def _read(name: str) -> Any:
    """JSON in a field's name; all detectors' children have the same few."""
    return orjson.loads(name)


def snapshot(
    kube: Kube, namespace: str, uid: str, pool: Executor | None = None
) -> tuple[dict[ChildKey, Json], set[str]]:
    """All children of the detector that are ours, and the kinds that the API server doesn't know.

    Secrets aren't listed: the operator may get them by name only.
    """

    def listed(kind: Kind) -> list[Json] | None:
        try:
            return kube.children(kind, namespace, uid)
        except UnknownKindError:
            return None

    answers = list(pool.map(listed, LISTED_KINDS) if pool is not None else map(listed, LISTED_KINDS))

    children = {
        (kind.kind, item["metadata"]["name"]): item
        for kind, items in zip(LISTED_KINDS, answers, strict=True)
        for item in items or []
        if is_ours(item, uid)
    }
    return children, {kind.kind for kind, items in zip(LISTED_KINDS, answers, strict=True) if items is None}


def surplus(
    live: Mapping[ChildKey, Json], uid: str, desired: Iterable[Child], keep: Iterable[ChildKey] = ()
) -> list[Json]:
    """Children of ours that nobody wants any more, in a stable order; none that holds data, whatever a spec says."""
    wanted = {(child.kind, child.name) for child in desired} | set(keep)
    return [
        live[key]
        for key in sorted(live)
        if key not in wanted and key[0] not in _HOLDS_DATA and is_ours(live[key], uid)
    ]
