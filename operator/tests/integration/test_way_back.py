"""Nothing holds the way back: not a pause, not a spec that can't be built. Against a real API server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from fraud_contracts import names
from fraud_contracts.release import Release, parse_release
from fraud_operator.events import Recorder
from fraud_operator.kube import BY_KIND, DETECTOR, Kube
from fraud_operator.reconcile import Outcome, Reconciler
from fraud_operator.rollout import Phase, State
from fraud_operator.settings import Platform, Stores
from fraud_testing.rollouts import Eyes, Shelf, nodes

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[3]
STORES = Stores(
    redis_url="redis://x", postgres_dsn="postgresql://x", mlflow_tracking_uri="http://127.0.0.1:9"
)
PLATFORM = Platform(storage_uri="file:///s", stores=STORES)
POINTER = names.release_pointer("payments")


@dataclass
class Cluster:
    """One detector with its operator, in a namespace of its own."""

    kube: Kube
    namespace: str
    shelf: Shelf = field(default_factory=Shelf)

    def __post_init__(self) -> None:
        self.operator = self.another_operator()

    def another_operator(self) -> Reconciler:
        eyes = Eyes(self.kube)
        eyes.shelf = self.shelf
        self.operator = Reconciler(self.kube, PLATFORM, eyes, Recorder(self.kube))
        return self.operator

    def body(self) -> dict[str, Any]:
        found = self.kube.get(DETECTOR, self.namespace, "payments")
        assert found is not None
        return found

    def change(self, spec: dict[str, Any] | None = None, **orders: str) -> None:
        """Of the spec, and orders by annotation."""
        annotations = {f"{names.GROUP}/{order}": version for order, version in orders.items()}
        patch = {"spec": spec or {}, "metadata": {"annotations": annotations}}
        self.kube.merge(DETECTOR, self.namespace, "payments", patch)

    def condition(self, kind: str) -> dict[str, Any]:
        return next((c for c in self.body()["status"]["conditions"] if c["type"] == kind), {})

    def passed(self) -> Outcome:
        nodes(self.kube, self.namespace)
        return self.operator.reconcile(self.namespace, "payments")

    def settle(self, done: Callable[[], bool]) -> None:
        for _ in range(30):
            self.passed()
            if done():
                return
        raise AssertionError(f"{self.state()}, {self.body()['status']}")

    def pointer(self) -> tuple[Release, State]:
        found = self.kube.get(BY_KIND["ConfigMap"], self.namespace, POINTER)
        assert found is not None
        data = found["data"]
        return parse_release(data["release.json"]), State.model_validate_json(data["rollout.json"])

    def state(self) -> State:
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
    made = Cluster(server.kube(), server.namespace(request.node.name.replace("_", "-")[5:60].rstrip("-")))
    body: dict[str, Any] = yaml.safe_load((ROOT / "manifests/examples/payments.yaml").read_text())
    body["metadata"]["namespace"] = made.namespace
    body["spec"]["model"] = {"registered": {"name": "m"}}
    body["spec"]["rollout"] = {"steps": [5, 50], "stepDuration": "1ms", "keepPrevious": "1h"}
    made.kube.create(DETECTOR, body)
    made.settle(lambda: made.shelf.aliases.get("champion") == "1")
    made.shelf.aliases["challenger"] = "2"
    made.change(approve="2")
    made.settle(lambda: made.shelf.aliases.get("champion") == "2")
    made.change(approve="")
    made.passed()
    assert made.live() == "2" and made.state().phase is Phase.PROMOTED
    return made


def ramping(two: Cluster) -> None:
    """Version 3 answers a share of the payments beside version 2."""
    two.change({"rollout": {"stepDuration": "1h", "keepPrevious": "1ms"}})
    two.shelf.aliases["challenger"] = "3"
    two.kube.merge(
        BY_KIND["ConfigMap"], two.namespace, POINTER, {"data": {"rollout.json": kept_no_longer(two.state())}}
    )
    two.another_operator()
    two.change(approve="3")
    two.settle(lambda: two.state().phase is Phase.RAMP)


def kept_no_longer(state: State) -> str:
    """The time for which the previous version is kept is over."""
    return state.model_copy(update={"previous_until": 0}).model_dump_json(exclude_none=True)


RELEASES = {("ConfigMap", POINTER)}


def written(outcome: Outcome) -> set[tuple[str, str]]:
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
    assert two.live() == "1" and state.phase is Phase.ROLLED_BACK and release.policy == policy
    assert two.kube.get(BY_KIND["ConfigMap"], two.namespace, release.name) is not None
    assert two.kube.get(BY_KIND["Deployment"], two.namespace, "payments-console") is None
    assert any("taken back by annotation" in message for message in two.events("RolledBack"))
    assert two.passed().written == () and two.condition("Paused")["status"] == "True"
    two.change({"paused": False})
    two.settle(lambda: two.shelf.aliases["champion"] == "1")
    assert two.live() == "1" and two.pointer()[0].policy != policy
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

    def blind() -> Outcome:
        return two.operator.reconcile(two.namespace, "payments")

    blind()
    assert two.state().gone is not None and two.state().candidate == candidate
    assert two.condition("RolloutHealthy")["reason"] == "CandidateGone"
    later = 61_000
    blind()
    assert two.state().phase is Phase.ROLLED_BACK and two.state().candidate is None
    release = two.pointer()[0]
    assert release.candidate is None and release.split is None and two.live() == "2"
