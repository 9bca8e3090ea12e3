"""What a spec or the chart names and others make: it is looked for, and what lacks is told with field and remedy."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from fraud_contracts import names
from fraud_operator.desired.documents import DOCKER_CONFIG
from fraud_operator.detector import Detector
from fraud_operator.facts import Facts
from fraud_operator.kube import Kube
from fraud_operator.references import DEFAULT_CLASS, SHARED_MS, References
from fraud_operator.settings import KafkaSettings
from fraud_testing.healthy import NOW, conditions_of, healthy_facts, make_detector

STORES = {
    "redis": {"secretRef": {"name": "cache"}},
    "postgres": {"secretRef": {"name": "ledger"}},
    "mlflow": {"uri": "http://m", "secretRef": {"name": "registry"}},
}


class Cluster(Kube):
    """Secrets by namespace and name, and storage classes; counts what it is asked."""

    def __init__(self) -> None:
        self.secrets: dict[tuple[str, str], dict[str, Any]] = {}
        self.classes: list[dict[str, Any]] = []
        self.asked: list[str] = []

    def put(self, namespace: str, name: str, **data: str) -> None:
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        self.secrets[namespace, name] = {"metadata": {"name": name}, "data": encoded}

    def put_logins(self, name: str, **auths: Any) -> None:
        self.put("fraud-platform", name, **{DOCKER_CONFIG: json.dumps({"auths": auths})})

    def get(self, kind: Any, namespace: str | None, name: str) -> dict[str, Any] | None:
        self.asked.append(name)
        return self.secrets.get((str(namespace), name))

    def list(self, kind: Any, namespace: str | None, labels: str = "") -> list[dict[str, Any]]:
        self.asked.append(kind.kind)
        return self.classes


def on(detector: Detector, **platform: Any) -> Detector:
    settings = {"kafka": KafkaSettings(ephemeral=True), **platform}
    return replace(detector, platform=detector.platform.model_copy(update=settings))


def look(cluster: Cluster, detector: Detector, facts: Facts | None = None) -> Facts:
    return References(cluster).add(detector, facts or Facts(now=NOW))


def test_a_secret_that_is_not_there_is_told_with_its_field() -> None:
    """Each field of the stores that names a Secret is looked up, and the message says which keys to make it with."""
    facts = look(Cluster(), on(make_detector(stores=STORES)))
    assert [lacking.reason for lacking in facts.lacking] == ["SecretMissing"] * 3
    redis, postgres, mlflow = (lacking.message for lacking in facts.lacking)
    assert (
        redis.startswith("spec.stores.redis.secretRef: there is no Secret cache in n")
        and "REDIS_URL" in redis
    )
    assert "spec.stores.postgres.secretRef" in postgres and "POSTGRES_DSN" in postgres
    assert "MLFLOW_TRACKING_TOKEN or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in mlflow


def test_a_secret_without_its_key_is_told() -> None:
    """A Secret with another key, or an empty value, would leave the Pods waiting; one of MLflow's two forms is enough."""
    cluster = Cluster()
    cluster.put("n", "cache", URL="redis://x")
    cluster.put("n", "ledger", POSTGRES_DSN="")
    cluster.put("n", "registry", MLFLOW_TRACKING_USERNAME="u", MLFLOW_TRACKING_PASSWORD="p")
    facts = look(cluster, on(make_detector(stores=STORES)))
    assert [lacking.reason for lacking in facts.lacking] == ["SecretKeyMissing"] * 2
    assert "Secret cache in n lacks REDIS_URL" in facts.lacking[0].message
    assert "Secret ledger in n lacks POSTGRES_DSN" in facts.lacking[1].message


def test_an_address_that_is_none_is_told_and_not_quoted() -> None:
    """The message names field, key and Secret, and how an address is written; what stands there may be half a password."""
    cluster = Cluster()
    cluster.put("n", "cache", REDIS_URL="redis+sentinel://u:secret@a,b")
    cluster.put("n", "ledger", POSTGRES_DSN="host=a,b,c port=1,2 password=secret")
    cluster.put("n", "registry", MLFLOW_TRACKING_TOKEN="t")
    facts = look(cluster, on(make_detector(stores=STORES)))
    assert [lacking.reason for lacking in facts.lacking] == ["AddressUnreadable"] * 2
    redis, postgres = (lacking.message for lacking in facts.lacking)
    assert "secret" not in redis.replace("secretRef", "") + postgres.replace("secretRef", "")
    assert redis.startswith(
        "spec.stores.redis.secretRef: REDIS_URL of Secret cache in n is no address: no name of a master"
    )
    assert "redis+sentinel://user:password@host:26379,host:26379/master/0" in redis
    assert "write postgresql://user:password@host:5432/database; several hosts" in postgres
    cluster.put("n", "cache", REDIS_URL="rediss+sentinel://u:secret@a,b/main")
    cluster.put("n", "ledger", POSTGRES_DSN="host=a,b port=1,2 password=secret")
    assert look(cluster, on(make_detector(stores=STORES))).lacking == ()


def test_what_lacks_becomes_a_condition_and_degrades() -> None:
    """ReferencesFound says the field, and Degraded repeats it before what only follows from it."""
    detector = on(make_detector(stores=STORES))
    facts = look(Cluster(), detector, replace(healthy_facts(detector), children={}))
    conditions = conditions_of(detector, facts)
    assert (conditions["ReferencesFound"]["status"], conditions["ReferencesFound"]["reason"]) == (
        "False",
        "SecretMissing",
    )
    assert conditions["Degraded"]["status"] == "True"
    assert "spec.stores.redis.secretRef" in conditions["Degraded"]["message"]


def test_logins_are_copied_as_one_document() -> None:
    """All Secrets' logins in one; of two for a registry the first Secret's counts. Nothing is asked where none is named."""
    cluster = Cluster()
    cluster.put_logins("first", one={"auth": "1"})
    cluster.put_logins("second", one={"auth": "other"}, two={"auth": "2"})
    facts = look(cluster, on(make_detector(), pull_secrets=("first", "second")))
    assert facts.lacking == () and facts.logins is not None
    assert json.loads(facts.logins) == {"auths": {"one": {"auth": "1"}, "two": {"auth": "2"}}}
    cluster.asked.clear()
    assert look(cluster, on(make_detector())).logins is None and cluster.asked == []


@pytest.mark.parametrize("content", ["", "no json", "[]", '{"auths": {}}', '{"auths": []}'])
def test_logins_that_cannot_be_had_are_told(content: str) -> None:
    """A pull Secret that isn't there, and one that holds no login, by the chart's field; the others are copied all the same."""
    cluster = Cluster()
    cluster.put_logins("good", one={"auth": "1"})
    cluster.put("fraud-platform", "bad", **{DOCKER_CONFIG: content})
    facts = look(cluster, on(make_detector(), pull_secrets=("good", "gone", "bad")))
    assert [lacking.reason for lacking in facts.lacking] == ["PullSecretMissing", "PullSecretUnreadable"]
    gone, bad = (lacking.message for lacking in facts.lacking)
    assert gone.startswith("images.pullSecrets[1] of the chart: there is no Secret gone in fraud-platform")
    assert bad.startswith("images.pullSecrets[2] of the chart: Secret bad in fraud-platform holds no login")
    assert json.loads(facts.logins or "{}") == {"auths": {"one": {"auth": "1"}}}


def test_changed_logins_are_followed() -> None:
    """The platform's Secrets are read again after half a minute, once for all detectors."""
    cluster = Cluster()
    references, detector = References(cluster), on(make_detector(), pull_secrets=("first",))
    cluster.put_logins("first", one={"auth": "old"})
    for now in (NOW, NOW + SHARED_MS - 1):
        assert "old" in (references.add(detector, Facts(now=now)).logins or "")
    cluster.put_logins("first", one={"auth": "new"})
    assert "new" in (references.add(detector, Facts(now=NOW + SHARED_MS)).logins or "")
    assert cluster.asked == ["first", "first"]


def test_a_copy_that_nobody_wants_is_given_back_once() -> None:
    """Where the platform names no pull Secret any more the copy goes, and only ours; then it isn't asked for again."""
    cluster = Cluster()
    references, detector = References(cluster), on(make_detector())
    cluster.put("n", names.pull_secret("d"), x="y")
    copy = cluster.secrets["n", "d-pull"]
    assert list(references.leftovers(detector)) == []
    other = References(cluster)
    copy["metadata"]["ownerReferences"] = [{"controller": True, "uid": detector.uid}]
    assert list(other.leftovers(detector)) == [copy]
    del cluster.secrets["n", "d-pull"]
    cluster.asked.clear()
    assert [list(other.leftovers(detector)) for _ in range(2)] == [[], []]
    assert cluster.asked == ["d-pull"]
    assert list(other.leftovers(on(detector, pull_secrets=("first",)))) == []


@pytest.mark.parametrize(
    ("wanted", "classes", "message"),
    [
        (
            "fast",
            {},
            "names the storage class fast for Kafka's volumes, and the cluster has none of this name (it has none at all)",
        ),
        ("fast", {"slow": "true"}, "(there are slow)"),
        (None, {"slow": "false"}, "default storage class, and none is marked as such (there are slow)"),
        (None, {"slow": "true"}, ""),
        ("slow", {"slow": "false"}, ""),
    ],
)
def test_a_storage_class_that_is_not_there_is_told(
    wanted: str | None, classes: dict[str, str], message: str
) -> None:
    """Volumes of a class that isn't there, or of a default that no class is, would wait for ever: told before Kafka gives up."""
    cluster = Cluster()
    cluster.classes = [
        {"metadata": {"name": name, "annotations": {DEFAULT_CLASS: marked}}}
        for name, marked in classes.items()
    ]
    detector = on(make_detector(), kafka=KafkaSettings(storage_class=wanted))
    lacking = look(cluster, detector).lacking
    assert [one.reason for one in lacking] == (["StorageClassMissing"] if message else [])
    assert all(message in one.message for one in lacking)


def test_a_kafka_that_runs_or_needs_no_volume_asks_for_no_class() -> None:
    """Its volumes are there, or it has none, whatever classes there are now."""
    cluster = Cluster()
    persistent = on(make_detector(), kafka=KafkaSettings())
    assert look(cluster, persistent, healthy_facts(persistent)).lacking == ()
    assert look(cluster, on(make_detector())).lacking == ()
    assert cluster.asked == []
