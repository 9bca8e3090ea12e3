"""A thin client of the API server: get, list, watch, server-side apply, create, merge, delete, by kind.

Errors, all FraudError:

ApiError                    any other answer: status, message, details
├── ConflictError           another manager owns a field that we want: owners
├── UnknownKindError        the API server has no such kind: its operator isn't installed
├── RefusedError            400, 403 or 422: it breaks its schema or a policy, or we lack the right
└── UnreachableError        no answer, or "too many requests" to the last: retry
    └── NotLeadingError     nothing was sent: another operator may lead by now
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import orjson
import urllib3
from kubernetes import client, config

from fraud_contracts import names
from fraud_contracts.child_kinds import BY_KIND, Kind
from fraud_contracts.errors import FraudError
from fraud_operator.objects import Json

TIMEOUT: Final = (5.0, 30.0)
# A watch on which not even a bookmark comes for so long is dead, though nobody has closed it.
SILENCE: Final = 150.0
# Objects in one answer of a list.
PAGE: Final = 500
JSON_TYPE: Final = "application/json"
Listing = list[Json]
# A server that is asked too much, or has just learned a kind ("storage is (re)initializing"), answers 429 and for how long to wait;
# half a minute is waited at most, since other detectors wait behind. The loop is ours, not urllib3's: whoever leads no more by then
# must send nothing.
TOO_MANY: Final = 429
TRIES: Final = 6
FIRST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 30.0


class ApiError(FraudError):
    def __init__(self, status: int, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.details = status, message, dict(details or {})


# How the API server names a field's manager; "using" marks one that wrote without declaring anything.
_CONFLICT: Final = re.compile(r'conflict with "([^"]*)"(?: with subresource "([^"]*)")?( using)?')


@dataclass(frozen=True)
class Owner:
    """Who owns a field that we want. ``declared``: by server-side apply, or through a subresource, as an autoscaler does.

    A declared field has an owner that would set it again; any other was changed by hand, once.
    """

    field: str
    manager: str
    declared: bool


class ConflictError(ApiError):
    """``owners`` are the fields that we want and others own."""

    @property
    def owners(self) -> list[Owner]:
        owners = []
        for cause in self.details.get("causes", []):
            match = _CONFLICT.search(str(cause.get("message", "")))
            manager, part, by_hand = match.groups() if match else ("unknown", None, None)
            declared = part is not None or by_hand is None
            owners.append(Owner(str(cause.get("field", "")), manager, declared))
        return owners


class UnknownKindError(ApiError):
    pass


class RefusedError(ApiError):
    pass


class UnreachableError(ApiError):
    pass


class NotLeadingError(UnreachableError):
    pass


def unknown_kind(kind: Kind) -> UnknownKindError:
    return UnknownKindError(404, f"the API server has no {kind.kind} ({kind.api_version})")


def load_client(kubeconfig: str | None = None) -> client.ApiClient:
    """Credentials of the Pod's service account, else of a kubeconfig."""
    settings = client.Configuration()
    # A connection each for the watches and for the threads that ask.
    settings.connection_pool_maxsize = 64
    if kubeconfig is None:
        try:
            config.load_incluster_config(client_configuration=settings)
        except config.ConfigException:
            config.load_kube_config(client_configuration=settings)
    else:
        config.load_kube_config(config_file=kubeconfig, client_configuration=settings)
    return client.ApiClient(settings)


def _wait(answer: Any, number: int) -> float:
    """Seconds before the request is sent again: what the server asks for, else twice as long after each answer."""
    asked = urllib3.Retry().get_retry_after(answer)
    return float(min(LONGEST_WAIT, FIRST_WAIT * 2**number if asked is None else asked))


class Kube:
    """Synchronous and safe to use from several threads: urllib3's pool is.

    ``timeout`` is for connecting and for answering, in seconds. Nothing is written while ``may_write`` says no. A request is sent
    up to ``tries`` times while the server asks for patience.
    """

    def __init__(
        self,
        api: client.ApiClient,
        may_write: Callable[[], bool] = lambda: True,
        timeout: tuple[float, float] = TIMEOUT,
        tries: int = TRIES,
    ) -> None:
        self._api, self._may_write, self._timeout, self._tries = api, may_write, timeout, tries

    def check_lead(self) -> None:
        """NotLeadingError unless this operator may write."""
        if not self._may_write():
            raise NotLeadingError(0, "another operator may lead by now: nothing is written")

    def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        content: str = JSON_TYPE,
    ) -> Json:
        timeout = urllib3.Timeout(connect=self._timeout[0], read=self._timeout[1])
        answer = self._send(method, path, query, body, content, timeout=timeout)
        if 200 <= answer.status < 300:
            out = orjson.loads(answer.data)
            assert isinstance(out, dict)
            return out
        try:
            status = orjson.loads(answer.data)
        except ValueError:
            status = {}
        message, details = (
            status.get("message") or answer.data.decode(errors="replace")[:500],
            status.get("details"),
        )
        if answer.status == 409:
            raise ConflictError(409, message, details)
        if answer.status in (400, 403, 422):
            raise RefusedError(answer.status, message, details)
        if answer.status == TOO_MANY:
            raise UnreachableError(TOO_MANY, message, details)
        raise ApiError(answer.status, message, details)

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        content: str = JSON_TYPE,
        **options: Any,
    ) -> Any:
        headers: dict[str, str] = {"Accept": JSON_TYPE, "User-Agent": names.FIELD_MANAGER}
        if body is not None:
            headers["Content-Type"] = content
        pairs: list[tuple[str, str]] = []
        self._api.update_params_for_auth(headers, pairs, ["BearerToken"], path, method, body)
        url = self._api.configuration.host + path
        if query or pairs:
            url += "?" + urlencode([*(query or {}).items(), *pairs])
        data = None if body is None else orjson.dumps(body)
        pool = self._api.rest_client.pool_manager
        try:
            for number in itertools.count(1):
                if method != "GET":
                    self.check_lead()
                answer = pool.request(method, url, body=data, headers=headers, retries=False, **options)
                if answer.status != TOO_MANY or number >= self._tries:
                    return answer
                answer.drain_conn()
                time.sleep(_wait(answer, number))
        except urllib3.exceptions.HTTPError as error:
            raise UnreachableError(0, f"no answer from the API server: {error}") from error

    def get(self, kind: Kind, namespace: str | None, name: str) -> Json | None:
        """None where it isn't there, or its kind isn't."""
        try:
            return self._call("GET", kind.path(namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(self, kind: Kind, namespace: str | None, labels: str = "") -> list[Json]:
        """UnknownKindError where the API server doesn't know the kind; an empty list means that there is none."""
        return [item for _, items in self.pages(kind, namespace, labels) for item in items]

    def pages(
        self, kind: Kind, namespace: str | None, labels: str = "", *, size: int = PAGE
    ) -> Iterator[tuple[str, Listing]]:
        """(resourceVersion of the whole list, its next objects); UnknownKindError where the API server doesn't know the kind."""
        query = {"limit": str(size), **({"labelSelector": labels} if labels else {})}
        while True:
            try:
                answer = self._call("GET", kind.path(namespace), query)
            except ApiError as error:
                if error.status == 404:
                    raise unknown_kind(kind) from error
                raise
            meta = answer.get("metadata") or {}
            # Items of a list come without these two.
            items = answer.get("items") or []
            yield (
                str(meta.get("resourceVersion", "")),
                [{"apiVersion": kind.api_version, "kind": kind.kind, **item} for item in items],
            )
            if not meta.get("continue"):
                return
            query = {**query, "continue": str(meta["continue"])}

    def watch(
        self, kind: Kind, namespace: str | None, choice: Mapping[str, str], seconds: int
    ) -> Iterator[tuple[str, Json]]:
        """(event, object) of what happens, for so many seconds or as long as the server likes.

        ``choice`` has labelSelector or fieldSelector, so that what isn't ours never comes over the wire, and the resourceVersion to
        go on from; without one, what is there comes first. A BOOKMARK comes about once a minute, with nothing but a
        resourceVersion, so that a stream on which nothing comes at all is a dead one: UnreachableError. ApiError with the status
        410 asks for a new list, UnknownKindError says that the kind is gone.
        """
        query = {"watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(seconds), **choice}
        timeout = urllib3.Timeout(connect=TIMEOUT[0], read=SILENCE)
        path = kind.path(namespace)
        answer = self._send("GET", path, query, timeout=timeout, preload_content=False)
        try:
            if answer.status == 404:
                raise unknown_kind(kind)
            if answer.status != 200:
                raise ApiError(answer.status, f"no watch of {kind.kind}: HTTP {answer.status}")
            rest = b""
            for part in answer.stream(65_536):
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    event = orjson.loads(line)
                    if event["type"] == "ERROR":
                        raise ApiError(
                            int(event["object"].get("code", 0)), str(event["object"].get("message"))
                        )
                    yield event["type"], event["object"]
        except urllib3.exceptions.HTTPError as error:
            raise UnreachableError(0, f"the watch of {kind.kind} broke off: {error}") from error
        finally:
            # Not back into the pool: what is left of the stream would be the next caller's answer.
            answer.close()
            answer.release_conn()

    # Reads that a pass makes of what there is of a detector; IndexedKube answers them from what it watches.

    @property
    def live(self) -> Kube:
        """A client that asks the API server itself, always."""
        return self

    def children(self, kind: Kind, namespace: str, uid: str) -> Listing:
        """The objects of a kind that bear the label of a detector's uid; UnknownKindError where there is no such kind."""
        return self.list(kind, namespace, f"{names.UID_LABEL}={uid}")

    def pods(self, namespace: str, detector: str, components: Collection[str]) -> Listing:
        """The Pods that bear the labels of a detector and of one of these components."""
        chosen = f"{names.COMPONENT_LABEL} in ({','.join(components)})"
        return self.list(BY_KIND["Pod"], namespace, f"{names.DETECTOR_LABEL}={detector},{chosen}")

    def refresh(self, kind: Kind, namespace: str, name: str) -> Json | None:
        """An object as it is this moment, from the API server itself, also for the reads that follow."""
        return self.get(kind, namespace, name)

    def forget(self, kind: Kind, namespace: str, name: str) -> None:
        """Drops what is kept of an object: who reads it next asks the API server."""

    def apply(self, kind: Kind, body: Json, *, force: bool = False) -> Json:
        """Server-side apply under our field manager; ``force`` takes the fields that we name from whoever owns them."""
        path = kind.path(body["metadata"]["namespace"], body["metadata"]["name"])
        return self._write(kind, "PATCH", path, body, "application/apply-patch+yaml", force=force)

    def create(self, kind: Kind, body: Json) -> Json:
        return self._write(kind, "POST", kind.path(body["metadata"]["namespace"]), body, JSON_TYPE)

    def _write(
        self, kind: Kind, method: str, path: str, body: Json, content: str, *, force: bool = False
    ) -> Json:
        query = {"fieldManager": names.FIELD_MANAGER, **({"force": "true"} if force else {})}
        try:
            answer = self._call(method, path, query, body, content)
        except ApiError as error:
            # A missing object or namespace is named in the details; an unknown path has none.
            if error.status == 404 and not error.details.get("name"):
                raise unknown_kind(kind) from error
            raise
        self._wrote(kind, body["metadata"]["namespace"], body["metadata"]["name"], answer)
        return answer

    def merge(self, kind: Kind, namespace: str, name: str, body: Json, part: str = "") -> Json:
        """JSON merge patch: for the detector's own finalizers and status, which are small and wholly ours."""
        answer = self._call(
            "PATCH",
            kind.path(namespace, name, part),
            {"fieldManager": names.FIELD_MANAGER},
            body,
            "application/merge-patch+json",
        )
        self._wrote(kind, namespace, name, answer)
        return answer

    def delete(self, kind: Kind, namespace: str, name: str, uid: str | None = None) -> bool:
        """False where it is gone already. ``uid`` guards against deleting a namesake made meanwhile."""
        body: Json = {"propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            answer = self._call("DELETE", kind.path(namespace, name), body=body)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        self._wrote(kind, namespace, name, answer)
        return True

    def _wrote(self, kind: Kind, namespace: str, name: str, answer: Json) -> None:
        """Each write ends here: ``answer`` is the object as it is now, or a Status where it is gone."""
