"""Nothing holds the way back: not a pause, not a spec that can't be built. Against a real API server."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from fraud_contracts import names
from fraud_contracts.child_kinds import BY_KIND, DETECTOR
from fraud_contracts.release import Release, parse_release
from fraud_operator.events import Recorder
from fraud_operator.kube import Kube
from fraud_operator.ownership import snapshot
from fraud_operator.reconcile import PassResult, Reconciler
from fraud_operator.rollout_state import RolloutPhase, RolloutState
from fraud_operator.settings import Platform, StorageSettings, StoreAddresses
from fraud_testing.api_server import ADMIN, Server, binary
from fraud_testing.rollouts import FakeObserver, FakeRegistry, nodes
from fraud_testing.store_logins import willing

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[3]
STORES = StoreAddresses(
    redis_url="redis://x", postgres_dsn="postgresql://x", mlflow_tracking_uri="http://127.0.0.1:9"
)
PLATFORM = Platform(storage=StorageSettings(uri="file:///s", node_folder="/s"), stores=STORES)
POINTER = names.release_pointer("payments")


@dataclass
class Cluster:
    """One detector with its operator, in a namespace of its own."""

    server: Server
    kube: Kube
    namespace: str
    models: FakeRegistry = field(default_factory=FakeRegistry)

    def __post_init__(self) -> None:
        self.operator = self.another_operator()

    def another_operator(self) -> Reconciler:
        observer = FakeObserver(self.kube, logins=willing())
        observer.models = self.models
        self.operator = Reconciler(self.kube, PLATFORM, observer, Recorder(self.kube))
        return self.operator

    def body(self) -> dict[str, Any]:
        body = self.kube.get(DETECTOR, self.namespace, "payments")
        assert body is not None
        return body

    def change(self, spec: dict[str, Any] | None = None, **orders: str) -> None:
        """Of the spec, and orders by annotation."""
        annotations = {f"{names.GROUP}/{order}": version for order, version in orders.items()}
        patch = {"spec": spec or {}, "metadata": {"annotations": annotations}}
        self.kube.merge(DETECTOR, self.namespace, "payments", patch)

    def condition(self, kind: str) -> dict[str, Any]:
        return next((c for c in self.body()["status"]["conditions"] if c["type"] == kind), {})

    def waited_for(self, condition: str) -> bool:
        """Whether kubectl finds the condition true of the newest spec."""
        config = str(self.server.kubeconfig(ADMIN))
        command = [
            str(binary("kubectl")),
            "--kubeconfig",
            config,
            "-n",
            self.namespace,
            "wait",
            "fd/payments",
        ]
        flags = [f"--for=condition={condition}", "--timeout=1s"]
        return subprocess.run([*command, *flags], capture_output=True, check=False).returncode == 0

    def passed(self) -> PassResult:
        nodes(self.kube, self.namespace)
        return self.operator.reconcile(self.namespace, "payments")

    def settle(self, done: Callable[[], bool]) -> None:
        for _ in range(30):
            self.passed()
            if done():
                return
        raise AssertionError(f"{self.state()}, {self.body()['status']}")

    def pointer(self) -> tuple[Release, RolloutState]:
        body = self.kube.get(BY_KIND["ConfigMap"], self.namespace, POINTER)
        assert body is not None
        data = body["data"]
        return parse_release(data["release.json"]), RolloutState.model_validate_json(data["rollout.json"])

    def state(self) -> RolloutState:
        return self.pointer()[1]

    def live(self) -> str | None:
        release = self.pointer()[0]
        return release.stable.version if release.stable else None

    def events(self, reason: str) -> list[str]:
        return [
            e["message"] for e in self.kube.list(BY_KIND["Event"], self.namespace) if e["reason"] == reason
        ]


@pytest.fixture
def two(server: Any, request: pytest.FixtureRequest) -> Cluster:
    """Version 2 is live, version 1 is kept; no approval is left."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_"))[-60:].strip("-")
    cluster = Cluster(server, server.kube(), server.namespace(name))
    body: dict[str, Any] = yaml.safe_load((ROOT / "manifests/examples/payments.yaml").read_text())
    body["metadata"]["namespace"] = cluster.namespace
    body["spec"]["model"] = {"registered": {"name": "m"}}
    body["spec"]["rollout"] = {"steps": [5, 50], "stepDuration": "1ms", "keepPrevious": "1h"}
    cluster.kube.create(DETECTOR, body)
    cluster.settle(lambda: cluster.models.aliases.get("champion") == "1")
    cluster.models.aliases["challenger"] = "2"
    cluster.change(approve="2")
    cluster.settle(lambda: cluster.models.aliases.get("champion") == "2")
    cluster.change(approve="")
    cluster.passed()
    assert cluster.live() == "2" and cluster.state().phase is RolloutPhase.PROMOTED
    return cluster


def ramping(two: Cluster) -> None:
    """Version 3 answers a share of the payments beside version 2."""
    two.change({"rollout": {"stepDuration": "1h", "keepPrevious": "1ms"}})
    two.models.aliases["challenger"] = "3"
    two.kube.merge(
        BY_KIND["ConfigMap"], two.namespace, POINTER, {"data": {"rollout.json": kept_no_longer(two.state())}}
    )
    two.another_operator()
    two.change(approve="3")
    two.settle(lambda: two.state().phase is RolloutPhase.RAMP)


def kept_no_longer(state: RolloutState) -> str:
    """The time for which the previous version is kept is over."""
    return state.model_copy(update={"previous_until": 0}).model_dump_json(exclude_none=True)


RELEASES = {("ConfigMap", POINTER)}


def written(outcome: PassResult) -> set[tuple[str, str]]:
    return {(kind, name) for kind, name, _ in outcome.written if not name.startswith("payments-release-")}


def test_a_paused_detector_is_rolled_back(two: Cluster) -> None:
    """Under spec.paused a child stays deleted and the policy as it was, but the annotation takes the version back."""
    two.change({"paused": True})
    two.passed()
    policy = two.pointer()[0].policy
    two.change({"policy": {"bands": {"review": 1, "decline": 2}}})
    two.kube.delete(BY_KIND["Deployment"], two.namespace, "payments-console")
    assert two.passed().written == ()
    two.change(rollback="2")
    assert written(two.passed()) == RELEASES
    release, state = two.pointer()
    assert two.live() == "1" and state.phase is RolloutPhase.ROLLED_BACK and release.policy == policy
    assert two.kube.get(BY_KIND["ConfigMap"], two.namespace, release.name) is not None
    assert two.kube.get(BY_KIND["Deployment"], two.namespace, "payments-console") is None
    assert any("taken back by annotation" in message for message in two.events("RolledBack"))
    assert two.passed().written == () and two.condition("Paused")["status"] == "True"
    two.change({"paused": False})
    two.settle(lambda: two.models.aliases["champion"] == "1")
    assert two.live() == "1" and two.pointer()[0].policy != policy


def test_who_ordered_is_recorded(two: Cluster) -> None:
    """The manager that set the annotation stands in status, pointer, release and event, and a gate's or a failure's step has none."""
    patch = {"metadata": {"annotations": {names.ABORT_ANNOTATION: "3"}}}
    ramping(two)
    release, state = two.pointer()
    assert state.by is not None and state.by.startswith(f"approved by {names.FIELD_MANAGER} (Update at 20")
    assert two.body()["status"]["rollout"]["by"] == state.by
    stored = two.kube.get(BY_KIND["ConfigMap"], two.namespace, release.name)
    assert stored is not None and stored["metadata"]["annotations"][names.ORDERED_ANNOTATION] == state.by
    assert any(message.endswith(f"% of the entities, {state.by}") for message in two.events("Ramp"))
    path = DETECTOR.path(two.namespace, "payments")
    two.kube._call("PATCH", path, {"fieldManager": "ann-of-risk"}, patch, "application/merge-patch+json")
    two.settle(lambda: two.state().phase is RolloutPhase.ROLLED_BACK)
    assert (two.state().by or "").startswith("aborted by ann-of-risk (Update at 20")
    assert two.body()["status"]["rollout"]["by"] == two.state().by
    assert two.kube.get(BY_KIND["Deployment"], two.namespace, "payments-console") is not None


def test_a_paused_detectors_pin_rolls_back(two: Cluster) -> None:
    """Under spec.paused model.pin to the version that is kept makes it live in the same pass."""
    two.change({"paused": True, "model": {"pin": "1"}})
    assert written(two.passed()) == RELEASES and two.live() == "1"
    two.change({"paused": False, "model": {"pin": None}})
    for _ in range(4):
        two.passed()
    assert two.live() == "1" and two.state().candidate is None, "the alias still names 2, which was left"


def test_a_paused_detectors_dead_candidate_is_taken_back(two: Cluster) -> None:
    """A candidate that has lost its predictor gives way after a minute, also under spec.paused."""
    ramping(two)
    two.change({"paused": True})
    two.passed()
    candidate = two.state().candidate
    assert candidate is not None
    two.kube.delete(BY_KIND["Deployment"], two.namespace, f"payments-{candidate.slot}-predictor")
    clock, later = two.operator.clock, 0
    two.operator.clock = lambda: clock() + later

    def blind() -> PassResult:
        return two.operator.reconcile(two.namespace, "payments")

    blind()
    assert two.state().gone is not None and two.state().candidate == candidate
    assert two.condition("RolloutHealthy")["reason"] == "CandidateGone"
    later = 61_000
    blind()
    assert two.state().phase is RolloutPhase.ROLLED_BACK and two.state().candidate is None
    release = two.pointer()[0]
    assert release.candidate is None and release.split is None and two.live() == "2"


BROKEN = [{"name": "odd", "when": "event.amount >", "action": "Review"}]
PATH = "spec.policy.rules[0].when"


def versions(two: Cluster) -> dict[tuple[str, str], str]:
    uid = two.body()["metadata"]["uid"]
    return {
        key: child["metadata"]["resourceVersion"]
        for key, child in snapshot(two.kube, two.namespace, uid)[0].items()
    }


@pytest.mark.parametrize("restarted", [False, True], ids=["same", "restarted"])
def test_an_invalid_spec_leaves_the_last_valid_one_at_work(two: Cluster, restarted: bool) -> None:
    """What ran goes on, is repaired and rolled back, by an operator that starts anew too; who waits for the new spec isn't fooled."""
    cards = [{"name": "stolen", "field": "customer", "action": "Decline", "entries": [{"value": "4000001"}]}]
    two.change({"policy": {"lists": cards}})
    two.passed()
    two.passed()
    valid = two.body()["metadata"]["generation"]
    assert two.waited_for("ReleasePropagated")
    before, release = versions(two), two.pointer()[0]
    two.change({"policy": {"rules": BROKEN, "lists": []}, "components": [{"name": "Worker", "replicas": 3}]})
    if restarted:
        two.another_operator()
    two.passed()
    two.passed()
    status = two.body()["status"]
    assert versions(two) == before and two.pointer()[0] == release
    failed = two.condition("ValidationFailed")
    assert (
        failed["status"] == "True" and PATH in failed["message"] and failed["observedGeneration"] == valid + 1
    )
    assert status["observedGeneration"] == valid and two.condition("Ready")["observedGeneration"] == valid
    assert two.condition("ServingReady")["observedGeneration"] == valid and status["release"]["model"] == "2"
    assert two.condition("Degraded")["status"] == "True"
    assert two.condition("ReleasePropagated")["status"] == "True" and not two.waited_for("ReleasePropagated")
    assert two.waited_for("ValidationFailed")
    assert len([m for m in two.events("ValidationFailed") if PATH in m]) == 1

    two.kube.delete(BY_KIND["Deployment"], two.namespace, "payments-console")
    two.passed()
    assert two.kube.get(BY_KIND["Deployment"], two.namespace, "payments-console") is not None
    two.change(rollback="2")
    two.passed()
    assert two.live() == "1" and two.state().phase is RolloutPhase.ROLLED_BACK

    two.change({"policy": {"rules": []}, "components": []})
    two.passed()
    body = two.body()
    assert two.condition("ValidationFailed") == {} and not two.waited_for("ValidationFailed")
    assert body["status"]["observedGeneration"] == body["metadata"]["generation"] == valid + 2
    assert two.pointer()[0].policy.lists == []


def test_a_pause_and_retain_hold_though_the_spec_is_invalid(two: Cluster) -> None:
    """Of a spec that can't be built, paused: true and deletionPolicy: Retain count all the same; a rollback passes through."""
    two.change({"deletionPolicy": "Delete"})
    two.passed()
    kafka = two.kube.get(BY_KIND["Kafka"], two.namespace, "payments")
    assert kafka is not None and kafka["metadata"]["ownerReferences"]
    two.change({"deletionPolicy": "Retain", "policy": {"rules": BROKEN}})
    two.another_operator()
    two.passed()
    kafka = two.kube.get(BY_KIND["Kafka"], two.namespace, "payments")
    assert kafka is not None and not kafka["metadata"].get("ownerReferences")
    two.change({"paused": True})
    two.kube.delete(BY_KIND["Deployment"], two.namespace, "payments-console")
    assert two.passed().written == () and two.condition("Paused")["status"] == "True"
    two.change(rollback="2")
    assert written(two.passed()) == RELEASES and two.live() == "1"


def test_a_paused_rollout_holds_though_the_spec_is_invalid(two: Cluster) -> None:
    """Of a spec that can't be built, rollout.paused: true counts all the same: no version is prepared."""
    two.change({"rollout": {"paused": True, "keepPrevious": "1ms"}, "policy": {"rules": BROKEN}})
    two.models.aliases["challenger"] = "3"
    two.kube.merge(
        BY_KIND["ConfigMap"], two.namespace, POINTER, {"data": {"rollout.json": kept_no_longer(two.state())}}
    )
    two.another_operator()
    for _ in range(3):
        two.passed()
    assert two.state().previous is None and two.state().candidate is None and two.live() == "2"
    two.change({"rollout": {"paused": False}})
    two.settle(lambda: two.state().candidate is not None)


def test_what_a_stricter_platform_refuses_is_still_rolled_back(two: Cluster) -> None:
    """Where even the last valid spec is refused now, nothing is changed, but the annotation takes the version back."""
    before = versions(two)
    two.another_operator()
    two.operator.platform = PLATFORM.model_copy(update={"stores": StoreAddresses()})
    assert two.passed().written == () and versions(two) == before
    assert "spec.stores.redis" in two.condition("ValidationFailed")["message"]
    generation = two.body()["metadata"]["generation"]
    assert two.condition("Ready")["observedGeneration"] == generation - 1
    two.change(rollback="2")
    assert written(two.passed()) == RELEASES and two.live() == "1"


def test_a_detector_with_an_invalid_spec_can_be_deleted(two: Cluster) -> None:
    """The finalizer goes by the newest spec's policy, also where that spec can't be built."""
    two.change({"policy": {"rules": BROKEN}, "deletionPolicy": "Delete"})
    two.passed()
    two.kube.delete(DETECTOR, two.namespace, "payments")
    for _ in range(10):
        two.operator.reconcile(two.namespace, "payments")
        if two.kube.get(DETECTOR, two.namespace, "payments") is None:
            break
    assert two.kube.get(DETECTOR, two.namespace, "payments") is None
    assert two.kube.get(BY_KIND["Kafka"], two.namespace, "payments") is None
