"""The stand-ins' client of the local node's API server: get, list, apply, delete, status."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import requests

from fraud_contracts.child_kinds import BY_KIND, Kind
from fraud_local import paths

Json = dict[str, Any]
PLURALS = {kind.kind: kind.plural for kind in BY_KIND.values()} | {
    "PersistentVolumeClaim": "persistentvolumeclaims"
}


def _kind(api_version: str, kind: str) -> Kind:
    return Kind(api_version, kind, PLURALS[kind])


class ApiServerError(Exception):
    """An answer other than success; ``status`` is the HTTP code."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class ApiClient:
    """Talks as the cluster's administrator; ``manager`` owns the fields that it applies."""

    def __init__(self, manager: str) -> None:
        self._manager = manager
        self._session = requests.Session()
        self._session.cert = (str(paths.PKI / "admin.crt"), str(paths.PKI / "admin.key"))
        self._session.verify = str(paths.PKI / "ca.crt")
        self._session.trust_env = False  # a proxy for the outside knows nothing of the node

    def _call(
        self, method: str, path: str, body: Any = None, content: str = "application/json", **query: str
    ) -> Json:
        data = json.dumps(body) if body is not None else None
        answer = self._session.request(
            method,
            paths.API_URL + path,
            params=query,
            data=data,
            headers={"Content-Type": content},
            timeout=30,
        )
        if answer.status_code >= 300:
            raise ApiServerError(answer.status_code, answer.text[:1000])
        return dict(answer.json())

    def get(self, api_version: str, kind: str, namespace: str, name: str) -> Json | None:
        try:
            return self._call("GET", _kind(api_version, kind).path(namespace, name))
        except ApiServerError as error:
            if error.status == 404:
                return None
            raise

    def list(
        self, api_version: str, kind: str, namespace: str | None = None, selector: str = ""
    ) -> list[Json]:
        answer = self._call(
            "GET",
            _kind(api_version, kind).path(namespace),
            **({"labelSelector": selector} if selector else {}),
        )
        # Items of a list don't say what they are.
        return [{"apiVersion": api_version, "kind": kind, **item} for item in answer["items"]]

    def apply(self, thing: Json) -> Json:
        path = _kind(thing["apiVersion"], thing["kind"]).path(
            thing["metadata"]["namespace"], thing["metadata"]["name"]
        )
        return self._call(
            "PATCH", path, thing, "application/apply-patch+yaml", fieldManager=self._manager, force="true"
        )

    def delete(self, api_version: str, kind: str, namespace: str, name: str) -> None:
        body = {"propagationPolicy": "Background"}
        try:
            self._call("DELETE", _kind(api_version, kind).path(namespace, name), body)
        except ApiServerError as error:
            if error.status != 404:
                raise

    def set_status(self, thing: Json, status: Json) -> None:
        """Replace the whole status, if it differs; an object that is gone meanwhile needs none."""
        if thing.get("status") == status:
            return
        meta = thing["metadata"]
        path = _kind(thing["apiVersion"], thing["kind"]).path(meta["namespace"], meta["name"])
        patch = [{"op": "add", "path": "/status", "value": status}]
        try:
            self._call(
                "PATCH", f"{path}/status", patch, "application/json-patch+json", fieldManager=self._manager
            )
        except ApiServerError as error:
            if error.status != 404:
                raise

    def set_finalizers(self, thing: Json, finalizers: Iterable[str]) -> None:
        meta = thing["metadata"]
        path = _kind(thing["apiVersion"], thing["kind"]).path(meta["namespace"], meta["name"])
        patch = {"metadata": {"finalizers": list(finalizers), "resourceVersion": meta["resourceVersion"]}}
        try:
            self._call("PATCH", path, patch, "application/merge-patch+json", fieldManager=self._manager)
        except ApiServerError as error:
            if error.status not in (404, 409):  # gone, or changed: the next pass sees to it
                raise


def stamp(nanoseconds: int) -> str:
    """A time in the originals' form, which has nine decimals."""
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def owner(thing: Json) -> Json:
    """An owner reference: what we make of a resource goes with it, and has no controller, as with both originals."""
    return {
        "apiVersion": thing["apiVersion"], "kind": thing["kind"], "name": thing["metadata"]["name"],
        "uid": thing["metadata"]["uid"], "controller": False, "blockOwnerDeletion": True,
    }  # fmt: skip
