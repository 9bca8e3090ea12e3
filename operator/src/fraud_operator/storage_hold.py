"""What waits while a detector's storage won't do. Pure.

A Pod whose keys aren't there never starts, and no savepoint is taken in a bucket that refuses it. So what uses the storage is neither
made nor changed before it is right, and what is there goes on with what it was made for: also where nothing is wrong but that the
store is away, since its streaming job couldn't be changed then anyway.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from fraud_contracts import names, object_store
from fraud_operator.apply import covers
from fraud_operator.desired.child import Child
from fraud_operator.facts import StorageFact
from fraud_operator.objects import ChildKey, Json
from fraud_operator.ownership import wrote


def waits(child: Child, live: Json | None, storage: StorageFact) -> bool:
    """Whether a child isn't written now; ``live`` is what there is of it."""
    return not storage.ready and (child.needs_storage or (live is not None and _takes_away(child.body, live)))


def _takes_away(body: Json, live: Json) -> bool:
    """Whether Pods that run would lose their way into the storage: the platform's keys in their Secret, or its role."""
    if body["kind"] == "Secret":
        keys = (live.get("data") or {}).keys() & set(object_store.REQUIRED_KEYS)
        return not keys <= body["data"].keys()
    if body["kind"] == "ServiceAccount":
        role = {
            key
            for key in live["metadata"].get("annotations") or {}
            if wrote(live, "f:metadata", "f:annotations", f"f:{key}")
        }
        return not role <= (body["metadata"].get("annotations") or {}).keys()
    return False


def changed(waiting: Collection[Child], children: Mapping[ChildKey, Json]) -> tuple[str, ...]:
    """Live children whose change waits, for people."""
    live = [(child, children[child.kind, child.name]) for child in waiting if _key(child) in children]
    return tuple(f"{c.kind} {c.name}" for c, body in live if not c.once and not covers(body, c.body))


def kept(waiting: Collection[Child], children: Mapping[ChildKey, Json]) -> list[ChildKey]:
    """Live children that nobody is to take away yet: those in whose place another one waits."""
    parts = {(child.kind, child.body["metadata"]["labels"][names.COMPONENT_LABEL]) for child in waiting}
    return [
        key
        for key, live in children.items()
        if (key[0], (live["metadata"].get("labels") or {}).get(names.COMPONENT_LABEL)) in parts
    ]


def _key(child: Child) -> ChildKey:
    return child.kind, child.name
