"""What watches have brought: the objects of one kind, by name and by detector, for passes to read in place of the API server.

An index may lag behind the API server, so what our own writes come back with is put in as well. resourceVersions of one kind
can be compared: a greater one is later. Objects are kept as text, a fifth of what they take otherwise, and each reader
gets a copy of its own. managedFields stay: they say who wrote what.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import orjson

from fraud_contracts import names
from fraud_operator.objects import Json

# An index that nothing was heard of for so long is not read any more: a watch that is well says something each minute.
STALE: Final = 300.0
# (namespace, name) of an object; the namespace is empty for one that has none.
Place = tuple[str, str]
# An object's place and the name in its detector's label.
News = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Entry:
    """``owner`` is the name in the detector's label, ``group`` what the objects of one detector are found by."""

    version: int
    owner: str
    group: str
    text: bytes


def _all(body: Json) -> Json:
    return body


@dataclass
class Index:
    """Of one kind, in one namespace or in all. Safe to use from several threads.

    ``whole``: every object of the kind is watched, so one that isn't here isn't there. ``keep`` takes out of an object what nobody
    reads. ``unknown``: the API server has no such kind.
    """

    group_label: str = names.UID_LABEL
    whole: bool = False
    keep: Callable[[Json], Json] = _all
    clock: Callable[[], float] = time.monotonic
    unknown: bool = False
    _entries: dict[Place, Entry] = field(default_factory=dict)
    _groups: dict[str, set[Place]] = field(default_factory=dict)
    # Every event up to this version has been seen. Before the first list, none of ours may be put in.
    _seen: int = sys.maxsize
    _heard: float = float("-inf")
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def fresh(self) -> bool:
        """Whether it may be read."""
        return self.clock() - self._heard < STALE

    def heard(self, version: str) -> None:
        """The watch is alive, and has brought all up to ``version``."""
        self._heard = self.clock()
        with self._lock:
            self._seen = max(self._seen, int(version))

    def clear(self, *, unknown: bool) -> None:
        """Nothing is here, and nothing may be read: the kind is gone, or not to be had."""
        with self._lock:
            self._entries, self._groups, self._seen = {}, {}, sys.maxsize
            self._heard, self.unknown = float("-inf"), unknown

    def replace(self, pages: Iterable[tuple[str, list[Json]]]) -> tuple[str, set[News]]:
        """Takes a whole list: its version, and the objects that differ from what was here, or aren't there any more."""
        listed: dict[Place, Entry] = {}
        version = "0"
        for page_version, bodies in pages:
            version = page_version
            listed |= {_place(body): self._entry(body) for body in bodies}
        with self._lock:
            old = self._entries
            # What we wrote while the list was on its way.
            later = {place: entry for place, entry in old.items() if entry.version > int(version)}
            self._entries = {
                **listed,
                **{p: e for p, e in later.items() if p not in listed or listed[p].version < e.version},
            }
            self._groups = {}
            for place, entry in self._entries.items():
                self._groups.setdefault(entry.group, set()).add(place)
            self._seen, self.unknown = int(version), False
            changed = {
                (*place, entry.owner)
                for place, entry in (*self._entries.items(), *old.items())
                if _version(self._entries.get(place)) != _version(old.get(place))
            }
        self._heard = self.clock()
        return version, changed

    def put(self, body: Json) -> bool:
        """An event; whether it is news, and not the echo of a write of ours."""
        entry, place = self._entry(body), _place(body)
        self._heard = self.clock()
        with self._lock:
            self._seen = max(self._seen, entry.version)
            if _version(self._entries.get(place)) >= entry.version:
                return False
            self._set(place, entry)
        return True

    def absorb(self, body: Json) -> None:
        """What a write of ours came back with, unless the watch has brought something later, as that it is gone again."""
        entry, place = self._entry(body), _place(body)
        with self._lock:
            here = self._entries.get(place)
            if entry.version > (self._seen if here is None else here.version):
                self._set(place, entry)

    def drop(self, body: Json) -> bool:
        """An object is gone, or isn't ours any more; whether that is news."""
        place, version = _place(body), int(body["metadata"]["resourceVersion"])
        self._heard = self.clock()
        with self._lock:
            self._seen = max(self._seen, version)
            here = self._entries.get(place)
            if here is None or here.version > version:
                return False
            self._unset(place)
        return True

    def remove(self, namespace: str, name: str) -> None:
        """We know that it is gone."""
        with self._lock:
            self._unset((namespace, name))

    def get(self, namespace: str | None, name: str) -> Json | None:
        entry = self._entries.get((namespace or "", name))
        return None if entry is None else _body(entry)

    def group(self, namespace: str, group: str) -> list[Json]:
        """The objects of a namespace that have this value in the group's label."""
        with self._lock:
            places = [place for place in self._groups.get(group, ()) if place[0] == namespace]
            entries = [self._entries[place] for place in sorted(places)]
        return [_body(entry) for entry in entries]

    def places(self) -> list[Place]:
        with self._lock:
            return list(self._entries)

    def _entry(self, body: Json) -> Entry:
        labels = body["metadata"].get("labels") or {}
        return Entry(
            int(body["metadata"]["resourceVersion"]),
            sys.intern(str(labels.get(names.DETECTOR_LABEL, ""))),
            sys.intern(str(labels.get(self.group_label, ""))),
            orjson.dumps(self.keep(body)),
        )

    def _set(self, place: Place, entry: Entry) -> None:
        self._unset(place)
        self._entries[place] = entry
        self._groups.setdefault(entry.group, set()).add(place)

    def _unset(self, place: Place) -> None:
        entry = self._entries.pop(place, None)
        if entry is None:
            return
        members = self._groups[entry.group]
        members.discard(place)
        if not members:
            del self._groups[entry.group]


def _place(body: Json) -> Place:
    meta = body["metadata"]
    return str(meta.get("namespace", "")), str(meta["name"])


def _version(entry: Entry | None) -> int:
    return -1 if entry is None else entry.version


def _body(entry: Entry) -> Json:
    body: Json = orjson.loads(entry.text)
    return body
