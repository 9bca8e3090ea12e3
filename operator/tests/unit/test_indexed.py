"""Which reads an indexed client answers by itself, and for which it asks the API server."""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes import client

from fraud_contracts import names
from fraud_contracts.child_kinds import BY_KIND, DETECTOR, NAMESPACE, POD, SECRET
from fraud_operator.index import STALE, Index
from fraud_operator.indexed import IndexedKube, Indexes
from fraud_operator.kube import ApiError, ConflictError, Kube, NotLeadingError, UnknownKindError

SERVICE = BY_KIND["Service"]


def thing(kind: str, name: str, version: int, **labels: str) -> dict[str, Any]:
    meta = {"name": name, "namespace": "n", "resourceVersion": str(version), "uid": name, "labels": labels}
    return {"kind": kind, "metadata": meta}


OURS = {names.UID_LABEL: "u", names.DETECTOR_LABEL: "d"}


class World:
    """An API server of paths and objects, and a client before it; ``asked`` are the requests since it was last cleared."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.objects: dict[str, Any] = {}
        self.answers: dict[str, Any] = {}
        self.asked: list[str] = []
        self.leads = True
        self.now = 0.0
        self.indexes = Indexes()
        world = self

        def call(kube: Kube, method: str, path: str, query: Any = None, body: Any = None, *_: Any) -> Any:
            if method != "GET":
                kube.check_lead()
            world.asked.append(f"{method} {path}")
            answer = world.answers.get(f"{method} {path}", world.objects.get(path))
            if isinstance(answer, ApiError):
                raise answer
            if answer is None:
                raise ApiError(404, "not found", {"name": path})
            return answer

        monkeypatch.setattr(Kube, "_call", call)
        self.kube = IndexedKube(client.ApiClient(client.Configuration()), self.indexes, lambda: self.leads)

    def index(self, kind: Any, *bodies: Any, scope: str | None = None, **more: Any) -> Index:
        index = self.indexes.add(kind, scope, Index(clock=lambda: self.now, **more))
        index.replace([("10", list(bodies))])
        return index


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_what_is_watched_is_not_asked_for(world: World) -> None:
    """An object and a detector's children come from the index."""
    world.index(SERVICE, thing("Service", "a", 5, **OURS))
    body = world.kube.get(SERVICE, "n", "a")
    assert body is not None and body == world.kube.children(SERVICE, "n", "u")[0]
    assert world.asked == []


def test_what_is_not_watched_may_be_someone_elses(world: World) -> None:
    """A name that isn't in the index is asked for before it is taken for free; not so where all objects are watched."""
    world.index(SERVICE)
    path = SERVICE.path("n", "a")
    world.objects[path] = thing("Service", "a", 5)
    assert world.kube.get(SERVICE, "n", "a") == world.objects[path]
    assert world.asked == [f"GET {path}"]
    world.index(NAMESPACE, whole=True)
    assert world.kube.get(NAMESPACE, None, "n") is None and len(world.asked) == 1


def test_an_index_that_heard_nothing_is_passed_over(world: World) -> None:
    """While nobody knows how old it is, the API server answers in its place."""
    world.index(SERVICE, thing("Service", "a", 5, **OURS))
    world.now = STALE
    world.objects[SERVICE.path("n", "a")] = new = thing("Service", "a", 9, **OURS)
    world.objects[SERVICE.path("n")] = {"items": [new]}
    assert world.kube.get(SERVICE, "n", "a") == new
    assert [body["metadata"] for body in world.kube.children(SERVICE, "n", "u")] == [new["metadata"]]
    assert len(world.asked) == 2


def test_a_kind_that_is_known_to_be_missing_is_not_asked_for(world: World) -> None:
    """Its children are an error that names it, as the API server's own answer would be."""
    world.index(SERVICE).clear(unknown=True)
    with pytest.raises(UnknownKindError, match="Service"):
        world.kube.children(SERVICE, "n", "u")
    assert world.asked == []


def test_one_namespace_may_be_watched_alone(world: World) -> None:
    """An index of a namespace answers for it and for no other."""
    world.index(SERVICE, thing("Service", "a", 5, **OURS), scope="n")
    world.objects[SERVICE.path("m")] = {"items": []}
    assert len(world.kube.children(SERVICE, "n", "u")) == 1 and world.asked == []
    assert world.kube.children(SERVICE, "m", "u") == [] and world.asked == [f"GET {SERVICE.path('m')}"]


def test_our_own_writes_are_read_at_once(world: World) -> None:
    """What apply, create and merge come back with is in the index before a watch brings it."""
    index = world.index(SERVICE, thing("Service", "a", 5, **OURS))
    for verb, version in (("PATCH", 11), ("POST", 12), ("PATCH", 13)):
        after = thing("Service", "a", version, **OURS)
        path = SERVICE.path("n") if verb == "POST" else SERVICE.path("n", "a")
        world.answers[f"{verb} {path}"] = after
        if verb == "POST":
            world.kube.create(SERVICE, after)
        elif version == 11:
            world.kube.apply(SERVICE, after)
        else:
            world.kube.merge(SERVICE, "n", "a", {})
        body = index.get("n", "a")
        assert body is not None and body["metadata"]["resourceVersion"] == str(version)


@pytest.mark.parametrize("waits", [False, True])
def test_a_deletion_is_seen_at_once(world: World, waits: bool) -> None:
    """What is gone isn't in the index any more; what a finalizer holds is there as being deleted."""
    index = world.index(SERVICE, thing("Service", "a", 5, **OURS))
    ending = thing("Service", "a", 11, **OURS)
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.answers[f"DELETE {SERVICE.path('n', 'a')}"] = ending if waits else {"kind": "Status"}
    assert world.kube.delete(SERVICE, "n", "a")
    assert index.get("n", "a") == (ending if waits else None)


def test_a_secret_is_asked_for_once(world: World) -> None:
    """Passes read it as it was; a glance asks again, and later passes read what that saw."""
    path = SECRET.path("n", "d-keys")
    world.objects[path] = old = thing("Secret", "d-keys", 5)
    assert [world.kube.get(SECRET, "n", "d-keys") for _ in range(3)] == [old] * 3
    assert world.asked == [f"GET {path}"]
    world.objects[path] = new = thing("Secret", "d-keys", 6)
    assert world.kube.get(SECRET, "n", "d-keys") == old
    assert world.kube.refresh(SECRET, "n", "d-keys") == new == world.kube.get(SECRET, "n", "d-keys")
    del world.objects[path]
    assert world.kube.refresh(SECRET, "n", "d-keys") is None is world.kube.get(SECRET, "n", "d-keys")


def test_a_secret_that_we_wrote_is_known(world: World) -> None:
    """The answer is kept, and an older answer to a glance on its way doesn't take its place."""
    path = SECRET.path("n", "d-keys")
    world.answers[f"PATCH {path}"] = new = thing("Secret", "d-keys", 7)
    world.kube.apply(SECRET, new)
    world.objects[path] = thing("Secret", "d-keys", 6)
    world.kube.refresh(SECRET, "n", "d-keys")
    assert world.kube.get(SECRET, "n", "d-keys") == new


def test_a_secret_that_is_there_after_all_is_asked_for_again(world: World) -> None:
    """Someone made one where none was: our own creation is refused, and the next read sees theirs."""
    path = SECRET.path("n", "d-keys")
    assert world.kube.get(SECRET, "n", "d-keys") is None
    world.objects[path] = theirs = thing("Secret", "d-keys", 6)
    world.answers[f"POST {SECRET.path('n')}"] = ConflictError(409, "already exists")
    with pytest.raises(ConflictError):
        world.kube.create(SECRET, thing("Secret", "d-keys", 0))
    assert world.kube.get(SECRET, "n", "d-keys") == theirs


def test_a_detector_that_is_gone_is_forgotten(world: World) -> None:
    """It and a Secret of it are asked for anew where a namesake is made."""
    world.index(DETECTOR, thing("FraudDetector", "d", 5))
    world.objects[SECRET.path("n", "d-keys")] = thing("Secret", "d-keys", 5)
    world.kube.get(SECRET, "n", "d-keys")
    world.kube.forget(SECRET, "n", "d-keys")
    world.kube.forget(DETECTOR, "n", "d")
    world.asked.clear()
    world.kube.get(SECRET, "n", "d-keys")
    assert world.kube.get(DETECTOR, "n", "d") is None
    assert world.asked == [f"GET {SECRET.path('n', 'd-keys')}", f"GET {DETECTOR.path('n', 'd')}"]


def test_pods_are_found_by_detector_and_component(world: World) -> None:
    """Other detectors' and other components' Pods are left out."""
    at = names.COMPONENT_LABEL
    pods = [
        thing("Pod", "ours", 5, **{names.DETECTOR_LABEL: "d", at: "worker"}),
        thing("Pod", "other", 5, **{names.DETECTOR_LABEL: "d", at: "console"}),
        thing("Pod", "foreign", 5, **{names.DETECTOR_LABEL: "e", at: "worker"}),
    ]
    world.index(POD, *pods, group_label=names.DETECTOR_LABEL)
    assert world.kube.pods("n", "d", ["worker", "decision-service"]) == pods[:1]
    assert world.asked == []


def test_a_live_client_asks_always(world: World) -> None:
    """What must not be a moment old is read past the indexes; who may not write may not write that way, either."""
    world.index(SERVICE, thing("Service", "a", 5, **OURS))
    world.objects[SERVICE.path("n", "a")] = new = thing("Service", "a", 6, **OURS)
    assert world.kube.live.get(SERVICE, "n", "a") == new
    world.leads = False
    for kube in (world.kube, world.kube.live):
        with pytest.raises(NotLeadingError):
            kube.apply(SERVICE, new)
