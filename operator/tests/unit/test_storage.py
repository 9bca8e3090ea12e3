"""Storage: what a URI may be, whose keys reach which Pod, when a bucket is asked, and what waits for its answer."""

from __future__ import annotations

import base64
import itertools
import json
import re
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fraud_contracts import names, object_store
from fraud_contracts.detector import Component
from fraud_operator import readiness
from fraud_operator.buckets import CHECKED, LONGEST_RETRY, Bucket, Buckets, bucket_of
from fraud_operator.conditions import Trouble, conditions
from fraud_operator.desired.child import Child, Wanted
from fraud_operator.desired.children import build_children
from fraud_operator.desired.components import COMPONENTS
from fraud_operator.detector import Detector
from fraud_operator.facts import Facts, StorageFact
from fraud_operator.releases import make_release
from fraud_operator.rollout_state import RolloutState
from fraud_operator.settings import Platform, StorageSettings, load_platform
from fraud_operator.storage import faults
from fraud_testing import flink_cluster
from fraud_testing.healthy import NOW, STORES, healthy_facts, make_detector

ROOT = Path(__file__).resolve().parents[3]
KEYS = {
    "AWS_ACCESS_KEY_ID": "id",
    "AWS_SECRET_ACCESS_KEY": "key",
    "AWS_ENDPOINT_URL": "http://u:p@objects:9000",
}
NODE = StorageSettings(node_folder="/data/fraud/")
OWN = {"storage": {"uri": "s3://bank/fraud", "secretRef": {"name": "mine"}}}


def on(settings: StorageSettings, **spec: Any) -> Detector:
    return replace(make_detector(**spec), platform=Platform(storage=settings, stores=STORES))


def secret(**values: str) -> dict[str, Any]:
    return {"data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}}


@pytest.mark.parametrize(
    "uri", ["s3://bank", "s3://bank/a/b=c", "file:///data/fraud/a", "file:///data/fraud/a/b"]
)
def test_a_good_uri_has_no_fault(uri: str) -> None:
    """A bucket, a folder in it, and a folder below the platform's are taken."""
    assert faults(uri, False, NODE) == []


@pytest.mark.parametrize(
    ("uri", "remedy"),
    [
        ("", "give s3://bucket/folder"),
        ("s3://", "write s3://bucket/folder"),
        ("s3://a..b/x", "write s3://bucket/folder"),
        ("s3://bank//x", "between single slashes"),
        ("s3://bank/a b", "between single slashes"),
        ("s3://bank/../x", "between single slashes"),
        ("file:///etc/kubernetes", "write file:///data/fraud/NAME"),
        ("file:///data/fraud", "write file:///data/fraud/NAME"),
        ("file:///data/fraud/", "write file:///data/fraud/NAME"),
        ("file:///data/fraudulent/x", "write file:///data/fraud/NAME"),
        ("file:///data/fraud/../../etc", "with no .. in it"),
        ("file://data/fraud/x", "write file:///data/fraud/NAME"),
    ],
)
def test_a_bad_uri_is_named_with_the_remedy(uri: str, remedy: str) -> None:
    """What is no bucket, or lies outside of the node's folder, is a fault of spec.storage.uri that says what to write."""
    [fault] = faults(uri, False, NODE)
    assert fault.path == "spec.storage.uri" and remedy in fault.message


S3_URIS = {
    "s3://bank": True,
    "s3://bank/": True,
    "s3://my.bank-1/a/b=c/_d.e": True,
    "s3://bank/..a/b.": True,
    "s3://": False,
    "s3://ab": False,
    "s3://Bank/a": False,
    "s3://a..b/x": False,
    "s3://-bank": False,
    "s3://bank//x": False,
    "s3://bank/a b": False,
    "s3://bank/a?x=1": False,
    "s3://bank/..": False,
    "s3://bank/../x": False,
    "s3://bank/x/./y": False,
    "s3://bank/x/./": False,
}


@pytest.mark.parametrize(("uri", "allowed"), S3_URIS.items())
def test_chart_and_operator_take_the_same_uris(uri: str, allowed: bool) -> None:
    """What the chart's schema lets in as the platform's storage is no fault of any detector, and what it refuses would be one."""
    schema = json.loads((ROOT / "charts/fraud-platform/values.schema.json").read_text())
    rule = schema["properties"]["storage"]["properties"]["uri"]
    chart = re.search(rule["pattern"], uri) is not None and not re.search(rule["not"]["pattern"], uri)
    detector = on(StorageSettings(uri=uri))
    assert (chart, faults(detector.storage_uri, True, StorageSettings()) == []) == (allowed, allowed)


def test_a_nodes_folder_needs_the_charts_switch() -> None:
    """Without a root of the platform's no file:// URI is taken, its own default neither."""
    [fault] = faults("file:///data/x", True, StorageSettings())
    assert "storage.nodeFolder" in fault.message and "the platform's default file:///data/x" in fault.message


def test_the_platforms_keys_come_under_names_of_their_own(tmp_path: Any) -> None:
    """The operator's own client must not find them: a gap in a detector's Secret would be filled from them."""
    (tmp_path / "p.json").write_text('{"storage": {"uri": "s3://bank"}}')
    environ = {
        "FRAUD_PLATFORM": str(tmp_path / "p.json"),
        "STORAGE_AWS_ACCESS_KEY_ID": "id",
        "AWS_REGION": "x",
    }
    platform = load_platform(environ)
    assert platform.storage == StorageSettings(uri="s3://bank", credentials={"AWS_ACCESS_KEY_ID": "id"})


def _children(detector: Detector) -> list[Child]:
    release = make_release(detector, RolloutState(), None, detector.spec.policy)
    return build_children(detector, Wanted(release, RolloutState(), "r" * 16))


def _environments(value: Any) -> list[list[dict[str, Any]]]:
    if isinstance(value, dict):
        own = [value["env"]] if "env" in value else []
        return own + [env for item in value.values() for env in _environments(item)]
    return [env for item in value for env in _environments(item)] if isinstance(value, list) else []


def _with_keys(detector: Detector) -> dict[str, dict[str, Any]]:
    """By component: the reference that each of its AWS_ variables makes."""
    found = {}
    for child in _children(detector):
        label = child.body["metadata"]["labels"].get(names.COMPONENT_LABEL)
        for env in _environments(child.body):
            keys = {
                one["name"]: one["valueFrom"]["secretKeyRef"] for one in env if one["name"].startswith("AWS_")
            }
            if keys:
                found[label] = keys
    return found


STORAGE_LABELS = {defaults.label for defaults in COMPONENTS.values() if defaults.storage}


def test_the_specs_own_keys_reach_what_uses_storage() -> None:
    """Features, training and the lake sink get the four variables from the spec's Secret, and no other component any."""
    found = _with_keys(on(StorageSettings(uri="s3://default", credentials=KEYS), **OWN))
    assert set(found) == STORAGE_LABELS == {"features", "training", "lake-sink"}
    for keys in found.values():
        assert set(keys) == set(object_store.KEYS)
        assert {ref["name"] for ref in keys.values()} == {"mine"}
        optional = {name for name, ref in keys.items() if ref.get("optional")}
        assert optional == {"AWS_REGION", "AWS_ENDPOINT_URL"}


def test_the_platforms_keys_are_copied_with_its_storage_alone() -> None:
    """They lie in the detector's stores Secret where it uses the platform's storage; a detector with its own gets none."""
    settings = StorageSettings(uri="s3://default", credentials=KEYS)

    def copied(detector: Detector) -> set[str]:
        [stores] = [c for c in _children(detector) if (c.kind, c.name) == ("Secret", "d-stores")]
        return {key for key in stores.body["data"] if key.startswith("AWS_")}

    assert copied(on(settings)) == set(KEYS)
    assert {ref["name"] for keys in _with_keys(on(settings)).values() for ref in keys.values()} == {
        "d-stores"
    }
    assert copied(on(settings, **OWN)) == set()
    assert copied(on(NODE, storage={"uri": "file:///data/fraud/a"})) == set()


def test_a_role_is_given_to_accounts_that_use_storage() -> None:
    """Without keys the chart's annotations are on three accounts; with keys, or on a node's folder, on none."""
    role = {"eks.amazonaws.com/role-arn": "arn:x"}

    def annotated(detector: Detector) -> set[str]:
        accounts = [c.body["metadata"] for c in _children(detector) if c.kind == "ServiceAccount"]
        return {meta["labels"][names.COMPONENT_LABEL] for meta in accounts if meta.get("annotations") == role}

    by_role = StorageSettings(uri="s3://default", account_annotations=role)
    assert annotated(on(by_role)) == {COMPONENTS[c].account for c in Component if COMPONENTS[c].storage}
    [flink] = [child for child in _children(on(by_role)) if child.kind == "FlinkDeployment"]
    assert "WebIdentity" in flink.body["spec"]["flinkConfiguration"]["s3.aws.credentials.provider"]
    assert annotated(on(by_role.model_copy(update={"credentials": KEYS}))) == set()
    node = by_role.model_copy(update={"node_folder": "/data/fraud"})
    assert annotated(on(node, storage={"uri": "file:///data/fraud/a"})) == set()


def test_flinks_configuration_names_the_store_without_its_keys() -> None:
    """Endpoint and region are left for the Pods' environment to fill in, and no credential is in the FlinkDeployment."""
    detector = on(StorageSettings(uri="s3://default", credentials=KEYS))
    [flink] = [child for child in _children(detector) if child.kind == "FlinkDeployment"]
    configuration = flink.body["spec"]["flinkConfiguration"]
    assert configuration["high-availability.storageDir"].startswith("s3://default/n.d/flink/")
    assert configuration["s3.endpoint"] == "${env.AWS_ENDPOINT_URL:-}"
    assert not any(key in configuration for key in ("s3.access-key", "s3.secret-key"))
    assert "s3.aws.credentials.provider" not in configuration
    # The stream's own tests run with what its README says.
    assert flink_cluster.documented()["objectStore"].items() <= configuration.items()


def test_a_secret_is_judged_before_the_bucket() -> None:
    """An absent Secret and one without a key are told with field and remedy, and nothing is asked."""
    detector = on(StorageSettings(), **OWN)
    absent, lacking = (
        bucket_of(detector, None),
        bucket_of(detector, secret(AWS_ACCESS_KEY_ID="id", FOO="bar")),
    )
    assert isinstance(absent, StorageFact) and absent.reason == "SecretMissing"
    assert absent.message.startswith("spec.storage.secretRef: there is no Secret mine in n; make it with")
    assert isinstance(lacking, StorageFact) and lacking.reason == "SecretKeyMissing"
    assert (
        lacking.message == "spec.storage.secretRef: Secret mine in n lacks AWS_SECRET_ACCESS_KEY; put it in"
    )
    whole = bucket_of(detector, secret(**KEYS, FOO="bar"))
    assert isinstance(whole, Bucket) and whole.credentials == KEYS
    assert whole.words == "bucket bank at objects:9000"


def test_the_platforms_own_secret_is_judged_too() -> None:
    """A key that the chart's Secret lacks is told with the chart's field, and no role is taken in its place."""
    settings = StorageSettings(uri="s3://default", secret="objects", credentials={"AWS_ACCESS_KEY_ID": "id"})
    fact = bucket_of(on(settings), None)
    assert isinstance(fact, StorageFact) and fact.reason == "SecretKeyMissing"
    assert fact.message.startswith(
        "the chart's storage.existingSecret: Secret objects lacks AWS_SECRET_ACCESS_KEY"
    )
    assert on(settings).storage_secret == "d-stores"


def test_the_platforms_bucket_is_one_for_all_detectors() -> None:
    """Detectors on the platform's storage share one question, asked in the folder above theirs."""
    settings = StorageSettings(uri="s3://default/a/", credentials=KEYS)
    one, two = bucket_of(on(settings), None), bucket_of(replace(on(settings), name="e"), None)
    assert isinstance(one, Bucket) and isinstance(two, Bucket)
    assert one.key == two.key and one.uri == "s3://default/a"
    assert "key" not in one.key and one.key != replace(one, credentials={}).key


class _AtOnce(Executor):
    """Runs what it is given before it returns."""

    def submit(self, work: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(work(*arguments, **named))
        return future


class _Asked:
    """A bucket check that answers what a test sets, and counts."""

    def __init__(self, fact: StorageFact) -> None:
        self.fact, self.count, self.now = fact, 0, 0.0

    def __call__(self, bucket: Bucket) -> StorageFact:
        self.count += 1
        return self.fact


def test_a_good_bucket_is_asked_once() -> None:
    """After a good answer no pass asks again, whatever time goes by; other keys are another question."""
    asked = _Asked(CHECKED)
    buckets, bucket = Buckets(asked, lambda: asked.now, _AtOnce()), Bucket("s3://bank", "f", "o", KEYS)
    assert buckets.look(bucket) == CHECKED
    asked.now = 1e6
    assert buckets.look(bucket) == CHECKED and asked.count == 1
    buckets.look(replace(bucket, credentials={**KEYS, "AWS_ACCESS_KEY_ID": "other"}))
    assert asked.count == 2


def test_a_bad_bucket_is_asked_again_with_patience() -> None:
    """Passes in between read the last answer; the pauses double up to a minute, and a mended bucket is taken up."""
    bad = StorageFact(False, "BucketAbsent", "m")
    asked = _Asked(bad)
    buckets, bucket = Buckets(asked, lambda: asked.now, _AtOnce()), Bucket("s3://bank", "f", "o", KEYS)
    times = []
    for second in range(400):
        asked.now = float(second)
        before = asked.count
        assert buckets.look(bucket) == bad
        times += [second] if asked.count > before else []
    assert (
        times[:5] == [0, 10, 30, 70, 130]
        and max(b - a for a, b in itertools.pairwise(times)) == LONGEST_RETRY
    )
    asked.fact, asked.now = CHECKED, 500.0
    buckets.look(bucket)
    assert buckets.look(bucket) == CHECKED


def test_a_check_that_breaks_is_no_answer() -> None:
    """A fault of ours leaves the bucket unknown, and isn't tried in every pass."""
    asked = _Asked(CHECKED)

    def broken(bucket: Bucket) -> StorageFact:
        asked.count += 1
        raise RuntimeError("no")

    buckets, bucket = Buckets(broken, lambda: asked.now, _AtOnce()), Bucket("s3://bank", "f", "o", KEYS)
    assert [buckets.look(bucket).ready for _ in range(5)] == [None] * 5
    assert asked.count == 1


def test_a_bucket_that_wont_do_is_degraded_and_held_up() -> None:
    """StorageReady says why, Degraded repeats it, and what isn't there yet waits for it by name."""
    detector = make_detector()
    facts = Facts(now=NOW, revision="0" * 16, storage=StorageFact(False, "NotWritable", "field: remedy"))
    states = conditions(detector, facts, Trouble())
    assert (states["StorageReady"].status, states["StorageReady"].reason) == (False, "NotWritable")
    assert states["Degraded"].message == "StorageReady: field: remedy"
    for name in ("StreamingReady", "TrainingSucceeded"):
        assert states[name].reason == "StorageNotReady" and "field: remedy" in states[name].message


def test_a_bucket_that_is_waited_for_is_looked_at_soon_again() -> None:
    """No event tells of a bucket's answer; of a detector whose bucket is right, all that is waited for sends events."""
    detector = make_detector()
    facts = healthy_facts(detector)
    for ready in (False, None):
        assert readiness.unwatched(detector, replace(facts, storage=StorageFact(ready, "r", "m")))
    assert not readiness.unwatched(detector, facts)


def test_a_bucket_that_is_lost_later_stops_nothing() -> None:
    """With all parts there, a bad answer makes the detector Degraded and leaves it Ready."""
    detector = make_detector()
    facts = replace(healthy_facts(detector), storage=StorageFact(False, "Unreachable", "m"))
    states = conditions(detector, facts, Trouble())
    assert states["Ready"].status is True and states["Degraded"].status is True
    assert states["StreamingReady"].reason == "JobRunning"


def test_what_needs_storage_says_so() -> None:
    """The objects that are held back are the streaming job, training and the lake sink."""
    held = {
        (child.kind, child.body["metadata"]["labels"][names.COMPONENT_LABEL])
        for child in _children(make_detector())
        if child.needs_storage
    }
    assert held == {("FlinkDeployment", "features"), ("RayJob", "training"), ("Deployment", "lake-sink")}
