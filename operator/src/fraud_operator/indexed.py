"""A client whose reads are answered from what is watched: a settled pass asks the API server for nothing.

Labels bring an object into an index. One that isn't there may be someone else's of that name, so the API server is asked before it
is taken for absent. Secrets may be had by name only: they are kept as they were when they were last glanced at.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Final

import orjson
from kubernetes.client import ApiClient

from fraud_contracts import names
from fraud_contracts.child_kinds import POD, SECRET, Kind
from fraud_operator.index import Index, Place
from fraud_operator.kube import ConflictError, Kube, Listing, unknown_kind
from fraud_operator.objects import Json

# A Secret that isn't there.
_NOTHING: Final = b"null"


class Indexes:
    """By kind and namespace; None stands for all namespaces."""

    def __init__(self) -> None:
        self._indexes: dict[tuple[Kind, str | None], Index] = {}

    def add(self, kind: Kind, namespace: str | None, index: Index) -> Index:
        self._indexes[kind, namespace] = index
        return index

    def of(self, kind: Kind, namespace: str | None) -> Index | None:
        return self._indexes.get((kind, namespace)) or self._indexes.get((kind, None))

    def readable(self, kind: Kind, namespace: str | None) -> Index | None:
        """None where the API server is to be asked; UnknownKindError where it is known to know no such kind."""
        index = self.of(kind, namespace)
        if index is not None and index.unknown:
            raise unknown_kind(kind)
        return index if index is not None and index.fresh else None


class IndexedKube(Kube):
    """Answers to its own writes go into the indexes, too: they are read before a watch brings them."""

    def __init__(self, api: ApiClient, indexes: Indexes, may_write: Callable[[], bool]) -> None:
        super().__init__(api, may_write)
        self._indexes = indexes
        self._live = Kube(api, may_write)
        self._secrets: dict[Place, bytes] = {}
        self._lock = threading.Lock()

    @property
    def live(self) -> Kube:
        return self._live

    def get(self, kind: Kind, namespace: str | None, name: str) -> Json | None:
        if kind == SECRET:
            return self._secret((namespace or "", name))
        index = self._indexes.of(kind, namespace)
        if index is None or not index.fresh:
            return self._live.get(kind, namespace, name)
        body = index.get(namespace, name)
        return body if body is not None or index.whole else self._live.get(kind, namespace, name)

    def children(self, kind: Kind, namespace: str, uid: str) -> Listing:
        index = self._indexes.readable(kind, namespace)
        return super().children(kind, namespace, uid) if index is None else index.group(namespace, uid)

    def pods(self, namespace: str, detector: str, components: Collection[str]) -> Listing:
        index = self._indexes.readable(POD, namespace)
        if index is None:
            return super().pods(namespace, detector, components)
        bodies = index.group(namespace, detector)
        return [
            body for body in bodies if body["metadata"]["labels"].get(names.COMPONENT_LABEL) in components
        ]

    def refresh(self, kind: Kind, namespace: str, name: str) -> Json | None:
        body = self._live.get(kind, namespace, name)
        self._wrote(kind, namespace, name, {"kind": "Status"} if body is None else body)
        return body

    def create(self, kind: Kind, body: Json) -> Json:
        try:
            return super().create(kind, body)
        except ConflictError:
            # It is there after all: the next look asks again.
            with self._lock:
                self._secrets.pop((body["metadata"]["namespace"], body["metadata"]["name"]), None)
            raise

    def forget(self, kind: Kind, namespace: str, name: str) -> None:
        if kind == SECRET:
            with self._lock:
                self._secrets.pop((namespace, name), None)
            return
        index = self._indexes.of(kind, namespace)
        if index is not None:
            index.remove(namespace, name)

    def _secret(self, place: Place) -> Json | None:
        text = self._secrets.get(place)
        if text is not None:
            return _body(text)
        body = self._live.get(SECRET, *place)
        self._remember(place, body)
        return body

    def _remember(self, place: Place, body: Json | None) -> None:
        """A Secret as it is; one that was written while it was on its way here is kept."""
        text = orjson.dumps(body)
        with self._lock:
            here = _body(self._secrets.get(place, _NOTHING))
            if here is None or body is None or _version(here) <= _version(body):
                self._secrets[place] = text

    def _wrote(self, kind: Kind, namespace: str, name: str, answer: Json) -> None:
        gone = answer.get("kind") == "Status"  # the API server's word for an object that is gone
        if kind == SECRET:
            self._remember((namespace, name), None if gone else answer)
            return
        index = self._indexes.of(kind, namespace)
        if index is not None and gone:
            index.remove(namespace, name)
        elif index is not None:
            index.absorb(answer)


def _body(text: bytes) -> Json | None:
    """A copy of its reader's own."""
    body: Json | None = orjson.loads(text)
    return body


def _version(body: Json) -> int:
    return int(body["metadata"]["resourceVersion"])
