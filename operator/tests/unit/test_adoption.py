"""Two platforms over the same detectors: the first adopts each, and the second changes nothing of it."""

from __future__ import annotations

from typing import Any

import pytest

from fraud_contracts import names
from fraud_contracts.child_kinds import DETECTOR, Kind
from fraud_operator.adoption import Adoption
from fraud_operator.events import Recorder
from fraud_operator.kube import ConflictError, Kube
from fraud_operator.objects import Json
from fraud_operator.observe import Observer
from fraud_operator.reconcile import Reconciler
from fraud_operator.settings import Platform
from fraud_testing.store_logins import willing


class Cluster(Kube):
    """One detector, which only its own resourceVersion lets change; every other write is written down."""

    def __init__(self, **meta: Any) -> None:
        self.detector: Json = {
            "metadata": {"name": "d", "namespace": "n", "uid": "u", "resourceVersion": "1", **meta},
            "spec": {},
        }
        self.events: list[Json] = []

    def get(self, kind: Kind, namespace: str | None, name: str) -> Json | None:
        return self.body() if kind == DETECTOR else None

    def body(self) -> Json:
        return {**self.detector, "metadata": dict(self.detector["metadata"])}

    def merge(self, kind: Kind, namespace: str, name: str, body: Json, part: str = "") -> Json:
        meta = self.detector["metadata"]
        if body["metadata"].get("resourceVersion") != meta["resourceVersion"]:
            raise ConflictError(409, "the object has been modified")
        version = str(int(meta["resourceVersion"]) + 1)
        self.detector["metadata"] = {**meta, **body["metadata"], "resourceVersion": version}
        return self.body()

    def create(self, kind: Kind, body: Json) -> Json:
        self.events.append(body)
        return body


def adoption(cluster: Cluster, namespace: str) -> Adoption:
    return Adoption(cluster, Recorder(cluster), namespace)


def test_the_first_platform_adopts() -> None:
    """Finalizer and platform are one write, after which there is nothing to write; the platform's own isn't foreign to it."""
    cluster = Cluster(finalizers=["other"])
    adoption(cluster, "one").adopt(cluster.body())
    meta = cluster.detector["metadata"]
    assert meta["finalizers"] == ["other", names.FINALIZER] and meta["resourceVersion"] == "2"
    assert meta["annotations"] == {names.PLATFORM_ANNOTATION: "one"}
    adoption(cluster, "one").adopt(cluster.body())
    assert cluster.detector["metadata"]["resourceVersion"] == "2"
    assert not adoption(cluster, "one").is_foreign(cluster.body()) and cluster.events == []


def test_of_two_platforms_at_once_one_adopts() -> None:
    """Both have read a detector that nobody looks after; the later write is refused, and so is made no child."""
    cluster = Cluster(finalizers=[names.FINALIZER])
    read = cluster.body(), cluster.body()
    adoption(cluster, "one").adopt(read[0])
    with pytest.raises(ConflictError):
        adoption(cluster, "two").adopt(read[1])
    assert adoption(cluster, "two").is_foreign(cluster.body())


@pytest.mark.parametrize("end", [{}, {"deletionTimestamp": "2026-01-01T00:00:00Z"}])
def test_another_platforms_detector_is_left_alone(end: dict[str, str]) -> None:
    """A pass writes one event with the remedy, and no more in the passes after it; its end is the other platform's as well."""
    annotations = {names.PLATFORM_ANNOTATION: "one"}
    cluster = Cluster(annotations=annotations, finalizers=[names.FINALIZER], **end)
    before = cluster.body()
    operator = Reconciler(
        cluster, Platform(namespace="two"), Observer(cluster, logins=willing()), Recorder(cluster)
    )
    for _ in range(2):
        outcome = operator.reconcile("n", "d")
        assert outcome.settled and outcome.ready is None and outcome.written == ()
    [event] = cluster.events
    assert event["reason"] == "ForeignOperator" and cluster.body() == before
    assert "the platform in one looks after it, so the one in two leaves it alone" in event["message"]
    assert "kubectl -n n annotate frauddetectors d fraudplatform.dev/platform-" in event["message"]


def test_a_detector_may_be_handed_over() -> None:
    """Without the annotation the next platform adopts it; should it go back, there is an event again."""
    cluster = Cluster(annotations={names.PLATFORM_ANNOTATION: "one"})
    two = adoption(cluster, "two")
    assert two.is_foreign(cluster.body())
    cluster.detector["metadata"]["annotations"] = {}
    assert not two.is_foreign(cluster.body())
    two.adopt(cluster.body())
    assert cluster.detector["metadata"]["annotations"] == {names.PLATFORM_ANNOTATION: "two"}
    assert adoption(cluster, "one").is_foreign(cluster.body()) and len(cluster.events) == 2
