"""An API server for unit tests of the stand-ins: objects in memory, what was written, and nobody who acts on it."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from fraud_local.api_client import ApiServerError

Json = dict[str, Any]
Key = tuple[str, str, str]


class Cluster:
    """The stand-ins' client of the API server, over a dictionary. ``ending`` are namespaces that take nothing new."""

    def __init__(self, *objects: Json) -> None:
        self.objects: dict[Key, Json] = {}
        self.applied: list[Key] = []
        self.statuses: list[Json] = []
        self.ending: set[str] = set()
        for thing in objects:
            self.put(thing)

    def put(self, thing: Json) -> None:
        thing = copy.deepcopy(thing)
        thing["metadata"].setdefault("resourceVersion", "1")
        thing["metadata"].setdefault("generation", 1)
        self.objects[self._key(thing)] = thing

    @staticmethod
    def _key(thing: Json) -> Key:
        return thing["kind"], thing["metadata"]["namespace"], thing["metadata"]["name"]

    def names(self, kind: str) -> set[str]:
        return {name for one, _, name in self.objects if one == kind}

    # The client's methods

    def get(self, api_version: str, kind: str, namespace: str, name: str) -> Json | None:
        return copy.deepcopy(self.objects.get((kind, namespace, name)))

    def list(
        self, api_version: str, kind: str, namespace: str | None = None, selector: str = ""
    ) -> list[Json]:
        wanted = dict(part.split("=") for part in selector.split(",") if part)
        return [
            copy.deepcopy(thing)
            for (one, where, _), thing in self.objects.items()
            if one == kind
            and namespace in (None, where)
            and wanted.items() <= (thing["metadata"].get("labels") or {}).items()
        ]

    def apply(self, thing: Json) -> Json:
        key = self._key(thing)
        if key[1] in self.ending and key not in self.objects:
            raise ApiServerError(
                403, f"unable to create new content in namespace {key[1]}: it is being terminated"
            )
        self.applied.append(key)
        status = self.objects.get(key, {}).get("status")
        self.put({**thing, **({"status": status} if status else {})})
        return self.objects[key]

    def delete(self, api_version: str, kind: str, namespace: str, name: str) -> None:
        self.objects.pop((kind, namespace, name), None)

    def set_status(self, thing: Json, status: Json) -> None:
        self.statuses.append(copy.deepcopy(status))
        if self._key(thing) in self.objects:
            self.objects[self._key(thing)]["status"] = copy.deepcopy(status)

    def set_finalizers(self, thing: Json, finalizers: Iterable[str]) -> None:
        stored = self.objects[self._key(thing)]
        stored["metadata"]["finalizers"] = list(finalizers)
        if not stored["metadata"]["finalizers"] and stored["metadata"].get("deletionTimestamp"):
            self.objects.pop(self._key(thing))
