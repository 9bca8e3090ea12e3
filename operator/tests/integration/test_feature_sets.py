"""A changed feature set on a live detector, against a real API server: built beside, approved, handed over, and back again.

Each pass is another operator's: all that a hand-over goes by is in the cluster, but for how long a job has been seen to stand still.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from fraud_contracts import names
from fraud_contracts.child_kinds import BY_KIND, DETECTOR
from fraud_contracts.config import CONFIG_KEY, RELEASE_KEY, DetectorConfig
from fraud_contracts.lineage import LINEAGES_KEY, Lineages, Positions
from fraud_contracts.release import parse_release
from fraud_operator.detector import Detector
from fraud_operator.events import Recorder
from fraud_operator.facts import Facts, KafkaFact
from fraud_operator.kafka_target import KafkaTarget
from fraud_operator.kube import Kube
from fraud_operator.lags import LagReader
from fraud_operator.lineage import HELD_BACK, Held
from fraud_operator.reconcile import Reconciler
from fraud_operator.registry import Version
from fraud_operator.settings import Platform, StorageSettings, StoreAddresses
from fraud_operator.stream_sources import StreamSources
from fraud_testing.rollouts import FakeObserver, FakeRegistry, nodes
from fraud_testing.store_logins import willing

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[3]
STORES = StoreAddresses(
    redis_url="redis://x", postgres_dsn="postgresql://x", mlflow_tracking_uri="http://127.0.0.1:9"
)
PLATFORM = Platform(storage=StorageSettings(uri="file:///s", node_folder="/s"), stores=STORES)
TOPICS = {"transactions": "t1", "accepted": "a1", "labels": "l1", "seeds": "s1"}
EXTRA = {"name": "customer_count_2h", "entity": "customer", "aggregate": "Count", "window": "2h"}
ENDS = 2 * HELD_BACK


class Registry(FakeRegistry):
    """A version is of the feature set that was declared when it was looked at first."""

    def __init__(self) -> None:
        super().__init__()
        self.sets: dict[str, str] = {}

    def version(self, name: str, version: str) -> Version:
        self.sets.setdefault(version, self.feature_set)
        found = super().version(name, version)
        return Version(name, version, found.digest, self.sets[version], "", found.score_map)


class Sources(StreamSources):
    """Both jobs have read everything, the worker has decided it."""

    def topics(self, detector: Detector, facts: Facts) -> Mapping[str, str] | None:
        return TOPICS

    def committed(
        self, detector: Detector, stream: str, target: KafkaTarget, reader: LagReader
    ) -> Positions | None:
        return {"transactions": {0: ENDS}}

    def held(self, detector: Detector, target: KafkaTarget, reader: LagReader) -> Held | None:
        return {"transactions": {0: (0, ENDS)}}

    def behind(self, detector: Detector, target: KafkaTarget, reader: LagReader) -> int | None:
        return 0

    def undecided(self, detector: Detector, target: KafkaTarget, reader: LagReader) -> int | None:
        return 0


class Observer(FakeObserver):
    def kafka(self, detector: Detector) -> tuple[KafkaTarget | None, KafkaFact]:
        return KafkaTarget("k:9092"), KafkaFact(True, "External", "it answers", topics=TOPICS)


@dataclass
class Cluster:
    kube: Kube
    namespace: str
    models: Registry = field(default_factory=Registry)
    late: int = 0
    # What has to be seen by one and the same operator: that the job that answers stands still.
    seen: dict[Any, Any] = field(default_factory=dict)

    def passed(self) -> None:
        nodes(self.kube, self.namespace)
        for body in self.kube.list(BY_KIND["Deployment"], self.namespace):
            meta, replicas = body["metadata"], body["spec"]["replicas"]
            if meta["name"] != names.worker("payments"):
                continue
            counts = dict.fromkeys(
                ("replicas", "readyReplicas", "updatedReplicas", "availableReplicas"), replicas
            )
            status = {"observedGeneration": meta["generation"], **counts}
            self.kube.merge(BY_KIND["Deployment"], self.namespace, meta["name"], {"status": status}, "status")
        observer = Observer(self.kube, logins=willing(), sources=Sources())
        observer.models = self.models
        operator = Reconciler(self.kube, PLATFORM, observer, Recorder(self.kube))
        clock, self.late = operator.clock, self.late + 3_000
        operator.clock = lambda: clock() + self.late
        operator.lineages._still = self.seen
        operator.reconcile(self.namespace, "payments")

    def settle(self, done: Callable[[], bool]) -> None:
        for _ in range(40):
            self.passed()
            if done():
                return
        raise AssertionError(json.dumps(self.status(), indent=1))

    def change(self, spec: dict[str, Any] | None = None, **orders: str) -> None:
        annotations = {f"{names.GROUP}/{order}": version for order, version in orders.items()}
        patch = {"spec": spec or {}, "metadata": {"annotations": annotations}}
        self.kube.merge(DETECTOR, self.namespace, "payments", patch)

    def status(self) -> dict[str, Any]:
        body = self.kube.get(DETECTOR, self.namespace, "payments")
        assert body is not None
        return dict(body["status"])

    def condition(self, kind: str) -> dict[str, Any]:
        return next((c for c in self.status()["conditions"] if c["type"] == kind), {})

    def data(self, name: str) -> dict[str, str]:
        body = self.kube.get(BY_KIND["ConfigMap"], self.namespace, name)
        return {} if body is None else dict(body["data"])

    @property
    def lineages(self) -> Lineages:
        return Lineages.model_validate_json(self.data(names.release_pointer("payments"))[LINEAGES_KEY])

    @property
    def document(self) -> DetectorConfig:
        return DetectorConfig.model_validate_json(self.data(names.config("payments"))[CONFIG_KEY])

    def live(self) -> tuple[str | None, str]:
        """Version and feature set that answer."""
        release = parse_release(self.data(names.release_pointer("payments"))[RELEASE_KEY])
        return release.stable.version if release.stable else None, self.document.feature_set

    @property
    def worker(self) -> dict[str, Any]:
        body = self.kube.get(BY_KIND["Deployment"], self.namespace, names.worker("payments"))
        assert body is not None
        return dict(body["spec"]["template"])

    def jobs(self) -> dict[str, dict[str, Any]]:
        found = self.kube.list(BY_KIND["FlinkDeployment"], self.namespace)
        return {job["metadata"]["name"]: job for job in found if not job["metadata"].get("deletionTimestamp")}

    def beginnings(self) -> dict[str, dict[str, Any]]:
        out: dict[str, dict[str, Any]] = {}
        for name, job in self.jobs().items():
            arguments = job["spec"]["job"]["args"]
            has = "--beginning" in arguments
            out[name] = json.loads(arguments[arguments.index("--beginning") + 1]) if has else {}
        return out

    def mounts(self, job: str) -> str:
        volumes = self.jobs()[job]["spec"]["podTemplate"]["spec"]["volumes"]
        return str(next(one["configMap"]["name"] for one in volumes if one["name"] == "config"))


@pytest.fixture
def live(server: Any, request: pytest.FixtureRequest) -> Cluster:
    """Version 1 of the first feature set answers."""
    name = request.node.name.removeprefix("test_").replace("_", "-")[-50:].strip("-")
    cluster = Cluster(server.kube(), server.namespace(name))
    body: dict[str, Any] = yaml.safe_load((ROOT / "manifests/examples/payments.yaml").read_text())
    body["metadata"]["namespace"] = cluster.namespace
    body["spec"]["model"] = {"registered": {"name": "m"}}
    body["spec"]["kafka"] = {"external": {"bootstrapServers": "k:9092"}, "partitions": 1}
    body["spec"]["rollout"] = {"steps": [5, 50], "stepDuration": "1ms", "keepPrevious": "1h"}
    cluster.kube.create(DETECTOR, body)
    cluster.settle(lambda: cluster.models.aliases.get("champion") == "1")
    return cluster


def test_a_changed_feature_set_answers_once_it_is_approved_and_goes_back(live: Cluster) -> None:
    """Change, candidate, approval, switch, rollback; at each step what answers has its stream, its document and its model."""
    old, worker = live.document.feature_set, live.worker
    [first] = live.jobs()
    policy = {"rules": [{"name": "busy", "when": "features.customer_count_2h > 9.0", "action": "Review"}]}
    live.change({"features": {"extra": [EXTRA]}, "policy": policy})
    live.settle(lambda: len(live.jobs()) == 2)
    assert live.live() == ("1", old) and live.condition("StreamingReady")["status"] == "True"
    assert live.worker == worker, "nothing that decides is restarted"
    assert live.status()["featureSet"] != old[:6] == live.status()["release"]["featureSet"]
    assert live.condition("ModelResolved")["reason"] == "NoVersionYet"
    [second] = set(live.jobs()) - {first}
    assert second.endswith("-2")
    assert live.beginnings()[first] == {} and live.beginnings()[second]["silent"]
    beside = DetectorConfig.model_validate_json(live.data(live.mounts(second))[CONFIG_KEY])
    assert (beside.decided, beside.epoch) == (live.document.stream, 2) and beside.feature_set != old
    message = live.condition("RolloutHealthy")["message"]
    assert f"feature set {beside.hash6} is built beside {old[:6]}" in message
    assert "customer_count_2h" in message and "the policy from before stays" in message

    live.models.aliases["challenger"] = "2"
    live.settle(lambda: "was trained on the new feature set" in live.condition("RolloutHealthy")["message"])
    for _ in range(5):
        live.passed()
    assert live.live() == ("1", old) and live.status()["rollout"]["phase"] == "Preparing"

    live.change(approve="2")
    live.settle(lambda: live.lineages.hand_over is None and live.live()[0] == "2")
    assert live.live() == ("2", beside.feature_set) and live.document.epoch == 2
    assert live.beginnings() == {
        first: {"silent": True},
        second: {"emits_from": {"transactions": {"0": ENDS}}},
    }
    assert live.mounts(second) == names.config("payments") != live.mounts(first)
    assert {job["spec"]["job"]["state"] for job in live.jobs().values()} == {"running"}
    release = parse_release(live.data(names.release_pointer("payments"))[RELEASE_KEY])
    assert [rule.name for rule in release.policy.rules] == ["busy"]

    live.change(approve="", rollback="2")
    live.passed()
    assert live.live() == (None, beside.feature_set), "the version that was taken back answers nobody"
    assert live.condition("ModelLive")["reason"] == "HandingOver"
    live.settle(lambda: live.lineages.hand_over is None and live.live()[0] == "1")
    assert live.live() == ("1", old) and live.document.epoch == 1
    assert live.beginnings()[second]["silent"] and "silent" not in live.beginnings()[first]
    release = parse_release(live.data(names.release_pointer("payments"))[RELEASE_KEY])
    assert [rule.name for rule in release.policy.rules] == ["big-night"]


def test_a_feature_set_that_is_put_back_leaves_everything_as_it_was(live: Cluster) -> None:
    """The job beside goes, and its document; also where the operator met a spec that it refuses meanwhile."""
    old, before = live.document, set(live.jobs())
    live.change({"features": {"extra": [EXTRA]}})
    live.settle(lambda: len(live.jobs()) == 2)
    broken = [{"name": "odd", "when": "event.amount >", "action": "Review"}]
    live.change({"policy": {"rules": broken}})
    live.passed()
    live.passed()
    assert len(live.jobs()) == 2 and live.condition("ValidationFailed")["status"] == "True"
    live.change({"features": {"extra": []}, "policy": {"rules": []}})
    live.settle(lambda: set(live.jobs()) == before)
    live.passed()
    assert live.document.feature_set == old.feature_set and live.live()[0] == "1"
    assert live.lineages.wanted is None and live.lineages.highest == 2


def test_a_pause_calls_a_hand_over_off(live: Cluster) -> None:
    """The stream isn't left standing: the job that answers goes on, and nothing else changes."""
    live.change({"features": {"extra": [EXTRA]}}, approve="2")
    live.settle(lambda: len(live.jobs()) == 2)
    live.models.aliases["challenger"] = "2"
    live.settle(lambda: {job["spec"]["job"]["state"] for job in live.jobs().values()} == {"suspended"})
    live.change({"paused": True})
    live.settle(lambda: {job["spec"]["job"]["state"] for job in live.jobs().values()} == {"running"})
    assert live.lineages.hand_over is None and live.live()[0] == "1"
    live.change({"paused": False})
    live.settle(lambda: live.live()[0] == "2")
