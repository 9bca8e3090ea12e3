"""The Secrets that passes read: which they are, when they are asked for, and what a glance at them says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from kubernetes import client

from fraud_contracts.child_kinds import BY_KIND
from fraud_operator.detector import Detector
from fraud_operator.facts import Facts
from fraud_operator.glances import Glance, Glances, secrets_of, waited_for
from fraud_operator.indexed import IndexedKube, Indexes
from fraud_operator.kube import Kube
from fraud_operator.references import References
from fraud_operator.settings import KafkaSettings
from fraud_testing.healthy import NOW, make_detector

STORES = {"redis": {"secretRef": {"name": "cache"}}, "postgres": {"secretRef": {"name": "ledger"}}}
# What the operator logs in with at a managed Kafka.
LOGIN = ["d-cluster-ca-cert", "d-kafka-operator"]
# The detector's own, of which passes read all.
OWN = [
    "d-client-admin",
    "d-client-analysts",
    "d-client-labels",
    "d-client-payments",
    "d-clients",
    *LOGIN,
    "d-keys",
    "d-stores",
]
STORAGE = {"uri": "s3://bucket/folder", "secretRef": {"name": "bucket"}}


class Server:
    """Secrets by name and version, and a client before it; ``asked`` are the names asked for since it was last cleared."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.versions: dict[str, int] = {}
        self.asked: list[str] = []
        monkeypatch.setattr(Kube, "get", self._get)
        self.kube = IndexedKube(client.ApiClient(client.Configuration()), Indexes(), lambda: True)

    def _get(self, kind: Any, namespace: str, name: str) -> dict[str, Any] | None:
        self.asked.append(name)
        if name not in self.versions:
            return None
        meta = {"name": name, "namespace": namespace, "resourceVersion": str(self.versions[name])}
        return {"kind": "Secret", "metadata": meta, "data": {"REDIS_URL": "eA=="}}

    def asked_for(self) -> list[str]:
        asked, self.asked = self.asked, []
        return asked


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(monkeypatch)


def on(detector: Detector, **platform: Any) -> Detector:
    return replace(detector, platform=detector.platform.model_copy(update=platform))


def test_a_pass_reads_its_own_secrets_and_those_that_the_spec_names() -> None:
    """Keys, clients and stores always, the copied logins where the platform has some, and each Secret that the spec names once."""
    assert secrets_of(make_detector()) == OWN
    assert secrets_of(on(make_detector(), pull_secrets=("registry",))) == sorted([*OWN, "d-pull"])
    named = {"redis": {"secretRef": {"name": "cache"}}, "postgres": {"secretRef": {"name": "cache"}}}
    detector = make_detector(stores=named, storage=STORAGE)
    assert secrets_of(detector) == ["bucket", "cache", *OWN]
    clients = [{"name": "shop", "scopes": ["Decide"], "secretRef": {"name": "shop-keys"}}]
    assert secrets_of(make_detector(clients=clients)) == [
        "d-clients",
        *LOGIN,
        "d-keys",
        "d-stores",
        "shop-keys",
    ]


def test_passes_ask_for_no_secret_twice(server: Server) -> None:
    """The first pass asks for each; later ones, and what they look for in them, read what was last seen."""
    glances, detector = (
        Glances(server.kube),
        on(make_detector(stores=STORES), kafka=KafkaSettings(ephemeral=True)),
    )
    references = References(server.kube)
    glances.keep(detector)
    assert server.asked_for() == ["cache", *OWN, "ledger"]
    for _ in range(3):
        glances.keep(detector)
        lacking = references.add(detector, Facts(now=NOW)).lacking
        assert [one.reason for one in lacking] == ["SecretMissing", "SecretMissing"]
    assert server.asked_for() == []


def status(**reasons: str) -> dict[str, Any]:
    """All is well but for these conditions."""
    kinds = ("StorageReady", "KafkaReady", "ReferencesFound", "ModelResolved", "FeaturesWarm")
    return {
        "conditions": [
            {"type": kind, "status": str(kind not in reasons), "reason": reasons.get(kind, "Well")}
            for kind in kinds
        ]
    }


@pytest.mark.parametrize(
    ("reasons", "secrets"),
    [
        ({}, set()),
        ({"ReferencesFound": "SecretMissing"}, {"cache", "registry", "shop-keys"}),
        ({"ModelResolved": "LoginRefused"}, {"cache", "registry"}),
        ({"ModelResolved": "NoVersionYet"}, set()),
        ({"StorageReady": "KeysRefused"}, {"bucket"}),
        ({"KafkaReady": "Progressing"}, set()),
        ({"FeaturesWarm": "LagUnknown"}, {"d-cluster-ca-cert", "d-kafka-operator"}),
        ({"FeaturesWarm": "SeedsLag"}, set()),
    ],
    ids=["nothing", "references", "registry", "version", "storage", "brokers", "lags", "seeds"],
)
def test_a_condition_waits_for_the_secrets_that_may_mend_it(
    reasons: dict[str, str], secrets: set[str]
) -> None:
    """Those of the part of the spec that it tells of; the operator's own login where lags can't be read."""
    stores = {
        "redis": {"secretRef": {"name": "cache"}},
        "mlflow": {"uri": "http://m", "secretRef": {"name": "registry"}},
    }
    clients = [{"name": "shop", "scopes": ["Decide"], "secretRef": {"name": "shop-keys"}}]
    detector = make_detector(stores=stores, storage=STORAGE, clients=clients)
    assert waited_for(detector, status(**reasons)) == secrets


def test_a_login_to_a_kafka_of_ones_own_is_waited_for() -> None:
    """Be it that there is none, that it is refused, or that nobody has asked yet."""
    kafka = {"external": {"bootstrapServers": "b:9093", "secretRef": {"name": "login"}}, "partitions": 1}
    detector = make_detector(kafka=kafka)
    assert waited_for(detector, status(KafkaReady="LoginRefused")) == {"login"}
    assert waited_for(detector, {}) == {"login"}
    assert waited_for(detector, status()) == set()


def test_a_glance_tells_what_was_made_changed_or_deleted(server: Server) -> None:
    """It differs until a pass has read what it saw, and says how many requests it cost."""
    glances, detector = Glances(server.kube), make_detector(stores=STORES)
    glances.keep(detector)
    assert glances.look("n", "d") == Glance(differs=False, requests=len(OWN) + 2)
    for change in ({"cache": 5}, {"cache": 6}, {}):
        server.versions = change
        assert glances.look("n", "d").differs and glances.look("n", "d").differs
        server.asked_for()
        glances.keep(detector)
        body = server.kube.get(BY_KIND["Secret"], "n", "cache")
        assert (body or {"metadata": {}})["metadata"].get("resourceVersion") == (
            str(change["cache"]) if change else None
        )
        assert server.asked_for() == [] and not glances.look("n", "d").differs


def test_a_secret_that_nobody_glances_at_any_more_is_not_kept(server: Server) -> None:
    """A spec that names another Secret, and one that comes back to the first, reads each as it is then; so does a namesake."""
    glances = Glances(server.kube)
    first = make_detector(stores={"redis": {"secretRef": {"name": "cache"}}})
    other = make_detector(stores={"redis": {"secretRef": {"name": "other"}}})
    server.versions = {"cache": 5}
    glances.keep(first)
    glances.keep(other)
    server.versions = {"cache": 6}
    server.asked_for()
    glances.keep(first)
    assert server.asked_for() == ["cache"] and not glances.look("n", "d").differs
    glances.forget("n", "d")
    assert glances.look("n", "d") == Glance(differs=False, requests=0)
    server.asked_for()
    glances.keep(first)
    assert server.asked_for() == ["cache", *OWN]
