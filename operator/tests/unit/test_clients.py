"""The clients' Secrets: what is made once, which keys of theirs may be used, and what the doors are told."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from fraud_contracts.clients import MIN_KEY_CHARACTERS, hash_key
from fraud_contracts.detector_clients import Scope
from fraud_operator.clients import OLD_API_KEY, Clients
from fraud_operator.detector import Detector
from fraud_operator.facts import Facts
from fraud_operator.kube import Kube
from fraud_testing.healthy import NOW, make_detector

GOOD = "k" * MIN_KEY_CHARACTERS
SHOP = {
    "name": "shop",
    "scopes": ["Decide", "Read"],
    "requestsPerSecond": 9,
    "secretRef": {"name": "shop-keys"},
}


class Cluster(Kube):
    """Secrets of the namespace ``n``."""

    def __init__(self) -> None:
        self.secrets: dict[str, dict[str, Any]] = {}

    def put(self, name: str, labels: dict[str, str] | None = None, **values: str) -> None:
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        self.secrets[name] = {"metadata": {"name": name, "labels": labels or {}}, "data": data}

    def get(self, kind: Any, namespace: str | None, name: str) -> dict[str, Any] | None:
        return self.secrets.get(name)


def look(clients: Clients, detector: Detector, keys: dict[str, str] | None = None) -> Facts:
    return clients.add(detector, Facts(now=NOW), keys)


def values(data: Any) -> dict[str, str]:
    return {entry: base64.b64decode(value).decode() for entry, value in data.items()}


def test_each_default_client_gets_a_secret_with_one_key() -> None:
    """Random ones, remembered until they are written; the doors are told their hashes, scopes and no limit."""
    clients, detector = Clients(Cluster()), make_detector()
    facts = look(clients, detector)
    assert facts.lacking == ()
    made = {client: values(data) for client, data in facts.clients.made.items()}
    assert [list(data) for data in made.values()] == [["API_KEY"]] * 4
    assert len({data["API_KEY"] for data in made.values()}) == 4
    told = {one.name: one for one in facts.clients.document.clients}
    assert told["labels"].scopes == (Scope.LABEL,) and told["labels"].requests_per_second is None
    assert told["labels"].hashes == (hash_key(made["labels"]["API_KEY"].encode()),)
    assert look(clients, detector).clients == facts.clients


def test_every_entry_of_a_secret_is_a_key() -> None:
    """So a second one is added, the client moved, and the first one taken out."""
    cluster = Cluster()
    cluster.put("d-client-payments", API_KEY=GOOD, NEXT=GOOD + "2")
    facts = look(Clients(cluster), make_detector())
    assert set(facts.clients.document.clients[0].hashes) == {
        hash_key(GOOD.encode()),
        hash_key(f"{GOOD}2".encode()),
    }


def test_a_secret_of_ours_that_is_deleted_comes_back_as_it_was() -> None:
    """As the detector's keys do; a namesake of the detector gets keys of its own."""
    cluster, detector = Cluster(), make_detector()
    clients = Clients(cluster)
    cluster.put("d-client-labels", MINE=GOOD)
    before = look(clients, detector).clients.made["labels"]
    del cluster.secrets["d-client-labels"]
    assert look(clients, detector).clients.made["labels"] == before
    clients.forget("n", "d")
    assert look(clients, detector).clients.made["labels"] != before


def test_the_spec_may_name_a_secret() -> None:
    """Then none is made; its limit and scopes reach the doors."""
    cluster = Cluster()
    cluster.put("shop-keys", this_year=GOOD)
    facts = look(Clients(cluster), make_detector(clients=[SHOP]))
    assert facts.lacking == () and facts.clients.made == {}
    (told,) = facts.clients.document.clients
    assert (told.scopes, told.requests_per_second) == ((Scope.DECIDE, Scope.READ), 9)
    assert told.hashes == (hash_key(GOOD.encode()),)


@pytest.mark.parametrize(
    ("secret", "reason", "words"),
    [
        (None, "SecretMissing", "kubectl -n n create secret generic shop-keys --from-literal=API_KEY="),
        ({}, "ClientKeyMissing", "holds no key"),
        ({"WEAK": "k" * (MIN_KEY_CHARACTERS - 1)}, "ClientKeyTooShort", "WEAK has fewer than 16 characters"),
        ({"EMPTY": ""}, "ClientKeyTooShort", "EMPTY has fewer than 16 characters"),
        ({"LINE": GOOD + "\n"}, "SecretKeyBroken", "LINE has a line break"),
    ],
)
def test_what_cannot_be_used_is_told_with_field_entry_and_remedy(
    secret: dict[str, str] | None, reason: str, words: str
) -> None:
    """A key that is weak, or that no header holds, opens nothing; the client's others do."""
    cluster = Cluster()
    if secret is not None:
        cluster.put("shop-keys", **secret)
    facts = look(Clients(cluster), make_detector(clients=[SHOP]))
    (lacking,) = facts.lacking
    assert lacking.reason == reason
    assert lacking.message.startswith("spec.clients[0]: Secret shop-keys in n") and words in lacking.message
    assert not [key for one in facts.clients.document.clients for key in one.hashes]
    if secret:
        cluster.put("shop-keys", **secret, GOOD=GOOD)
        facts = look(Clients(cluster), make_detector(clients=[SHOP]))
        assert [one.reason for one in facts.lacking] == [reason]
        assert facts.clients.document.clients[0].hashes == (hash_key(GOOD.encode()),)


def test_an_old_detectors_key_goes_on_opening_everything() -> None:
    """The first Secrets of its default clients hold it beside their own; other clients', and those that are there, don't."""
    cluster, old = Cluster(), {"TOKEN_KEY": "t", "API_KEY": "the-old-key-of-all"}
    cluster.put("d-client-labels", API_KEY=GOOD)
    facts = look(Clients(cluster), make_detector(), old)
    made = {client: values(data) for client, data in facts.clients.made.items()}
    assert {client for client, data in made.items() if data.get(OLD_API_KEY) == old["API_KEY"]} == {
        "payments",
        "analysts",
        "admin",
    }
    assert all(data["API_KEY"] != old["API_KEY"] for data in made.values())
    own = make_detector(clients=[{"name": "shop", "scopes": ["Decide"]}])
    assert list(values(look(Clients(Cluster()), own, old).clients.made["shop"])) == ["API_KEY"]


def test_another_detectors_secret_is_not_read() -> None:
    """One with the name of ours opens nothing here; a person's, or one put back from a backup, is taken."""
    cluster = Cluster()
    cluster.put("d-client-payments", {"fraudplatform.dev/detector": "d-client"}, API_KEY=GOOD)
    cluster.put("d-client-labels", API_KEY=GOOD)
    told = {one.name: one.hashes for one in look(Clients(cluster), make_detector()).clients.document.clients}
    assert "payments" not in told
    assert told["labels"] == (hash_key(GOOD.encode()),)


def test_who_may_ask_restarts_nothing() -> None:
    """Clients reach the doors in their own document, so another limit isn't in the Pods' hash."""
    assert make_detector(clients=[SHOP]).config_hash == make_detector().config_hash
