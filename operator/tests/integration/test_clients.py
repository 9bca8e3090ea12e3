"""The API clients' Secrets on a real API server: made once, followed as people change them, kept or taken with the detector."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from fraud_contracts import names
from fraud_contracts.child_kinds import BY_KIND, DETECTOR
from fraud_contracts.clients import CLIENTS_KEY, hash_key
from fraud_contracts.detector_clients import default_clients
from fraud_operator.clients import OLD_API_KEY
from fraud_operator.desired.documents import secret_data
from fraud_operator.detector_keys import new_keys
from fraud_operator.events import Recorder
from fraud_operator.kube import Kube
from fraud_operator.observe import Observer
from fraud_operator.reconcile import Reconciler
from fraud_operator.settings import Platform

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[3]
SECRET = BY_KIND["Secret"]
PLATFORM = Platform.model_validate(
    {
        "storage": {"uri": "file:///s", "node_folder": "/s"},
        "stores": {
            "redis_url": "redis://x",
            "postgres_dsn": "postgresql://x",
            "mlflow_tracking_uri": "http://127.0.0.1:9",
        },
        "kafka": {"ephemeral": True},
    }
)
OWN = [names.client("rules", client.name) for client in default_clients()]
NEW = "a-key-of-24-characters.."


@dataclass
class Place:
    """A detector ``rules`` in a namespace of its own, and an operator that has just started."""

    kube: Kube
    namespace: str
    reconciler: Reconciler = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.reconciler = Reconciler(self.kube, PLATFORM, Observer(self.kube), Recorder(self.kube))

    def create(self, **spec: Any) -> None:
        body = yaml.safe_load((ROOT / "manifests/examples/rules.yaml").read_text())
        body["metadata"]["namespace"] = self.namespace
        body["spec"] |= spec
        self.kube.create(DETECTOR, body)

    def reconcile(self) -> dict[str, Any]:
        """A pass; the condition ReferencesFound."""
        self.reconciler.reconcile(self.namespace, "rules")
        body = self.kube.get(DETECTOR, self.namespace, "rules")
        assert body is not None
        return next(c for c in body["status"]["conditions"] if c["type"] == "ReferencesFound")

    def put(self, name: str, **values: str) -> None:
        """A person's Secret, or what a person puts into one."""
        by = {"fieldManager": "a-person"}
        if self.kube.get(SECRET, self.namespace, name) is None:
            body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}
            self.kube._call("POST", SECRET.path(self.namespace), by, body)
        change, path = {"data": secret_data(values)}, SECRET.path(self.namespace, name)
        self.kube._call("PATCH", path, by, change, "application/merge-patch+json")

    def values(self, name: str) -> dict[str, str]:
        secret = self.kube.get(SECRET, self.namespace, name)
        assert secret is not None, name
        return {key: base64.b64decode(value).decode() for key, value in (secret.get("data") or {}).items()}

    def told(self) -> dict[str, set[str]]:
        """The hashes of each client's keys, as the doors are told them."""
        document = json.loads(self.values(names.clients("rules"))[CLIENTS_KEY])
        return {client["name"]: set(client["hashes"]) for client in document["clients"]}

    def secrets(self) -> set[str]:
        return {item["metadata"]["name"] for item in self.kube.list(SECRET, self.namespace)}


@pytest.fixture
def place(server: Any, request: pytest.FixtureRequest) -> Place:
    name = re.sub("[^a-z]+", "-", f"clients {request.node.name.lower()}").rstrip("-")[:63]
    server.post("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return Place(server.kube(), name)


def test_a_new_detector_has_a_key_for_each_client(place: Place) -> None:
    """The default clients are the stored object's; the doors' document has hashes alone; a second pass writes nothing."""
    place.create()
    place.reconcile()
    keys = {name: place.values(name)["API_KEY"] for name in OWN}
    assert len(set(keys.values())) == 4 and min(map(len, keys.values())) >= 16
    assert set().union(*place.told().values()) == {hash_key(key.encode()) for key in keys.values()}
    assert "API_KEY" not in place.values(names.keys("rules"))
    place.start()
    place.reconcile()
    assert place.reconciler.reconcile(place.namespace, "rules").written == ()
    assert {name: place.values(name)["API_KEY"] for name in OWN} == keys


def test_a_key_is_rotated_in_its_secret(place: Place) -> None:
    """What a person adds is good after the next pass, what they take out isn't; the operator puts nothing of theirs back."""
    place.create()
    place.reconcile()
    name = names.client("rules", "labels")
    old = place.values(name)["API_KEY"]
    place.put(name, NEXT=NEW)
    place.reconcile()
    assert place.told()["labels"] == {hash_key(old.encode()), hash_key(NEW.encode())}
    place.kube.merge(SECRET, place.namespace, name, {"data": {"API_KEY": None}})
    place.reconcile()
    assert place.told()["labels"] == {hash_key(NEW.encode())}
    assert place.values(name) == {"NEXT": NEW}


def test_what_a_spec_names_and_lacks_is_told(place: Place) -> None:
    """A Secret that isn't there, then one with a weak key, then a good one: each by the field, without a restart of the operator."""
    place.create(clients=[{"name": "shop", "scopes": ["Decide"], "secretRef": {"name": "shop"}}])
    assert place.reconcile()["reason"] == "SecretMissing"
    place.put("shop", WEAK="short")
    condition = place.reconcile()
    assert condition["reason"] == "ClientKeyTooShort"
    assert "spec.clients[0]" in condition["message"] and "WEAK" in condition["message"]
    place.put("shop", WEAK=NEW)
    assert place.reconcile()["status"] == "True"
    assert place.told() == {"shop": {hash_key(NEW.encode())}}
    assert not set(OWN) & place.secrets()


def test_an_old_detectors_key_goes_on(place: Place) -> None:
    """The API key of a detector from before there were clients opens all that it did, until a person takes it out."""
    old = "the-one-key-of-before"
    place.put(names.keys("rules"), **new_keys(), API_KEY=old)
    place.create()
    place.reconcile()
    assert all(hash_key(old.encode()) in hashes for hashes in place.told().values())
    place.kube.merge(SECRET, place.namespace, names.keys("rules"), {"data": {"API_KEY": None}})
    for name in OWN:
        place.kube.merge(SECRET, place.namespace, name, {"data": {OLD_API_KEY: None}})
    place.start()
    place.reconcile()
    assert not any(hash_key(old.encode()) in hashes for hashes in place.told().values())


def test_what_a_hand_does_to_the_secrets_is_put_right(place: Place) -> None:
    """A deleted Secret of the operator's comes back as it was, and nobody adds a hash to the doors' document."""
    place.create()
    place.reconcile()
    name = names.client("rules", "payments")
    before, told = place.values(name), place.told()
    place.kube.delete(SECRET, place.namespace, name)
    place.put(names.clients("rules"), **{CLIENTS_KEY: '{"clients": []}'})
    place.reconcile()
    assert place.values(name) == before and place.told() == told


def test_a_clients_secret_that_a_person_put_back_is_taken(place: Place) -> None:
    """From a backup, or made beforehand: its keys are good, and it lives with the detector from then on."""
    name = names.client("rules", "admin")
    place.put(name, MINE=NEW)
    place.create(deletionPolicy="Delete")
    assert place.reconcile()["status"] == "True"
    assert place.told()["admin"] == {hash_key(NEW.encode())} and place.values(name) == {"MINE": NEW}


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
def test_they_stay_or_go_as_the_keys_do(place: Place, policy: str) -> None:
    """With Retain a detector made again goes on with its clients' keys; with Delete nothing of them is left."""
    place.create(deletionPolicy=policy)
    place.reconcile()
    before = {name: place.values(name) for name in OWN}
    place.kube.delete(DETECTOR, place.namespace, "rules")
    place.reconciler.reconcile(place.namespace, "rules")
    assert place.kube.get(DETECTOR, place.namespace, "rules") is None
    left = set(OWN) & place.secrets()
    if policy == "Delete":
        assert not left
        return
    assert left == set(OWN)
    place.create(deletionPolicy=policy)
    place.reconcile()
    assert {name: place.values(name) for name in OWN} == before
