"""The one verb: ``apply(desired | None)``. It writes only what differs and deletes what is no longer wanted.

A field of ours that someone changed by hand is put back. One that another manager declares (by server-side apply, or
through a subresource, as an autoscaler does) would only be set again: it is left alone and reported, so two
controllers never fight.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from fraud_contracts import names
from fraud_contracts.child_kinds import BY_KIND, Kind
from fraud_operator.desired.child import Child
from fraud_operator.kube import ApiError, ConflictError, Kube, UnknownKindError, UnreachableError
from fraud_operator.objects import ChildKey, Json
from fraud_operator.ownership import applied_no_more, bears_our_manager, is_of_another, is_ours

# (kind, namespace, name) of any object.
ObjectKey = tuple[str, str, str]
# So many repairs of one child in so many seconds are a fight with something that never gives up.
FIGHT: Final = 5
FIGHT_SECONDS: Final = 600.0
NAME_TAKEN: Final = (
    "has the name of a child and was made by someone else, so it is left alone: rename or remove it, then the operator "
    "makes its own, which may bear labels and annotations of yours"
)


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
class ApplyReport:
    """What a pass wrote and what it couldn't. ``problems`` maps (kind, name) to a message for a person.

    ``repaired`` names the fields that someone had changed by hand and that were put back.
    """

    written: list[tuple[str, str, str]] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    problems: dict[ChildKey, str] = field(default_factory=dict)
    conflicts: dict[ChildKey, str] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)


@dataclass
class Applier:
    """Remembers a digest of what it wrote last: an unchanged child isn't sent to the server again.

    A new process, which remembers nothing, reads from managedFields what was applied; where they don't tell, it applies the
    child once more, and the server leaves an unchanged object's resourceVersion as it is.
    """

    kube: Kube
    clock: Callable[[], float] = time.monotonic
    _digests: dict[ObjectKey, str] = field(default_factory=dict)
    _forced: dict[ObjectKey, list[float]] = field(default_factory=dict)

    def apply(self, child: Child, live: Json | None, report: ApplyReport) -> None:
        """``live`` is the child as it is now, None where we have none; another's object of its name is left alone.

        UnreachableError where the API server gives no answer; any other refusal is reported.
        """
        kind, body = BY_KIND[child.kind], child.body
        if live is None:
            try:
                live = self.kube.get(kind, body["metadata"]["namespace"], child.name)
            except UnreachableError:
                raise  # nor would the others be answered: one pass waits for one answer
            except ApiError as error:
                report.problems[child.kind, child.name] = error.message
                return
            if live is not None and not _may_write(child, live):
                report.problems[child.kind, child.name] = NAME_TAKEN
                return
        if live is not None and live["metadata"].get("deletionTimestamp"):
            return  # nothing stays of what is written now; another one is made once it is gone
        if child.once and live is not None:
            body = _metadata_only(body)
            self._disown(kind, body, live, report)
        key = (child.kind, body["metadata"]["namespace"], child.name)
        digest = hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()
        if live is not None and covers(live, body):
            if child.once or self._digests.get(key) == digest:
                return
            if applied_no_more(live, body):
                self._digests[key] = digest
                return
        try:
            once = live is None and child.once
            after = self.kube.create(kind, body) if once else self._put(kind, body, report)
        except UnknownKindError:
            report.missing.add(child.kind)
            return
        except ConflictError as error:
            report.conflicts[child.kind, child.name] = _conflict_message(error)
            return
        except UnreachableError:
            raise
        except ApiError as error:
            report.problems[child.kind, child.name] = error.message
            return
        self._digests[key] = digest
        before = None if live is None else live["metadata"].get("resourceVersion")
        if after["metadata"].get("resourceVersion") != before:
            report.written.append((child.kind, child.name, "created" if live is None else "changed"))

    def _disown(self, kind: Kind, body: Json, live: Json, report: ApplyReport) -> None:
        """Takes our owner reference off a child that is to outlive the detector; applying alone wouldn't."""
        owners = live["metadata"].get("ownerReferences") or []
        others = [owner for owner in owners if owner.get("kind") != names.KIND]
        if "ownerReferences" in body["metadata"] or len(others) == len(owners):
            return
        meta = live["metadata"]
        try:
            self.kube.merge(kind, meta["namespace"], meta["name"], {"metadata": {"ownerReferences": others}})
        except UnreachableError:
            raise
        except ApiError as error:
            report.problems[kind.kind, meta["name"]] = error.message
            return
        report.written.append((kind.kind, meta["name"], "changed"))

    def _put(self, kind: Kind, body: Json, report: ApplyReport) -> Json:
        """Applies; takes back what was changed by hand, and nothing that another manager declared."""
        try:
            return self.kube.apply(kind, body)
        except ConflictError as error:
            owners = error.owners
            if not owners or any(owner.declared for owner in owners):
                raise
            name, now = body["metadata"]["name"], self.clock()
            key = (kind.kind, body["metadata"]["namespace"], name)
            lately = [moment for moment in self._forced.get(key, ()) if now - moment < FIGHT_SECONDS]
            if len(lately) >= FIGHT:
                # Whoever it is sets it again each time: that is no slip of a hand, so a person has to decide.
                raise
            self._forced[key] = [*lately, now]
            after = self.kube.apply(kind, body, force=True)
            fields = ", ".join(f"{owner.field} (by {owner.manager})" for owner in owners)
            report.repaired.append(f"{kind.kind} {name}: {fields}")
            return after

    def delete(self, live: Json, uid: str, report: ApplyReport) -> None:
        """Deletes a child of the detector of this uid, if it is that still."""
        kind, meta = BY_KIND[live["kind"]], live["metadata"]
        if meta.get("deletionTimestamp"):
            return
        try:
            # ``live`` may be a moment old, and someone may have taken the child over since.
            now = self.kube.refresh(kind, meta["namespace"], meta["name"])
            if now is None or now["metadata"].get("uid") != meta.get("uid") or not is_ours(now, uid):
                return
            if self.kube.delete(kind, meta["namespace"], meta["name"], meta.get("uid")):
                report.written.append((live["kind"], meta["name"], "deleted"))
        except UnreachableError:
            raise
        except ApiError as error:
            report.problems[live["kind"], meta["name"]] = error.message
        self._digests.pop((live["kind"], meta["namespace"], meta["name"]), None)

    def forget(self, namespace: str, detector: str) -> None:
        """Drops the memory of a detector's children once it is gone."""
        for memory in (self._digests, self._forced):
            for key in [key for key in memory if key[1] == namespace and key[2].startswith(detector)]:
                del memory[key]


def _may_write(child: Child, live: Json) -> bool:
    """Whether an object that has a child's name is ours to write.

    It is if this detector made it, or an earlier one of the same name that left it: our field manager has an
    entry in it, even where someone took our labels off. Keys and pointer are always ours, and so is a client's Secret that is
    no other detector's: a person may put them back from a backup, which leaves no such proof.
    """
    labels = child.body["metadata"]["labels"]
    detector = labels[names.DETECTOR_LABEL]
    if (child.kind, child.name) in (
        ("Secret", names.keys(detector)),
        ("ConfigMap", names.release_pointer(detector)),
    ):
        return True
    if is_ours(live, labels[names.UID_LABEL]):
        return True
    if is_of_another(live, detector):
        return False
    if child.kind == "Secret" and child.name.startswith(names.client(detector, "")):
        return True
    return bears_our_manager(live)


def _metadata_only(body: Json) -> Json:
    """For a child that is written once: its content stays as it is, its labels and owner are kept right."""
    return {key: body[key] for key in ("apiVersion", "kind", "metadata")}


def _conflict_message(error: ConflictError) -> str:
    owners = [f"{owner.field} is owned by {owner.manager!r}" for owner in error.owners]
    return "; ".join(owners) or error.message
