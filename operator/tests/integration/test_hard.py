"""The operator as a process, against everything that the world does to it: hands, kills, an API server that dies, time.

One API server of its own with the garbage collector. Engines' operators are absent, which is what "paused engines" means
here: no child ever gets a status, so every detector stays on its way, the busiest kind of idling.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fraud_contracts import names
from fraud_contracts.child_kinds import BY_KIND, CHILD_KINDS, DETECTOR
from fraud_contracts.detector_clients import default_clients
from fraud_contracts.release import ModelPackage, Release
from fraud_operator.detector_keys import new_keys
from fraud_operator.kube import Kube
from fraud_operator.ownership import snapshot
from fraud_operator.rollout_state import ROLLOUT_KEY, RolloutPhase, RolloutState
from fraud_testing.api_server import received
from fraud_testing.child_edits import edit
from fraud_testing.kafka import wait_for
from fraud_testing.operator_process import OperatorProcess, install, render

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[3]
IDLE = [f"idle-{number:02}" for number in range(20)]
WORK = ["drift", "gone", "kept", "removed", "killed", "outage", "lacking"]
IDLE_SECONDS = 300
# An edit or a deletion is repaired within this time, so the bar says; the machine is shared while tests run.
REPAIR_SECONDS = 10
Key = tuple[str, str]


def detector(namespace: str, **spec: Any) -> dict[str, Any]:
    body: dict[str, Any] = yaml.safe_load((ROOT / "manifests/examples/payments.yaml").read_text())
    body["metadata"]["namespace"] = namespace
    body["spec"] |= spec
    return body


def package(version: str, slot: Any) -> ModelPackage:
    return ModelPackage(
        name="m", version=version, digest="sha256:" + version * 64, feature_set="f" * 64, slot=slot,
        url=f"http://payments-{slot}-predictor.drift.svc:80", score_map=[(0.0, 0.0), (1.0, 1000.0)],
    )  # fmt: skip


def children(kube: Kube, namespace: str, uid: str) -> dict[Key, dict[str, Any]]:
    """All of the detector's, the Secrets too; not what other controllers make of them."""
    own = dict(snapshot(kube, namespace, uid)[0])
    clients = [names.client("payments", client.name) for client in default_clients()]
    own_secrets = (names.keys("payments"), names.stores("payments"), names.clients("payments"), *clients)
    for name in own_secrets:
        secret = kube.get(BY_KIND["Secret"], namespace, name)
        if secret is not None:
            own["Secret", name] = {"kind": "Secret", **secret}
    return own


def versions(kube: Kube, namespace: str, uid: str) -> dict[Key, str]:
    versions = {
        key: child["metadata"]["resourceVersion"] for key, child in children(kube, namespace, uid).items()
    }
    body = kube.get(DETECTOR, namespace, "payments")
    assert body is not None
    return versions | {("FraudDetector", "payments"): body["metadata"]["resourceVersion"]}


@pytest.fixture(scope="module")
def kube(own_server: Any) -> Kube:
    kube: Kube = own_server.kube()
    for name in ["fraud-platform", *IDLE, *WORK]:
        own_server.namespace(name)
    install(kube, render())
    return kube


@pytest.fixture(scope="module", autouse=True)
def idle(own_server: Any, kube: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[float]:
    """Twenty detectors under an operator of their own, from now to the module's end; the moment of their making."""
    running = OperatorProcess(own_server.api, tmp_path_factory.mktemp("idle"), IDLE)
    kafka = {"external": {"bootstrapServers": "127.0.0.1:9"}, "partitions": 2}
    try:
        running.start()
        for namespace in IDLE:
            kube.create(DETECTOR, detector(namespace, kafka=kafka))
        yield time.monotonic()
        assert running.alive
    finally:
        running.stop()


@pytest.fixture
def operator(own_server: Any, kube: Kube, tmp_path: Path) -> Iterator[OperatorProcess]:
    """Another one, for the other namespaces; a test may kill it."""
    running = OperatorProcess(own_server.api, tmp_path, WORK)
    try:
        running.start()
        yield running
    finally:
        running.stop()


def settled(kube: Kube, namespace: str, uid: str, at_least: int) -> dict[Key, dict[str, Any]]:
    """The children once there are so many and nothing changes any more."""
    wait_for(lambda: len(children(kube, namespace, uid)) >= at_least, 120, f"children in {namespace}")
    before: dict[Key, str] = {}

    def quiet() -> bool:
        nonlocal before
        time.sleep(2)
        now, last = versions(kube, namespace, uid), before
        before = now
        return now == last

    wait_for(quiet, 60, f"{namespace} settles")
    return children(kube, namespace, uid)


def with_both_slots(kube: Kube, namespace: str) -> dict[str, Any]:
    """A detector in the middle of a rollout: its pointer is there before it, as one that outlived an earlier detector."""
    state = RolloutState(
        phase=RolloutPhase.SHADOW, since=1, stable=package("1", "a"), candidate=package("2", "b")
    )
    body = detector(namespace)
    release = Release(
        name="payments-release-old", stable=state.stable, candidate=state.candidate,
        policy=body["spec"]["policy"], policy_revision=1,
    )  # fmt: skip
    pointer = {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "payments-release", "namespace": namespace},
        "data": {"release.json": release.to_json(), ROLLOUT_KEY: state.model_dump_json(exclude_none=True)},
    }  # fmt: skip
    kube.apply(BY_KIND["ConfigMap"], pointer)
    keys = {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "payments-keys", "namespace": namespace},
        "stringData": new_keys(),
    }  # fmt: skip
    kube.create(BY_KIND["Secret"], keys)
    return kube.create(DETECTOR, body)


def test_a_kind_that_is_missing_is_named(kube: Kube, operator: OperatorProcess) -> None:
    """Without KubeRay's kinds a condition says what to install; once they are there, training begins by itself."""
    name = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/rayjobs.ray.io"
    crd = kube._call("GET", name)
    kube._call("DELETE", name)
    try:
        wait_for(lambda: not _is_served(kube, name), 120, "the kind is gone")
        kube.create(DETECTOR, detector("lacking"))

        def training() -> Any:
            body = kube.get(DETECTOR, "lacking", "payments") or {}
            conditions = {c["type"]: c for c in body.get("status", {}).get("conditions", [])}
            return conditions.get("TrainingSucceeded")

        wait_for(training, 120, "a status")
        condition = training()
        assert (
            condition["reason"] == "OperatorMissing"
            and "install the KubeRay operator" in condition["message"]
        )
    finally:
        crd["metadata"] = {
            key: crd["metadata"][key] for key in ("name", "annotations") if key in crd["metadata"]
        }
        crd.pop("status", None)
        kube._call("POST", name.rpartition("/")[0], None, crd)
    wait_for(lambda: _is_served(kube, "/apis/ray.io/v1/rayjobs"), 60, "the kind is served")
    wait_for(lambda: kube.list(BY_KIND["RayJob"], "lacking"), 40, "a RayJob")


def _is_served(kube: Kube, path: str) -> bool:
    try:
        kube._call("GET", path)
    except Exception:
        return False
    return True


def repair_seconds(key: Key) -> float:
    """Of a Secret no event tells: they are looked at in turn, those of several detectors within a minute."""
    return 60 if key[0] == "Secret" else REPAIR_SECONDS


def test_each_edited_child_comes_back(kube: Kube, operator: OperatorProcess) -> None:
    """Each child of a detector in mid-rollout, its label and a field of its spec changed by hand, is as before in time."""
    uid = with_both_slots(kube, "drift")["metadata"]["uid"]
    before = settled(kube, "drift", uid, 42)
    assert {kind for kind, _ in before} == {kind.kind for kind in CHILD_KINDS if not kind.former}, (
        "a kind has no child to edit"
    )
    took: dict[Key, float] = {}
    for kind in sorted({kind for kind, _ in before}):
        started = {}
        for key in (key for key in before if key[0] == kind):
            kube._call(
                "PATCH", BY_KIND[kind].path("drift", key[1]), {"fieldManager": "kubectl-edit"}, edit(before[key]),
                "application/merge-patch+json",
            )  # fmt: skip
            started[key] = time.monotonic()

        def back(key: Key) -> bool:
            live = kube.get(BY_KIND[key[0]], "drift", key[1])
            parts = ("spec", "data", "rules", "subjects")
            return (
                live is not None
                and live["metadata"]["labels"] == before[key]["metadata"]["labels"]
                and all(live.get(part) == before[key].get(part) for part in parts)
            )

        for key, moment in started.items():
            wait_for(lambda key=key: back(key), repair_seconds(key), f"{key} is as it was")  # type: ignore[misc]  # mypy infers no lambda default
            took[key] = time.monotonic() - moment
    print(f"{len(took)} children edited; slowest repair {max(took.values()):.1f} s")


def test_each_deleted_child_comes_back(kube: Kube, operator: OperatorProcess) -> None:
    """Each child of a detector in mid-rollout is there again in time, the keys and the rollout's state as they were."""
    uid = with_both_slots(kube, "gone")["metadata"]["uid"]
    before = settled(kube, "gone", uid, 42)
    took: dict[Key, float] = {}
    for kind in sorted({kind for kind, _ in before}):
        started = {}
        for key in (key for key in before if key[0] == kind):
            kube.delete(BY_KIND[kind], "gone", key[1])
            started[key] = time.monotonic()

        def back(key: Key) -> bool:
            live = kube.get(BY_KIND[key[0]], "gone", key[1])
            return live is not None and live["metadata"]["uid"] != before[key]["metadata"]["uid"]

        for key, moment in started.items():
            wait_for(lambda key=key: back(key), repair_seconds(key), f"{key} is back")  # type: ignore[misc]  # mypy infers no lambda default
            took[key] = time.monotonic() - moment
    after = settled(kube, "gone", uid, len(before))
    assert after.keys() == before.keys()
    once = (("Secret", "payments-keys"), ("Secret", "payments-client-payments"))
    for key in (*once, ("ConfigMap", "payments-release")):
        assert after[key]["data"] == before[key]["data"], key
    print(f"{len(took)} children deleted; slowest repair {max(took.values()):.1f} s")


def left(kube: Kube, namespace: str) -> set[Key]:
    """Everything in a namespace of the kinds that a detector is made of; Kubernetes' own two are in every namespace."""
    objects = {
        (kind.kind, item["metadata"]["name"])
        for kind in (*CHILD_KINDS, DETECTOR)
        for item in kube.list(kind, namespace)
    }
    return objects - {("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default")}


def test_retain_leaves_the_log_the_keys_and_the_releases(kube: Kube, operator: OperatorProcess) -> None:
    """After a deletion with Retain there are Kafka with its pool and topics, keys, clients' Secrets and releases, and nothing else.

    Kafka's users, too, are gone.
    """
    uid = kube.create(DETECTOR, detector("kept", deletionPolicy="Retain"))["metadata"]["uid"]
    before = settled(kube, "kept", uid, 42)
    kube.delete(DETECTOR, "kept", "payments")
    kept = {key for key in before if key[0] in ("Kafka", "KafkaNodePool", "KafkaTopic")}
    kept |= {("Secret", "payments-keys")}
    kept |= {key for key in before if key[0] == "Secret" and key[1].startswith("payments-client-")}
    kept |= {key for key in before if key[0] == "ConfigMap" and key[1].startswith("payments-release")}
    wait_for(lambda: left(kube, "kept") == kept, 60, "only what is kept is left")
    pool = next(key for key in kept if key[0] == "KafkaNodePool")
    volumes = kube.get(BY_KIND["KafkaNodePool"], "kept", pool[1])["spec"]["storage"]["volumes"]  # type: ignore[index]  # it exists
    assert not any(volume.get("deleteClaim") for volume in volumes)
    keys = kube.get(BY_KIND["Secret"], "kept", "payments-keys")["data"]  # type: ignore[index]  # it exists
    again = kube.create(DETECTOR, detector("kept", deletionPolicy="Retain"))["metadata"]["uid"]
    after = settled(kube, "kept", again, len(before))
    assert after["Secret", "payments-keys"]["data"] == keys, "a detector made again goes on with its keys"


def test_delete_leaves_nothing(kube: Kube, operator: OperatorProcess) -> None:
    """After a deletion with Delete nothing of a detector's kinds is left, though the operator is killed in the middle of it."""
    uid = kube.create(DETECTOR, detector("removed", deletionPolicy="Delete"))["metadata"]["uid"]
    settled(kube, "removed", uid, 42)
    topics = [name for kind, name in children(kube, "removed", uid) if kind == "KafkaTopic"]
    # A topic operator that hasn't let go yet: the deletion can't end, and the operator is killed while it waits.
    held = {"metadata": {"finalizers": ["strimzi.io/topic-operator"]}}
    kube.merge(BY_KIND["KafkaTopic"], "removed", topics[0], held)
    kube.delete(DETECTOR, "removed", "payments")

    def waits() -> bool:
        topic = kube.get(BY_KIND["KafkaTopic"], "removed", topics[0])
        return topic is not None and "deletionTimestamp" in topic["metadata"]

    wait_for(waits, 20, "the topics are being deleted")
    operator.kill()
    assert kube.get(BY_KIND["Kafka"], "removed", "payments") is not None, "Kafka goes after its topics"
    operator.start()
    kube.merge(BY_KIND["KafkaTopic"], "removed", topics[0], {"metadata": {"finalizers": None}})
    wait_for(lambda: left(kube, "removed") == set(), 60, "nothing is left")


def test_killed_in_the_middle_of_a_first_apply(kube: Kube, operator: OperatorProcess) -> None:
    """Killed after the first children, again and again: all children come, the keys never change, there is one RayJob."""
    uid = kube.create(DETECTOR, detector("killed"))["metadata"]["uid"]
    keys = []
    for count in (2, 14, 26, 38):
        wait_for(lambda count=count: len(children(kube, "killed", uid)) >= count, 120, f"{count} children")  # type: ignore[misc]  # mypy infers no lambda default
        operator.kill()
        secret = kube.get(BY_KIND["Secret"], "killed", "payments-keys")
        keys += [secret["data"]] if secret else []
        operator.start(ready=False)
    # While an operator starts nothing changes either: it must be at work, and the last child there, before quiet counts.
    wait_for(lambda: operator.get("/readyz"), 120, "readyz")
    wait_for(lambda: any(kind == "RayJob" for kind, _ in children(kube, "killed", uid)), 120, "a training")
    after = settled(kube, "killed", uid, 42)
    assert [kind for kind, _ in after].count("RayJob") == 1
    assert all(earlier == after["Secret", "payments-keys"]["data"] for earlier in keys)


@pytest.mark.accept
def test_an_api_server_that_dies_is_outlived(own_server: Any, kube: Kube, operator: OperatorProcess) -> None:
    """The API server is killed while a detector is being made: the same operator goes on, and its watches see again."""
    uid = kube.create(DETECTOR, detector("outage"))["metadata"]["uid"]
    wait_for(lambda: len(children(kube, "outage", uid)) >= 5, 120, "first children")
    own_server.restart_api()
    settled(kube, "outage", uid, 42)
    assert operator.alive
    service = (BY_KIND["Service"], "outage", "payments-decision")
    kube.delete(*service)
    wait_for(lambda: kube.get(*service), 2 * REPAIR_SECONDS, "a child after the outage")
    kube.delete(DETECTOR, "outage", "payments")
    wait_for(
        lambda: kube.get(DETECTOR, "outage", "payments") is None,
        2 * REPAIR_SECONDS,
        "an event after the outage",
    )


def test_fifty_applies_change_nothing(kube: Kube, operator: OperatorProcess) -> None:
    """The same resource applied fifty times changes no resourceVersion, and makes the operator write nothing."""
    body = detector("drift")
    uid = kube.get(DETECTOR, "drift", "payments")["metadata"]["uid"]  # type: ignore[index]  # it exists
    kube._call(
        "PATCH", DETECTOR.path("drift", "payments"), {"fieldManager": "kubectl", "force": "true"}, body,
        "application/apply-patch+yaml",
    )  # fmt: skip
    settled(kube, "drift", uid, 42)
    before = versions(kube, "drift", uid)
    for _ in range(50):
        kube._call(
            "PATCH",
            DETECTOR.path("drift", "payments"),
            {"fieldManager": "kubectl"},
            body,
            "application/apply-patch+yaml",
        )
    # A pass that one of them had asked for has been made when the operator has repaired what is taken away after them.
    taken = ("Service", "payments-console")
    kube.delete(BY_KIND["Service"], "drift", "payments-console")

    def repaired() -> bool:
        return versions(kube, "drift", uid).get(taken, before[taken]) != before[taken]

    wait_for(repaired, 2 * REPAIR_SECONDS, "the console's Service again")
    assert {**versions(kube, "drift", uid), taken: ""} == {**before, taken: ""}


@pytest.mark.accept
def test_twenty_idle_detectors_write_nothing(own_server: Any, kube: Kube, idle: float) -> None:
    """Twenty detectors idle for five minutes, through an outage of the API server: not one write of any kind is asked for."""
    spaces = set(IDLE)

    def writes() -> list[tuple[float, str]]:
        mine = [w for w in own_server.api.writes() if (w.get("objectRef") or {}).get("namespace") in spaces]
        return [(received(w), f"{w['verb']} {w['requestURI']}") for w in mine]

    last = max(moment for moment, _ in writes())
    while time.time() - last < IDLE_SECONDS:
        # The last of them, a minute after the making, is the status that says that no operator of an engine has come.
        time.sleep(min(10.0, IDLE_SECONDS - (time.time() - last) + 0.1))
        assert time.monotonic() - idle < 3 * IDLE_SECONDS, f"they never come to rest: {writes()[-5:]}"
        last = max(moment for moment, _ in writes())
    for namespace in IDLE:
        body = kube.get(DETECTOR, namespace, "payments")
        assert body is not None and body["status"]["conditions"]
        assert len(children(kube, namespace, body["metadata"]["uid"])) >= 30
