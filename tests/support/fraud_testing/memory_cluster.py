"""An API server in memory, for whole passes without one."""

from __future__ import annotations

import copy
from typing import Any

from fraud_contracts import names
from fraud_contracts.child_kinds import Kind
from fraud_operator.kube import Kube
from fraud_operator.objects import Json


def _fields(value: Any) -> Json:
    return {f"f:{key}": _fields(item) for key, item in value.items()} if isinstance(value, dict) else {}


class Cluster(Kube):
    """One namespace in memory, in which we are the only one that writes."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Json] = {}
        self.version = 0

    def get(self, kind: Kind, namespace: str | None, name: str) -> Json | None:
        return copy.deepcopy(self.objects.get((kind.kind, name)))

    def list(self, kind: Kind, namespace: str | None, labels: str = "") -> list[Json]:
        return [copy.deepcopy(body) for (one, _), body in self.objects.items() if one == kind.kind]

    def apply(self, kind: Kind, body: Json, *, force: bool = False) -> Json:
        self.version += 1
        managed = [{"manager": names.FIELD_MANAGER, "fieldsV1": _fields(body)}]
        meta = {**body["metadata"], "managedFields": managed, "resourceVersion": str(self.version)}
        self.objects[kind.kind, meta["name"]] = copy.deepcopy({**body, "metadata": meta})
        return self.objects[kind.kind, meta["name"]]

    def create(self, kind: Kind, body: Json) -> Json:
        return self.apply(kind, body)

    def merge(self, kind: Kind, namespace: str, name: str, body: Json, part: str = "") -> Json:
        live = self.objects[kind.kind, name]
        for key, value in body.items():
            live[key] = {**live.get(key, {}), **value}
        return copy.deepcopy(live)

    def delete(self, kind: Kind, namespace: str, name: str, uid: str | None = None) -> bool:
        return self.objects.pop((kind.kind, name), None) is not None
