"""Storage: what a URI may be, whose keys reach which Pod, and what waits for its answer."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fraud_contracts import names, object_store
from fraud_contracts.config import CONFIG_KEY
from fraud_contracts.detector import Component
from fraud_operator import changes, readiness
from fraud_operator.buckets import Bucket, bucket_of, open_bucket
from fraud_operator.conditions import Trouble, conditions
from fraud_operator.desired.child import Child, Wanted
from fraud_operator.desired.children import build_children
from fraud_operator.desired.components import COMPONENTS
from fraud_operator.detector import Detector
from fraud_operator.facts import Facts, StorageFact
from fraud_operator.releases import make_release
from fraud_operator.rollout_state import RolloutState
from fraud_operator.settings import Platform, StorageSettings, load_platform
from fraud_operator.storage import default_uri, faults
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


@pytest.mark.parametrize("uri", ["s3://bank", "s3://bank/a/b=c", "file:///data/fraud/n.d"])
def test_a_good_uri_has_no_fault(uri: str) -> None:
    """A bucket, a folder in it, and the detector's own folder of the node are taken."""
    assert faults(uri, "n.d", NODE, with_keys=True) == []


@pytest.mark.parametrize(
    ("uri", "remedy"),
    [
        ("", "give s3://bucket/folder"),
        ("s3://", "write s3://bucket/folder"),
        ("s3://a..b/x", "write s3://bucket/folder"),
        ("s3://bank//x", "between single slashes"),
        ("s3://bank/a b", "between single slashes"),
        ("s3://bank/../x", "between single slashes"),
        ("file:///etc/kubernetes", "write file:///data/fraud/n.d"),
        ("file:///data/fraud", "write file:///data/fraud/n.d"),
        ("file:///data/fraud/", "write file:///data/fraud/n.d"),
        ("file:///data/fraud/n.e", "write file:///data/fraud/n.d"),
        ("file:///data/fraud/n.d/link", "write file:///data/fraud/n.d"),
        ("file:///data/fraudulent/n.d", "write file:///data/fraud/n.d"),
        ("file:///data/fraud/../../etc", "write file:///data/fraud/n.d"),
        ("file://data/fraud/n.d", "write file:///data/fraud/n.d"),
    ],
)
def test_a_bad_uri_is_named_with_the_remedy(uri: str, remedy: str) -> None:
    """What is no bucket, or another folder of the node than the detector's own, is a fault of spec.storage.uri that says what to write."""
    [fault] = faults(uri, "n.d", NODE, with_keys=True)
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
    settings = StorageSettings(uri=uri)
    assert (chart, faults(default_uri("n.d", settings), "n.d", settings, default=True) == []) == (
        allowed,
        allowed,
    )


def test_the_platforms_keys_open_a_detectors_own_folder_alone() -> None:
    """Without a Secret of its own a detector gets no bucket, nor any folder but its own, that the platform's keys or role reach."""
    settings = StorageSettings(uri="s3://default/a/")
    for own in ("s3://default/a/n.d", "s3://default/a/n.d/deeper"):
        assert faults(own, "n.d", settings) == []
    for foreign in ("s3://bank/n.d", "s3://default/a", "s3://default/a/n.e", "s3://default/a/n.dd"):
        [fault] = faults(foreign, "n.d", settings)
        assert fault.path == "spec.storage.secretRef" and "s3://default/a/n.d alone" in fault.message
        assert faults(foreign, "n.d", settings, with_keys=True) == []
    [fault] = faults("s3://bank/x", "n.d", StorageSettings())
    assert fault.message.endswith("AWS_SECRET_ACCESS_KEY that opens s3://bank/x")


def test_a_stored_detector_is_not_asked_for_with_the_platforms_keys() -> None:
    """One whose bucket is no longer taken is judged by its spec's fault, before any store is asked."""
    fact = bucket_of(on(StorageSettings(uri="s3://default"), storage={"uri": "s3://bank"}), None)
    assert isinstance(fact, StorageFact) and (fact.ready, fact.reason) == (False, "ValidationFailed")
    assert fact.message.startswith("spec.storage.secretRef: is missing")


def test_a_detectors_own_folder_may_be_written_down() -> None:
    """The folder that the default resolves to has the platform's keys also where the spec names it."""
    detector = on(StorageSettings(uri="s3://default", credentials=KEYS), storage={"uri": "s3://default/n.d"})
    asked = bucket_of(detector, None)
    assert isinstance(asked, Bucket) and (asked.uri, asked.credentials) == ("s3://default", KEYS)
    assert detector.storage_secret == "d-stores"


def test_a_moved_default_names_the_way_back() -> None:
    """Where the platform's default moved, the old folder is to be written down, with a secretRef for what no platform's keys open."""

    def told(before: str, **spec: Any) -> str:
        live = on(StorageSettings(uri=before, node_folder="/data/fraud"))
        fields = {"f:data": {f"f:{CONFIG_KEY}": {}}}
        meta = {"managedFields": [{"manager": names.FIELD_MANAGER, "fieldsV1": fields}]}
        document = {"metadata": meta, "data": {CONFIG_KEY: live.config.to_json()}}
        moved = on(StorageSettings(uri="s3://moved", node_folder="/data/fraud"), **spec)
        return "; ".join(map(str, changes.check(moved, {("ConfigMap", "d-config"): document})))

    assert "is s3://default/n.d for" in told("s3://default")
    assert "write that again, with a secretRef that opens it, or make a new" in told("s3://default")
    assert "write that again, or make a new" in told("file:///data/fraud")
    own = {"uri": "s3://default/n.d", "secretRef": {"name": "mine"}}
    assert told("s3://default", storage=own) == told("s3://moved") == ""


def test_a_nodes_default_may_lie_deeper() -> None:
    """The platform's own folder may be any below the root; the detector's in it is taken by default and by name."""
    settings = StorageSettings(uri="file:///data/fraud/x", node_folder="/data/fraud")
    assert faults("file:///data/fraud/x/n.d", "n.d", settings) == []
    outside = settings.model_copy(update={"uri": "file:///data/fraud/../x"})
    assert faults("file:///data/fraud/../x/n.d", "n.d", outside, default=True) != []


def test_a_nodes_folder_needs_the_charts_switch() -> None:
    """Without a root of the platform's no file:// URI is taken, its own default neither."""
    [fault] = faults("file:///data/x", "n.d", StorageSettings(), default=True)
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
    assert copied(on(NODE, storage={"uri": "file:///data/fraud/n.d"})) == set()


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
    assert annotated(on(node, storage={"uri": "file:///data/fraud/n.d"})) == set()


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


@pytest.mark.parametrize("value", ["key\n", "a key", "\tkey", "kéy"])
def test_a_key_that_no_request_can_carry_is_named(value: str) -> None:
    """A line break, a space or a letter beyond ASCII is told with field and key, without the value; nothing is asked."""
    for detector in (
        on(StorageSettings(), **OWN),
        on(StorageSettings(uri="s3://x-bank", secret="chart", credentials={**KEYS, "AWS_SECRET_ACCESS_KEY": value})),
    ):  # fmt: skip
        fact = bucket_of(detector, secret(**{**KEYS, "AWS_SECRET_ACCESS_KEY": value}))
        assert isinstance(fact, StorageFact) and (fact.ready, fact.reason) == (False, "SecretKeyBroken")
        field = "spec.storage.secretRef: Secret mine in n" if detector.storage_reference else "the chart's"
        assert fact.message.startswith(field) and "AWS_SECRET_ACCESS_KEY has a line break" in fact.message
        assert value not in fact.message


def test_a_roles_bucket_is_asked_in_the_environments_region(tmp_path: Any) -> None:
    """AWS_REGION as it is injected beside a role is the bucket's; where keys open the store it is theirs to say."""
    (tmp_path / "p.json").write_text('{"storage": {"uri": "s3://bank"}}')
    environ = {"FRAUD_PLATFORM": str(tmp_path / "p.json"), "AWS_REGION": "eu-west-1"}
    asked = bucket_of(on(load_platform(environ).storage), None)
    assert isinstance(asked, Bucket) and (asked.credentials, asked.region) == ({}, "eu-west-1")
    assert open_bucket(asked).config["region"] == "eu-west-1"
    assert open_bucket(replace(asked, region="")).config["region"] == "us-east-1"
    assert open_bucket(replace(asked, credentials={**KEYS, "AWS_REGION": "r"})).config["region"] == "r"
    assert load_platform({**environ, "STORAGE_AWS_ACCESS_KEY_ID": "id"}).storage.role_region == ""


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


def test_what_needs_storage_says_so() -> None:
    """The objects that are held back are the streaming job, training and the lake sink."""
    held = {
        (child.kind, child.body["metadata"]["labels"][names.COMPONENT_LABEL])
        for child in _children(make_detector())
        if child.needs_storage
    }
    assert held == {("FlinkDeployment", "features"), ("RayJob", "training"), ("Deployment", "lake-sink")}
