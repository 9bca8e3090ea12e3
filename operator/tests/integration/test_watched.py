"""Passes that read what is watched, against a real API server: what they ask for, and what they see."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from fraud_contracts import names
from fraud_contracts.child_kinds import BY_KIND, DETECTOR
from fraud_contracts.detector_clients import default_clients
from fraud_operator.apply import ApplyReport
from fraud_operator.desired.documents import DOCKER_CONFIG, secret_data
from fraud_operator.events import Recorder
from fraud_operator.glances import Glance
from fraud_operator.indexed import IndexedKube, Indexes
from fraud_operator.kube import Kube
from fraud_operator.observe import Observer
from fraud_operator.pass_result import PassResult
from fraud_operator.reconcile import Reconciler
from fraud_operator.settings import KafkaSettings, Platform, StorageSettings, StoreAddresses
from fraud_operator.watches import Standby, Watches
from fraud_testing.authorities import new_authority
from fraud_testing.kafka import wait_for
from fraud_testing.store_logins import willing

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[3]
NAME = "payments"
SECRET = BY_KIND["Secret"]
# Two Pods of a component, so a disruption budget; and a store of its own.
MORE: dict[str, Any] = {
    "components": [{"name": "DecisionService", "replicas": 2}],
    "stores": {"redis": {"secretRef": {"name": "cache"}}},
}


def settings(namespace: str) -> Platform:
    """A platform that lives beside the detector, with a login to a registry."""
    return Platform(
        namespace=namespace,
        pull_secrets=("registry",),
        kafka=KafkaSettings(ephemeral=True),
        storage=StorageSettings(uri="file:///s", node_folder="/s"),
        stores=StoreAddresses(
            redis_url="redis://x", postgres_dsn="postgresql://x", mlflow_tracking_uri="http://127.0.0.1:9"
        ),
    )


def put_secret(kube: Kube, namespace: str, name: str, **values: str) -> None:
    meta = {"name": name, "namespace": namespace}
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": secret_data(values)}
    path = SECRET.path(namespace, name)
    kube._call("PATCH", path, {"fieldManager": "a-person"}, body, "application/apply-patch+yaml")


@dataclass
class World:
    """An operator without its queue: what would be asked of it is in ``asked``, each request of its passes in ``requests``.

    Its clock stands still, so what is asked for by the clock isn't.
    """

    kube: Kube
    namespace: str
    now: int = field(default_factory=lambda: int(time.time() * 1000))
    indexes: Indexes = field(default_factory=Indexes)
    asked: set[tuple[str, str]] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.watches = Watches(
            Kube(self.kube._api), [self.namespace], lambda *key: self.asked.add(key), self.indexes
        )
        self.watches.start()
        self.watches.ask_for_all(60)
        self.start()

    def start(self) -> None:
        """An operator that remembers nothing."""
        self.own = IndexedKube(self.kube._api, self.indexes, lambda: True)
        self.reconciler = Reconciler(
            self.own,
            settings(self.namespace),
            Observer(self.own, logins=willing()),
            Recorder(self.own),
            lambda: self.now,
        )

    def reconcile(self) -> PassResult:
        """A pass on the newest detector, which kopf isn't here to bring."""
        body = self.kube.get(DETECTOR, self.namespace, NAME)
        index = self.indexes.of(DETECTOR, self.namespace)
        assert body is not None and index is not None
        index.put(body)
        return self.reconciler.reconcile(self.namespace, NAME)

    def condition(self, name: str) -> dict[str, Any]:
        """As it is after a pass."""
        self.reconcile()
        body = self.kube.get(DETECTOR, self.namespace, NAME)
        assert body is not None
        return next(one for one in body["status"]["conditions"] if one["type"] == name)

    def watched(self, kind: str, name: str) -> dict[str, Any] | None:
        index = self.indexes.of(BY_KIND[kind], self.namespace)
        assert index is not None
        return index.get(self.namespace, name)


@pytest.fixture
def world(server: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    name = request.node.name.replace("_", "-").partition("[")[0][:60].rstrip("-")
    kube = server.kube()
    server.namespace(name)
    put_secret(kube, name, "registry", **{DOCKER_CONFIG: '{"auths": {"registry.example": {"auth": "eDp5"}}}'})
    body: dict[str, Any] = yaml.safe_load((ROOT / "manifests/examples/payments.yaml").read_text())
    meta = {"name": NAME, "namespace": name}
    kube.create(DETECTOR, {**body, "metadata": meta, "spec": {**body["spec"], **MORE}})
    world = World(kube, name)
    for _ in range(3):
        world.reconcile()
    send = Kube._send

    def counted(one: Kube, method: str, path: str, *more: Any, **options: Any) -> Any:
        # Watches go on by themselves, and ``kube`` is the test's own.
        if one in (world.own, world.own.live):
            world.requests.append(f"{method} {path}")
        return send(one, method, path, *more, **options)

    monkeypatch.setattr(Kube, "_send", counted)
    yield world
    world.watches.stop()


def test_a_settled_pass_asks_for_nothing(world: World) -> None:
    """Neither a read nor a write: all is in the indexes, our own last writes included."""
    assert world.reconcile().written == ()
    assert world.requests == []


def test_an_operator_that_starts_anew_writes_nothing(world: World) -> None:
    """What was applied by the process before is told by managedFields; its Secrets are all that a new one asks for."""
    world.start()
    assert world.reconcile().written == ()
    own = {
        f"{NAME}-{what}"
        for what in ("keys", "stores", "pull", "clients", "kafka-operator", "cluster-ca-cert")
    }
    asked = own | {f"{NAME}-client-{one.name}" for one in default_clients()} | {"cache", "registry"}
    assert {request.rpartition("/")[2] for request in world.requests} == asked
    assert all(request.startswith("GET ") for request in world.requests) and len(world.requests) == len(asked)


def test_a_secret_that_is_made_is_seen_at_the_next_glance(world: World) -> None:
    """A pass reads what the last glance saw; the glance tells that there is one now, and costs a request for each Secret."""
    glance = world.reconciler.glances.look
    assert world.condition("ReferencesFound")["reason"] == "SecretMissing"
    put_secret(world.kube, world.namespace, "cache", REDIS_URL="redis://y")
    assert glance(world.namespace, NAME) == Glance(differs=True, requests=11)
    world.requests.clear()
    assert world.condition("ReferencesFound")["status"] == "True"
    assert [request for request in world.requests if request.startswith("GET ")] == []
    assert not glance(world.namespace, NAME).differs


def test_a_secret_that_is_waited_for_is_seen_by_passes(world: World) -> None:
    """A pass asks for it after three seconds, and for no other; where nothing came of it for long, once a minute."""
    assert world.condition("ReferencesFound")["reason"] == "SecretMissing"
    world.requests.clear()
    for later, asks in ((2_999, 0), (1, 1), (2_999, 0), (240_000, 1), (59_999, 0), (1, 1)):
        world.now += later
        world.reconcile()
        asked = [one.rpartition("/")[2] for one in world.requests if "/secrets/" in one]
        # The chart's own, for all detectors, has a clock of its own.
        assert [name for name in asked if name != "registry"] == ["cache"] * asks, later
        world.requests.clear()
    put_secret(world.kube, world.namespace, "cache", REDIS_URL="redis://y")
    world.now += 60_000
    assert world.condition("ReferencesFound")["status"] == "True"


def test_a_copied_login_that_is_deleted_comes_back(world: World) -> None:
    """The glance misses it, and the pass makes it again."""
    world.kube.delete(SECRET, world.namespace, f"{NAME}-pull")
    assert world.reconcile().written == ()
    assert world.reconciler.glances.look(world.namespace, NAME).differs
    assert world.reconcile().written == (("Secret", f"{NAME}-pull", "created"),)


def test_what_happened_last_before_an_operator_acts_comes_first(world: World) -> None:
    """One that stands by notes whose child has gone; a leader asks for every detector, for that one first."""
    there = world.kube.get(DETECTOR, world.namespace, NAME)
    assert there is not None
    meta = {"name": "another", "namespace": world.namespace}
    world.kube.create(
        DETECTOR, {**{key: there[key] for key in ("apiVersion", "kind", "spec")}, "metadata": meta}
    )
    standby = Standby(world.kube, [world.namespace])
    standby.start()
    asked: list[str] = []
    leader = Watches(world.kube, [world.namespace], lambda _, name: asked.append(name), Indexes())
    try:
        assert standby.knows(30) and standby.news == []
        world.kube.delete(BY_KIND["Service"], world.namespace, names.decision_service(NAME))
        wait_for(lambda: standby.news, 30, "news of its end")
        leader.start()
        leader.ask_for_all(60, standby.news)
        assert asked == [NAME, "another"]
    finally:
        standby.stop()
        leader.stop()


def templates(world: World) -> dict[str, dict[str, Any]]:
    """By name what of a workload decides its Pods."""
    found: dict[str, dict[str, Any]] = {}
    for kind in ("Deployment", "FlinkDeployment"):
        for body in world.kube.list(BY_KIND[kind], world.namespace):
            found[body["metadata"]["name"]] = body["spec"]
    return found


def test_a_renewed_authority_makes_other_pods_once(world: World) -> None:
    """Strimzi's Secrets come after the first Pods and change none of them; another certificate is named once in each template
    of what speaks to Kafka, and what can't be read changes nothing."""
    before = templates(world)

    def with_authority(text: str) -> PassResult:
        put_secret(world.kube, world.namespace, f"{NAME}-cluster-ca-cert", **{"ca.crt": text})
        assert world.reconciler.glances.look(world.namespace, NAME).differs
        return world.reconcile()

    put_secret(world.kube, world.namespace, f"{NAME}-kafka-operator", password="p")
    assert with_authority(new_authority()).written == (("ConfigMap", f"{NAME}-config", "changed"),)
    for text in ("", "no certificate"):
        assert with_authority(text).written == ()
    assert templates(world) == before
    written = with_authority(new_authority()).written
    after = templates(world)
    changed = {name for name, spec in after.items() if spec != before[name]}
    assert {name for _, name, _ in written} == changed == before.keys() - {f"{NAME}-console"}
    for name in changed:
        annotations = after[name].get("podTemplate", after[name].get("template"))["metadata"]["annotations"]
        del annotations[names.KAFKA_AUTHORITY_ANNOTATION]
    assert after == before
    assert world.reconcile().written == ()
    assert with_authority("").written == ()
    world.start()
    assert world.reconcile().written == ()


def test_a_deleted_child_is_missed_and_made_again(world: World) -> None:
    """Its event asks for a pass, which finds it gone."""
    world.asked.clear()
    world.kube.delete(BY_KIND["Service"], world.namespace, "payments-console")
    wait_for(lambda: (world.namespace, NAME) in world.asked, 20, "an event")
    assert ("Service", "payments-console", "created") in world.reconcile().written
    assert world.watched("Service", "payments-console") is not None


def test_a_child_that_lost_its_label_is_ours_still(world: World) -> None:
    """It leaves the index with the label by which it is watched; the pass asks for it and puts the label back."""
    service = BY_KIND["Service"]
    change = {"metadata": {"labels": {names.UID_LABEL: None}}}
    world.kube.merge(service, world.namespace, "payments-console", change)
    wait_for(lambda: world.watched("Service", "payments-console") is None, 20, "it is watched no more")
    assert ("Service", "payments-console", "changed") in world.reconcile().written
    body = world.kube.get(service, world.namespace, "payments-console")
    assert body is not None and names.UID_LABEL in body["metadata"]["labels"]


def test_what_was_taken_over_is_not_deleted(world: World) -> None:
    """A child that nobody wants any more stays if someone made it theirs, be it a moment before the index knows."""
    stale, detector = (
        world.watched("ConfigMap", "payments-config"),
        world.kube.get(DETECTOR, world.namespace, NAME),
    )
    assert stale is not None and detector is not None
    change = {"metadata": {"ownerReferences": None, "labels": {names.UID_LABEL: None}}}
    world.kube.merge(BY_KIND["ConfigMap"], world.namespace, "payments-config", change)
    report = ApplyReport()
    world.reconciler.applier.delete(stale, detector["metadata"]["uid"], report)
    assert report.written == [] and world.kube.get(BY_KIND["ConfigMap"], world.namespace, "payments-config")


def test_an_edit_during_a_pass_is_not_missed(world: World) -> None:
    """Someone edits the detector just before its status is written: the write is refused, and the next pass reads the edit."""
    merge = world.own.merge

    def late(kind: Any, namespace: str, name: str, body: Any, part: str = "") -> Any:
        if part == "status":
            world.kube.merge(DETECTOR, namespace, name, {"metadata": {"annotations": {"a": "b"}}})
        return merge(kind, namespace, name, body, part)

    world.own.merge = late  # type: ignore[method-assign]
    world.kube.merge(DETECTOR, world.namespace, NAME, {"spec": {"paused": True}})
    assert world.reconcile().overtaken
    world.own.merge = merge  # type: ignore[method-assign]
    assert not world.reconciler.reconcile(world.namespace, NAME).overtaken
    body = world.kube.get(DETECTOR, world.namespace, NAME)
    assert body is not None and body["metadata"]["annotations"]["a"] == "b"
    assert next(c for c in body["status"]["conditions"] if c["type"] == "Paused")["status"] == "True"


def test_a_status_is_not_written_to_a_namesake(world: World) -> None:
    """A detector that was deleted and made again since it was watched gets no status of the one before."""
    for _ in range(2):
        world.kube.merge(DETECTOR, world.namespace, NAME, {"metadata": {"finalizers": None}})
    world.kube.delete(DETECTOR, world.namespace, NAME)
    example: dict[str, Any] = yaml.safe_load((ROOT / "manifests/examples/payments.yaml").read_text())
    new = world.kube.create(DETECTOR, {**example, "metadata": {"name": NAME, "namespace": world.namespace}})
    index = world.indexes.of(DETECTOR, world.namespace)
    assert index is not None
    old = index.get(world.namespace, NAME)
    assert old is not None and old["metadata"]["uid"] != new["metadata"]["uid"]
    assert world.reconciler.announcer._write_status(old, {"featureSet": "other"}, {}) == (False, True)
    body = world.kube.get(DETECTOR, world.namespace, NAME) or {}
    assert "status" not in body
    assert index.get(world.namespace, NAME) == body
