"""A detector's end, and its namespace's, beside engines that behave as the real ones were recorded: they hold on.

The operator is a new one at each step, as if it had been killed in between. A namespace's end and what owners leave behind
are Kubernetes' own controllers' doing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from fraud_contracts import names
from fraud_contracts.child_kinds import BY_KIND, CHILD_KINDS, DETECTOR
from fraud_operator import deletion
from fraud_operator.deletion import SAVEPOINT_MS, TOPICS_MS, TROUBLE_MS
from fraud_operator.events import Recorder
from fraud_operator.kube import ApiError, ConflictError, Kube, RefusedError
from fraud_operator.observe import Observer
from fraud_operator.ownership import snapshot
from fraud_operator.reconcile import Reconciler
from fraud_operator.settings import Platform, StorageSettings, StoreAddresses
from fraud_testing.api_server import OPERATOR
from fraud_testing.deleting_operators import (
    FLINK,
    FLINK_FINALIZER,
    TOPIC,
    DeletingFlinkOperator,
    DeletingTopicOperator,
)
from fraud_testing.kafka import wait_for
from fraud_testing.operator_process import install, render
from fraud_testing.store_logins import willing

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[3]
PLATFORM = Platform(
    storage=StorageSettings(uri="file:///s", node_folder="/s"),
    stores=StoreAddresses(
        redis_url="redis://x", postgres_dsn="postgresql://x", mlflow_tracking_uri="http://127.0.0.1:9"
    ),
)


@dataclass
class World:
    kube: Kube
    namespace: str
    flink: DeletingFlinkOperator
    topics: DeletingTopicOperator
    policy: str
    ahead: int = 0

    def operator(self, kube: Kube | None = None) -> Reconciler:
        kube = kube or self.kube
        return Reconciler(
            kube,
            PLATFORM,
            Observer(kube, logins=willing()),
            Recorder(kube),
            clock=lambda: int(time.time() * 1000) + self.ahead,
        )

    def start(self, **spec: Any) -> None:
        body: dict[str, Any] = yaml.safe_load((ROOT / "manifests/examples/payments.yaml").read_text())
        body["metadata"]["namespace"] = self.namespace
        body["spec"] |= {"deletionPolicy": self.policy, **spec}
        self.kube.create(DETECTOR, body)
        self.step()

    def step(self, kube: Kube | None = None) -> None:
        """A pass of a new operator, made again where the garbage collector has written meanwhile; then the engines' operators."""
        for _ in range(20):
            with suppress(ConflictError):
                self.operator(kube).reconcile(self.namespace, "payments")
                break
        self.flink.act()
        self.topics.act()

    def job(self) -> dict[str, Any] | None:
        jobs = self.kube.list(FLINK, self.namespace)
        return jobs[0] if jobs else None

    def exists(self) -> bool:
        return self.kube.get(DETECTOR, self.namespace, "payments") is not None

    def ends(self, steps: int = 8) -> bool:
        for _ in range(steps):
            if not self.exists():
                return True
            self.step()
        return not self.exists()

    def events(self, reason: str) -> list[str]:
        posted = self.kube.list(BY_KIND["Event"], self.namespace)
        return [event["message"] for event in posted if event["reason"] == reason]

    def left(self) -> set[tuple[str, str]]:
        children = {
            (kind.kind, item["metadata"]["name"])
            for kind in CHILD_KINDS
            for item in self.kube.list(kind, self.namespace)
        }
        return children - {("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default")}


@pytest.fixture(params=["Retain", "Delete"])
def world(own_server: Any, request: pytest.FixtureRequest) -> Iterator[World]:
    kube: Kube = own_server.kube()
    plain = request.node.name.replace("_", "-").replace("[", "-").replace("]", "").lower()
    namespace = own_server.namespace(plain.removeprefix("test-")[:56].strip("-"))
    flink, topics = DeletingFlinkOperator(kube, namespace), DeletingTopicOperator(kube, namespace)
    yield World(kube, namespace, flink, topics, request.param)


def test_a_running_job_is_stopped_with_a_savepoint(world: World) -> None:
    """Under either policy all that a savepoint needs is there until it is taken; then the policy's children go or stay."""
    world.start()
    world.kube.delete(DETECTOR, world.namespace, "payments")
    world.operator().reconcile(world.namespace, "payments")
    job = world.job()
    assert world.exists() and job is not None and job["metadata"]["deletionTimestamp"]
    assert world.ends() and len(world.flink.savepoints) == 1
    assert len(world.events("StreamStopping")) == 1 and not world.events("NoSavepoint")
    assert not world.events("NotDeleted")
    stays = (
        {"Kafka", "KafkaNodePool", "KafkaTopic", "ConfigMap", "Secret"} if world.policy == "Retain" else set()
    )
    wait_for(lambda: {kind for kind, _ in world.left()} == stays, 30, f"{stays} are left")


@pytest.mark.parametrize("state", [None, "RESTARTING", "FAILED"])
def test_a_job_that_does_not_run_holds_nothing_up(world: World, state: str | None) -> None:
    """Of a job that isn't RUNNING no savepoint is waited for: it ends at once, and an event says so."""
    world.flink.state = state
    world.start()
    world.kube.delete(DETECTOR, world.namespace, "payments")
    assert world.ends() and world.job() is None
    [message] = world.events("NoSavepoint")
    assert "not RUNNING" in message and not world.events("NotDeleted")


def test_a_savepoint_that_never_comes_is_given_up(world: World) -> None:
    """A savepoint that fails again and again is waited for no longer than SAVEPOINT_MS; then the job ends without."""
    world.start()
    world.kube.delete(BY_KIND["ServiceAccount"], world.namespace, "payments-features")
    world.kube.delete(DETECTOR, world.namespace, "payments")
    assert not world.ends(4)
    world.ahead = SAVEPOINT_MS
    assert world.ends() and world.flink.savepoints == []
    assert "none came within 120 s" in world.events("NoSavepoint")[0]


def test_a_flink_operator_that_is_gone_holds_nothing_up(world: World) -> None:
    """A FlinkDeployment that nobody lets go of is left over and told, with what holds it; the detector goes."""
    world.start()
    world.flink.works = False
    world.kube.delete(DETECTOR, world.namespace, "payments")
    assert not world.ends(3)
    world.ahead = SAVEPOINT_MS + deletion.RELEASE_MS
    assert world.ends()
    assert FLINK_FINALIZER in world.events("NotDeleted")[0]


def test_topics_go_before_kafka(world: World) -> None:
    """Under Delete Kafka waits for its topics; without a topic operator to let go of them, no longer than TOPICS_MS."""
    world.start()
    world.topics.works = False
    world.kube.delete(DETECTOR, world.namespace, "payments")
    if world.policy == "Retain":
        assert world.ends() and len(world.kube.list(TOPIC, world.namespace)) == len(names.TOPICS)
        return
    assert not world.ends(5)
    assert world.kube.get(BY_KIND["Kafka"], world.namespace, "payments") is not None
    assert len(world.events("TopicsDeleted")) == 1
    world.ahead = TOPICS_MS
    assert world.ends() and world.kube.list(TOPIC, world.namespace) == []
    assert len(world.events("FinalizersRemoved")) == len(world.events("KafkaDeleted")) == 1


@pytest.mark.parametrize("world", ["Delete"], indirect=True)
def test_a_policy_changed_while_paused_is_kept_to(world: World) -> None:
    """Retain keeps Kafka, topics, keys and releases, also where it was Delete until an operator that was paused could act."""
    world.start()
    spec = {"deletionPolicy": "Retain", "paused": True}
    world.kube.merge(DETECTOR, world.namespace, "payments", {"spec": spec})
    world.step()
    world.kube.delete(DETECTOR, world.namespace, "payments")
    assert world.ends()
    stays = {"Kafka", "KafkaNodePool", "KafkaTopic", "ConfigMap", "Secret"}
    wait_for(lambda: {kind for kind, _ in world.left()} == stays, 30, f"{stays} are left")
    assert not any(name == "payments-config" for _, name in world.left())


@pytest.mark.parametrize("world", ["Delete"], indirect=True)
def test_what_is_kept_is_free_before_anything_is_waited_for(world: World) -> None:
    """What Retain keeps loses its owner in the first pass: a detector that goes in the foreground, or after trouble, takes it not along."""
    world.start()
    spec = {"deletionPolicy": "Retain", "paused": True}
    world.kube.merge(DETECTOR, world.namespace, "payments", {"spec": spec})
    world.kube.delete(DETECTOR, world.namespace, "payments")
    world.operator().reconcile(world.namespace, "payments")
    assert world.exists()
    kept = [
        item
        for kind in ("Kafka", "KafkaNodePool", "KafkaTopic", "ConfigMap", "Secret")
        for item in world.kube.list(BY_KIND[kind], world.namespace)
        if item["metadata"]["name"]
        not in ("payments-config", "payments-stores", "payments-clients", "kube-root-ca.crt")
    ]
    assert [c["metadata"]["name"] for c in kept if c["metadata"].get("ownerReferences")] == []


def test_a_namespace_goes_whole(world: World) -> None:
    """A live detector's namespace is gone, though the topic operator dies with it and the job's account with the job."""
    world.start()
    world.topics.act()
    path = f"/api/v1/namespaces/{world.namespace}"
    world.kube._call("DELETE", path)

    def gone() -> bool:
        try:
            world.step()
            world.kube._call("GET", path)
        except ApiError as error:
            return error.status == 404
        return False

    world.topics.works = False
    wait_for(gone, 90, "the namespace is gone")
    assert world.flink.savepoints == []


def test_a_watched_namespace_goes_whole(world: World, own_server: Any) -> None:
    """With the chart's watchNamespaces the operator's rights in the namespace go with it; the finalizer comes off all the same."""
    documents = render(f"operator.watchNamespaces={{{world.namespace}}}")
    places = {"ClusterRole": None, "ClusterRoleBinding": None, "RoleBinding": world.namespace}
    install(
        world.kube, [d for d in documents if (d["kind"], d["metadata"].get("namespace")) in places.items()]
    )
    mine: Kube = own_server.kube(OPERATOR)
    world.start()
    world.step(mine)
    path = f"/api/v1/namespaces/{world.namespace}"
    world.kube._call("DELETE", path)
    binding = BY_KIND["RoleBinding"], world.namespace, "fraud-platform-operator"
    wait_for(lambda: world.kube.get(*binding) is None, 30, "the rights are gone")
    world.topics.works = False
    refusals = []

    def gone() -> bool:
        try:
            world.step(mine)
            world.kube._call("GET", path)
        except ApiError as error:
            refusals.append(error.message)
            return error.status == 404
        return False

    try:
        wait_for(gone, 60, "the namespace is gone")
    except TimeoutError:
        pytest.fail(refusals[-1])


@pytest.mark.parametrize("late", [False, True])
def test_an_orphaning_deletion_deletes_nothing(world: World, late: bool) -> None:
    """`kubectl delete --cascade=orphan` takes the detector alone, whatever the policy: all children stay and an event says so."""
    world.start()
    before = world.left()
    body = {"propagationPolicy": "Orphan"}
    world.kube._call("DELETE", DETECTOR.path(world.namespace, "payments"), None, body)

    def over() -> bool:
        """Whether the garbage collector has done its part, and left no trace of it on the detector."""
        detector = world.kube.get(DETECTOR, world.namespace, "payments")
        return detector is None or "orphan" not in detector["metadata"].get("finalizers", [])

    if late:
        wait_for(over, 30, "the children are orphaned")
    world.step()
    wait_for(lambda: not world.exists(), 30, "the detector is gone")
    job = world.job()
    assert world.left() == before and job is not None and not job["metadata"].get("deletionTimestamp")
    assert "stay" in world.events("Orphaned")[0] and not world.events("StreamStopping")
    world.start()
    again = world.kube.get(DETECTOR, world.namespace, "payments")
    assert again is not None
    ours = snapshot(world.kube, world.namespace, again["metadata"]["uid"])[0].keys()
    assert {kind for kind, _ in before - ours} <= {
        "Secret",
        "RayJob",
        "ConfigMap",
    } and world.job() is not None
    assert ("ConfigMap", "payments-release") in ours


def test_a_foreground_deletion_ends(world: World) -> None:
    """A deletion in the foreground takes the job's account away at once: no savepoint is waited for."""
    world.start()
    body = {"propagationPolicy": "Foreground"}
    world.kube._call("DELETE", DETECTOR.path(world.namespace, "payments"), None, body)
    wait_for(world.ends, 60, "the detector is gone")


@pytest.mark.parametrize("world", ["Retain"], indirect=True)
def test_an_old_feature_sets_job_ends(world: World) -> None:
    """The job of a feature set that is no longer wanted, and that doesn't run, ends without a savepoint and is told."""
    world.flink.state = "RESTARTING"
    world.start()
    old = world.job()
    extra = [{"name": "mine", "entity": "customer", "aggregate": "Count", "window": "2h"}]
    world.kube.merge(DETECTOR, world.namespace, "payments", {"spec": {"features": {"extra": extra}}})
    for _ in range(4):
        world.step()
    [job] = world.kube.list(FLINK, world.namespace)
    assert old is not None and job["metadata"]["name"] != old["metadata"]["name"]
    assert len(world.events("NoSavepoint")) == 1


class Refusing(Kube):
    """Answers some requests with an error, as missing rights or a broken webhook do."""

    refuses: tuple[str, str, int] = ("", "", 0)

    def _call(self, method: str, path: str, query: Any = None, body: Any = None, content: str = "application/json") -> Any:  # fmt: skip
        verb, part, status = self.refuses
        if method == verb and part in path:
            raise (RefusedError if status == 403 else ApiError)(status, "no")
        return super()._call(method, path, query, body, content)


@pytest.mark.parametrize("world", ["Delete"], indirect=True)
@pytest.mark.parametrize(
    "refuses",
    [("GET", "flinkdeployments", 404), ("GET", "flinkdeployments", 403), ("DELETE", "flinkdeployments", 403),
     ("PATCH", "flinkdeployments", 403), ("GET", "kafkatopics", 403), ("GET", "flinkdeployments", 500)],
)  # fmt: skip
def test_errors_hold_nothing_up_for_ever(
    world: World, own_server: Any, refuses: tuple[str, str, int]
) -> None:
    """A kind that is missing, a right that is lacking, an API that fails: the detector goes, and what is left over is told."""
    world.flink.works = False
    world.start()
    world.kube.delete(DETECTOR, world.namespace, "payments")
    settings = client.Configuration()
    settings.host, settings.verify_ssl = own_server.url, False
    settings.api_key = {"BearerToken": "Bearer admin-token"}
    kube = Refusing(client.ApiClient(settings))
    kube.refuses = refuses
    operator, failed = world.operator(kube), 0
    for _ in range(12):
        try:
            operator.reconcile(world.namespace, "payments")
        except ApiError:
            failed += 1
        if not world.exists():
            break
        world.ahead += TROUBLE_MS // 5
    assert not world.exists()
    assert (failed > 0) is (refuses[0] == "GET" and refuses[2] != 404)
    assert bool(world.events("NotDeleted")) is (refuses[2] != 404)


@pytest.mark.parametrize("world", ["Delete"], indirect=True)
def test_a_refusal_in_passing_costs_no_savepoint(world: World, own_server: Any) -> None:
    """A list that is refused once isn't an empty one: nothing else goes before the streaming job could be looked for."""
    world.start()
    world.kube.delete(DETECTOR, world.namespace, "payments")
    settings = client.Configuration()
    settings.host, settings.verify_ssl = own_server.url, False
    settings.api_key = {"BearerToken": "Bearer admin-token"}
    kube = Refusing(client.ApiClient(settings))
    kube.refuses = ("GET", "flinkdeployments", 403)
    with suppress(RefusedError):
        world.operator(kube).reconcile(world.namespace, "payments")
    topics = world.kube.list(TOPIC, world.namespace)
    assert world.exists() and not any(topic["metadata"].get("deletionTimestamp") for topic in topics)
    assert world.ends() and len(world.flink.savepoints) == 1


@pytest.mark.parametrize("world", ["Retain"], indirect=True)
def test_a_pause_holds_up_no_job_that_is_going(world: World) -> None:
    """An old job that was deleted before a pause, and that doesn't run, ends without a savepoint during it."""
    world.flink.state = "RESTARTING"
    world.start()
    extra = [{"name": "mine", "entity": "customer", "aggregate": "Count", "window": "2h"}]
    world.kube.merge(DETECTOR, world.namespace, "payments", {"spec": {"features": {"extra": extra}}})
    world.operator().reconcile(world.namespace, "payments")
    world.kube.merge(DETECTOR, world.namespace, "payments", {"spec": {"paused": True}})
    for _ in range(3):
        world.step()
    assert len(world.kube.list(FLINK, world.namespace)) == 1 and len(world.events("NoSavepoint")) == 1
