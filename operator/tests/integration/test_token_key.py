"""A token key that is changed while no operator runs, on a real API server: nothing takes it until the former one is back."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from fraud_contracts import names
from fraud_contracts.child_kinds import BY_KIND, DETECTOR, SECRET
from fraud_operator.events import Recorder
from fraud_operator.kube import Kube
from fraud_operator.reconcile import Reconciler
from fraud_testing.healthy import SPEC, make_detector
from fraud_testing.rollouts import FakeObserver, FakeRegistry, nodes

pytestmark = pytest.mark.integration
NAMESPACE = "another-token-key"


def _operator(kube: Kube) -> Reconciler:
    """One that has just started: it remembers nothing."""
    observer = FakeObserver(kube)
    observer.models = FakeRegistry()
    return Reconciler(kube, make_detector().platform, observer, Recorder(kube))


def _settle(kube: Kube, operator: Reconciler) -> None:
    for _ in range(20):
        nodes(kube, NAMESPACE)
        if operator.reconcile(NAMESPACE, "d").settled:
            return


def _keys(kube: Kube) -> dict[str, str]:
    body = kube.get(SECRET, NAMESPACE, names.keys("d"))
    assert body is not None
    return dict(body["data"])


def _documents(kube: Kube) -> list[Any]:
    of = (names.config("d"), names.release_pointer("d"))
    bodies = [kube.get(BY_KIND["ConfigMap"], NAMESPACE, name) for name in of]
    return [body["data"] for body in bodies if body is not None]


def _condition(kube: Kube, of_type: str) -> dict[str, Any]:
    body = kube.get(DETECTOR, NAMESPACE, "d")
    assert body is not None
    return next(c for c in body["status"]["conditions"] if c["type"] == of_type)


def test_another_token_key_is_refused_across_a_restart(server: Any) -> None:
    """The running operator puts the key back; a new one leaves Secret and documents alone, says why, and goes on once it is right."""
    kube: Kube = server.kube()
    server.namespace(NAMESPACE)
    meta, spec = {"name": "d", "namespace": NAMESPACE}, {**SPEC, "model": {"registered": {"name": "m"}}}
    body = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": meta, "spec": spec}
    kube.create(DETECTOR, body)
    first = _operator(kube)
    _settle(kube, first)
    before, documents = _keys(kube), _documents(kube)
    assert _condition(kube, "KeysReady")["reason"] == "KeysKept"

    other = {"data": {"TOKEN_KEY": base64.b64encode(("cd" * 32).encode()).decode()}}
    kube.merge(SECRET, NAMESPACE, names.keys("d"), other)
    first.reconcile(NAMESPACE, "d")
    assert _keys(kube) == before

    kube.merge(SECRET, NAMESPACE, names.keys("d"), other)
    second = _operator(kube)
    _settle(kube, second)
    assert _condition(kube, "KeysReady")["reason"] == "TokenKeyChanged"
    assert _condition(kube, "Degraded")["reason"] == "TokenKeyChanged"
    assert _keys(kube)["TOKEN_KEY"] == other["data"]["TOKEN_KEY"] and _documents(kube) == documents

    kube.merge(SECRET, NAMESPACE, names.keys("d"), {"data": before})
    _settle(kube, second)
    assert _condition(kube, "KeysReady")["status"] == "True" and _documents(kube) == documents
