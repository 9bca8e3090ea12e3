"""What waits while the storage won't do, in whole passes over objects in memory, and what a pass changes all the same."""

from __future__ import annotations

import base64
import copy
from dataclasses import replace
from typing import Any

import pytest

from fraud_contracts import names
from fraud_contracts.child_kinds import DETECTOR
from fraud_operator import storage_hold
from fraud_operator.buckets import CHECKED, Bucket, Buckets
from fraud_operator.desired.child import Child
from fraud_operator.events import Recorder
from fraud_operator.facts import StorageFact
from fraud_operator.lineage import StoredState
from fraud_operator.objects import Json
from fraud_operator.observe import Observer
from fraud_operator.reconcile import Reconciler
from fraud_operator.settings import Platform, StorageSettings
from fraud_operator.stored_states import StoredStates
from fraud_testing.healthy import SPEC, STORES
from fraud_testing.memory_cluster import Cluster
from fraud_testing.store_logins import willing

KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"}
OWN = {"storage": {"uri": "s3://bank/fraud", "secretRef": {"name": "mine"}}}
BAD = StorageFact(False, "AccessDenied", "field: remedy")
LAKE = ("Deployment", "d-lake-sink")
STORES_SECRET = ("Secret", "d-stores")


class Operated:
    """A detector whose bucket answers what a test sets."""

    def __init__(self, settings: StorageSettings, **spec: Any) -> None:
        self.kube, self.fact, self.settings = Cluster(), CHECKED, settings
        self.write(**spec)
        self.give("mine", KEYS)

    def write(self, **spec: Any) -> None:
        """Its spec, anew."""
        before = self.kube.objects.get((DETECTOR.kind, "d"), {})
        meta = {
            "name": "d",
            "namespace": "n",
            "uid": "u",
            "resourceVersion": "1",
            **before.get("metadata", {}),
        }
        meta["generation"] = meta.get("generation", 0) + 1
        body = {**before, "metadata": meta, "spec": {**SPEC, "model": {"none": {}}, **spec}}
        self.kube.objects[DETECTOR.kind, "d"] = body

    def give(self, name: str, values: dict[str, str]) -> None:
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        self.kube.objects["Secret", name] = {"metadata": {"name": name}, "data": data}

    def conditions(self) -> dict[str, Any]:
        """After a pass of an operator that has just started."""

        def answer(_: Bucket, again: bool) -> StorageFact:
            return self.fact

        observer = Observer(
            self.kube,
            buckets=Buckets(answer),
            logins=willing(),
            states=StoredStates(lambda *_: StoredState()),
        )
        platform = Platform(storage=self.settings, stores=STORES)
        Reconciler(self.kube, platform, observer, Recorder(self.kube)).reconcile("n", "d")
        return {c["type"]: c for c in self.kube.objects[DETECTOR.kind, "d"]["status"]["conditions"]}

    def streams(self) -> list[str]:
        return [name for kind, name in self.kube.objects if kind == "FlinkDeployment"]

    def lake(self) -> Json:
        return dict(self.kube.objects[LAKE]["spec"])


@pytest.fixture
def operated() -> Operated:
    one = Operated(StorageSettings(), **OWN)
    assert one.conditions()["StorageReady"]["reason"] == "Checked"
    return one


def test_a_secret_that_is_not_there_reaches_no_running_job(operated: Operated) -> None:
    """A slip in secretRef changes neither the streaming job nor the lake sink, and StorageReady says that they wait."""
    [stream], before = operated.streams(), copy.deepcopy(operated.kube.objects)
    operated.write(storage={"uri": "s3://bank/fraud", "secretRef": {"name": "mien"}})
    ready = operated.conditions()["StorageReady"]
    assert ready["reason"] == "SecretMissing"
    assert ready["message"].endswith(
        f"; until it is right, FlinkDeployment {stream}, Deployment d-lake-sink won't be changed"
    )
    for key in (LAKE, ("FlinkDeployment", stream)):
        assert operated.kube.objects[key] == before[key]
    operated.give("mien", KEYS)
    assert "changed" not in operated.conditions()["StorageReady"]["message"]
    assert operated.kube.objects[LAKE] != before[LAKE]


def test_other_keys_restart_what_uses_them(operated: Operated) -> None:
    """New keys in the same Secret change the Pods of the streaming job and the lake sink, once they are checked; no value is shown."""

    def stamps() -> dict[str, str]:
        [stream] = operated.streams()
        templates = {
            "lake": operated.lake()["template"],
            "stream": operated.kube.objects["FlinkDeployment", stream]["spec"]["podTemplate"],
            "ledger": operated.kube.objects["Deployment", "d-ledger-sink"]["spec"]["template"],
        }
        return {
            part: template["metadata"]["annotations"].get(names.STORAGE_KEYS_ANNOTATION, "")
            for part, template in templates.items()
        }

    before = stamps()
    assert len(before["lake"]) == 12 and before["stream"] == before["lake"] and before["ledger"] == ""
    operated.conditions()
    assert stamps() == before
    operated.give("mine", {**KEYS, "AWS_SECRET_ACCESS_KEY": "other"})
    operated.fact = BAD
    assert "won't be changed" in operated.conditions()["StorageReady"]["message"] and stamps() == before
    operated.fact = CHECKED
    operated.conditions()
    assert stamps()["stream"] == stamps()["lake"] != before["lake"] and stamps()["ledger"] == ""


def test_the_keys_digest_is_a_detectors_own() -> None:
    """The same keys have another digest in another detector, and a role has none."""
    bucket = Bucket("s3://bank", "f", "o", KEYS)
    assert bucket.keys_digest("u") != bucket.keys_digest("v")
    assert replace(bucket, credentials={}).keys_digest("u") == ""


def test_what_is_as_it_should_be_does_not_wait(operated: Operated) -> None:
    """A bucket that won't do holds nothing up where nothing was changed; other parts are changed as ever."""
    operated.fact = BAD
    assert operated.conditions()["StorageReady"]["message"] == "field: remedy"
    operated.write(**OWN, components=[{"name": "Console", "replicas": 0}])
    operated.conditions()
    assert operated.kube.objects["Deployment", "d-console"]["spec"]["replicas"] == 0


def test_a_store_that_goes_away_takes_nothing_away(operated: Operated) -> None:
    """Only the status tells of it, once: no child is changed, restarted or deleted, and the Pods' keys stay."""

    def there() -> dict[tuple[str, str], Json]:
        """All but events and what each write counts on."""
        objects = copy.deepcopy(operated.kube.objects)
        for body in objects.values():
            body["metadata"].pop("resourceVersion", None)
        return {key: body for key, body in objects.items() if key[0] != "Event"}

    before = there()
    operated.fact = StorageFact(False, "Unreachable", "no answer")
    assert operated.conditions()["StorageReady"]["reason"] == "StorageAway"
    told = there()
    assert {key for key in before.keys() | told.keys() if before.get(key) != told.get(key)} == {
        (DETECTOR.kind, "d")
    }
    operated.conditions()
    assert there() == told


def test_a_part_may_be_stopped_while_the_storage_wont_do(operated: Operated) -> None:
    """Without Pods the lake sink needs no storage; with some again it waits."""
    operated.fact = BAD
    operated.write(**OWN, components=[{"name": "LakeSink", "replicas": 0}])
    operated.conditions()
    assert operated.lake()["replicas"] == 0
    operated.write(**OWN, components=[{"name": "LakeSink", "replicas": 1}])
    assert "Deployment d-lake-sink won't be changed" in operated.conditions()["StorageReady"]["message"]
    assert operated.lake()["replicas"] == 0


def test_a_stream_stays_until_its_successor_is_made(operated: Operated) -> None:
    """Other features are another streaming job: the old one runs on while the new one waits for the storage."""
    [old] = operated.streams()
    operated.fact = BAD
    extra = {"name": "n_1h", "entity": "customer", "aggregate": "Count", "window": "1h"}
    operated.write(**OWN, features={"extra": [extra]})
    streaming = operated.conditions()["StreamingReady"]
    assert streaming["reason"] == "StorageNotReady" and operated.streams() == [old]
    operated.fact = CHECKED
    operated.conditions()
    [new] = operated.streams()
    assert new != old


@pytest.mark.parametrize("by", ["keys", "role"])
def test_a_running_pods_way_in_stays_until_the_next_is_right(by: str) -> None:
    """The platform's keys or role aren't taken away for a Secret of one's own that isn't there yet."""
    role = {"arn": "x"}
    access = {"credentials": KEYS} if by == "keys" else {"account_annotations": role}
    operated = Operated(StorageSettings.model_validate({"uri": "s3://default", **access}))

    def way_in() -> bool:
        accounts = [
            body["metadata"] for (kind, _), body in operated.kube.objects.items() if kind == "ServiceAccount"
        ]
        keys = operated.kube.objects[STORES_SECRET]["data"].keys() & KEYS.keys()
        return bool(keys) if by == "keys" else any(meta.get("annotations") == role for meta in accounts)

    operated.conditions()
    assert way_in()
    operated.write(storage={"uri": "s3://default/n.d", "secretRef": {"name": "mien"}})
    operated.conditions()
    assert way_in()
    operated.give("mien", KEYS)
    operated.conditions()
    assert not way_in()


def test_a_running_training_stays_until_the_next_is_made() -> None:
    """Of a part in whose place another waits nothing is surplus; of parts that don't wait everything may be."""
    meta = {"name": "d-new", "labels": {names.COMPONENT_LABEL: "training"}}
    job = Child({"kind": "RayJob", "metadata": meta}, once=True, needs_storage=True)
    live = {("RayJob", "d-old"): {"metadata": meta}, ("FlinkDeployment", "d-x"): {"metadata": meta}}
    assert storage_hold.kept([job], live) == [("RayJob", "d-old")]
    assert storage_hold.kept([], live) == []
    assert storage_hold.changed([job, replace(job, once=False)], {("RayJob", "d-new"): {}}) == (
        "RayJob d-new",
    )
