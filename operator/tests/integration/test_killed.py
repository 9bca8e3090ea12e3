"""An operator that dies after each single change it makes, through a whole rollout and a deletion, and always goes on right.

The change is made, its answer is never seen, and the next process knows nothing of the one before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from kubernetes import client

from fraud_contracts import names
from fraud_contracts.child_kinds import BY_KIND, DETECTOR
from fraud_contracts.release import parse_release
from fraud_operator.events import Recorder
from fraud_operator.kube import ApiError, Kube
from fraud_operator.ownership import snapshot
from fraud_operator.reconcile import Reconciler
from fraud_operator.rollout_state import RolloutPhase, RolloutState
from fraud_operator.settings import Platform, StorageSettings, StoreAddresses
from fraud_testing.rollouts import FakeObserver, FakeRegistry, nodes
from fraud_testing.store_logins import willing

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[3]
NAMESPACE = "one-change-a-life"
STORES = StoreAddresses(
    redis_url="redis://x", postgres_dsn="postgresql://x", mlflow_tracking_uri="http://127.0.0.1:9"
)
PLATFORM = Platform(storage=StorageSettings(uri="file:///s", node_folder="/s"), stores=STORES)


class Killed(BaseException):
    """No error that anything may handle: the process is gone."""


class Dying(Kube):
    """Dies with the first request that changed an object; events are no state, and not counted."""

    deaths: ClassVar[Counter[str]] = Counter()

    def _call(self, method: str, path: str, query: Any = None, body: Any = None, content: str = "application/json") -> Any:  # fmt: skip
        before = None if method == "GET" else self._version(path)
        answer = super()._call(method, path, query, body, content)
        counted = method != "GET" and not path.endswith("/events")
        if counted and (method != "PATCH" or answer["metadata"].get("resourceVersion") != before):
            Dying.deaths[f"{method} {path.split('/')[-2 if method == 'PATCH' else -1]}"] += 1
            raise Killed
        return answer

    def _version(self, path: str) -> str | None:
        try:
            version: str = super()._call("GET", path)["metadata"].get("resourceVersion")
            return version
        except ApiError:
            return None


def test_a_rollout_and_a_deletion_survive_a_death_after_each_change(server: Any) -> None:
    """Version 2 takes over from 1 step by step and nothing is made twice, lost or tried again; then Delete takes all away."""
    kube: Kube = server.kube()
    server.namespace(NAMESPACE)
    models = FakeRegistry()

    def operator(kube: Kube) -> Reconciler:
        observer = FakeObserver(kube, logins=willing())
        observer.models = models
        return Reconciler(kube, PLATFORM, observer, Recorder(kube))

    body: dict[str, Any] = yaml.safe_load((ROOT / "manifests/examples/payments.yaml").read_text())
    body["metadata"]["namespace"] = NAMESPACE
    body["spec"] |= {"deletionPolicy": "Delete", "model": {"registered": {"name": "m"}}}
    body["spec"]["rollout"] = {"steps": [5, 50], "stepDuration": "1ms", "keepPrevious": "1h"}
    uid = kube.create(DETECTOR, body)["metadata"]["uid"]

    def state() -> RolloutState:
        body = kube.get(BY_KIND["ConfigMap"], NAMESPACE, names.release_pointer("payments"))
        assert body is not None
        return RolloutState.model_validate_json(body["data"]["rollout.json"])

    def until(done: Callable[[], bool], make: Callable[[], Kube], most: int = 150) -> list[RolloutPhase]:
        phases: list[RolloutPhase] = []
        for _ in range(most):
            nodes(kube, NAMESPACE)
            try:
                operator(make()).reconcile(NAMESPACE, "payments")
            except Killed:
                pass
            if kube.get(BY_KIND["ConfigMap"], NAMESPACE, names.release_pointer("payments")) is not None:
                phase = state().phase
                phases += [phase] if not phases or phases[-1] is not phase else []
            if done():
                return phases
        raise AssertionError(f"not done after {most} lives; {phases}, {Dying.deaths}")

    until(lambda: state().stable is not None and models.aliases.get("champion") == "1", lambda: kube)
    keys = kube.get(BY_KIND["Secret"], NAMESPACE, "payments-keys")
    assert keys is not None

    settings = client.Configuration()
    settings.host, settings.verify_ssl = server.url, False
    settings.api_key = {"BearerToken": "Bearer admin-token"}
    connection = client.ApiClient(settings)
    models.aliases["challenger"] = "2"
    annotations = {"metadata": {"annotations": {names.APPROVE_ANNOTATION: "2"}}}
    kube.merge(DETECTOR, NAMESPACE, "payments", annotations)
    phases = until(lambda: models.aliases["champion"] == "2", lambda: Dying(connection))
    # The first life ends with the Service of the other slot's predictors.
    assert phases == [
        RolloutPhase.PROMOTED,
        RolloutPhase.PREPARING,
        RolloutPhase.SHADOW,
        RolloutPhase.RAMP,
        RolloutPhase.PROMOTED,
    ]
    after = state()
    assert after.stable is not None and after.stable.version == "2" and after.rejected == ()
    assert (
        after.previous is not None
        and after.previous.version == "1"
        and after.stable.slot != after.previous.slot
    )
    assert sum(Dying.deaths.values()) >= 10, Dying.deaths

    children, _ = snapshot(kube, NAMESPACE, uid)
    pointer = parse_release(children["ConfigMap", "payments-release"]["data"]["release.json"])
    releases = [
        name for kind, name in children if kind == "ConfigMap" and name.startswith("payments-release-")
    ]
    # Rules alone, 1, 1 with 2 in its shadow, the two steps, 2: each once, though made by processes that never knew it.
    assert len(releases) == 6 and pointer.name in releases
    assert Counter(kind for kind, _ in children)["InferenceService"] == 2
    again = kube.get(BY_KIND["Secret"], NAMESPACE, "payments-keys")
    assert again is not None and again["data"] == keys["data"]

    Dying.deaths.clear()
    kube.delete(DETECTOR, NAMESPACE, "payments")
    until(lambda: kube.get(DETECTOR, NAMESPACE, "payments") is None, lambda: Dying(connection))
    assert sum(Dying.deaths.values()) >= 20, Dying.deaths
    kept, _ = snapshot(kube, NAMESPACE, uid)
    # The rest, Kafka's users too, goes with its owner, by a controller that isn't here.
    assert not [
        (kind, name)
        for kind, name in kept
        if kind in ("Kafka", "KafkaNodePool", "KafkaTopic") or (kind == "ConfigMap" and "release" in name)
    ]
    assert kube.get(BY_KIND["Secret"], NAMESPACE, "payments-keys") is None
