"""What of the Secrets each component's Pods have, in their environment or as files."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

import pytest

from fraud_contracts import names, object_store
from fraud_contracts.config import CA_CERT, MLFLOW_LOGIN
from fraud_contracts.detector import Component
from fraud_contracts.release import ModelPackage
from fraud_operator.desired.child import Wanted
from fraud_operator.desired.children import build_children
from fraud_operator.desired.pod import environment, store_files
from fraud_operator.releases import make_release
from fraud_operator.rollout_state import RolloutState
from fraud_testing.healthy import make_detector

STORAGE: Final = set(object_store.KEYS)
# Of the component's own user in Kafka, and of who vouches for the brokers.
KAFKA: Final = {"password", "ca.crt"}
EXPECTED: Final = {
    "decision": {*KAFKA, "TOKEN_KEY", "REDIS_URL", "POSTGRES_DSN", "d-clients"},
    "worker": {*KAFKA, "TOKEN_KEY", "DEAD_LETTER_KEY", "REDIS_URL", "POSTGRES_DSN"},
    "features": {*KAFKA, "TOKEN_KEY", "DEAD_LETTER_KEY", *STORAGE},
    "training": {*KAFKA, "TOKEN_KEY", "MLFLOW_TRACKING_URI", *STORAGE},
    "predictor": {"MLFLOW_READER_URI"},
    "profile-sink": {*KAFKA, "REDIS_URL"},
    "ledger-sink": {*KAFKA, "POSTGRES_DSN"},
    "lake-sink": {*KAFKA, *STORAGE},
    "console": {"POSTGRES_DSN", "d-clients"},
}


def _secret_keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["secretKeyRef"]["key"]} if "secretKeyRef" in value else set()
        if "secretName" in value.get("secret", {}):
            own |= {value["secret"]["secretName"]}
        elif "secret" in value:  # a source of a projected volume
            own |= {item["key"] for item in value["secret"]["items"] if not item["key"].endswith(CA_CERT)}
        return own.union(*map(_secret_keys, value.values()))
    return set().union(*map(_secret_keys, value)) if isinstance(value, list) else set()


def test_a_component_has_the_secrets_that_its_code_reads_and_no_others() -> None:
    """The streaming job has no ledger's password, training no hash of an API key; of a mounted Secret its name stands here."""
    one = make_detector(storage={"uri": "s3://bank/fraud", "secretRef": {"name": "mine"}})
    release = make_release(one, RolloutState(), None, one.spec.policy)
    secrets: dict[str, set[str]] = defaultdict(set)
    package = ModelPackage(
        name="n.d", version="1", digest="sha256:" + "1" * 64, feature_set=one.feature_set, slot="a", url="", score_map=[(0.0, 0.0)]
    )  # fmt: skip
    for child in build_children(one, Wanted(release, RolloutState(stable=package), "r" * 16)):
        if keys := _secret_keys(child.body):
            secrets[child.body["metadata"]["labels"][names.COMPONENT_LABEL]] |= keys
    assert secrets == EXPECTED


@pytest.mark.parametrize("stores", [{}, {"postgres": {"secretRef": {"name": "mine"}}}])
def test_doors_and_worker_start_without_the_ledgers_address(stores: dict[str, Any]) -> None:
    """They decide without it, and read it once it is there; without Redis, or where the ledger is all that a Pod is for, it waits."""
    required = set()
    for component in Component:
        volume = store_files(make_detector(stores=stores), component)
        for source in () if volume is None else volume["projected"]["sources"]:
            if not source["secret"].get("optional"):
                required |= {(component, item["key"]) for item in source["secret"]["items"]}
    assert {component for component, key in required if key == "POSTGRES_DSN"} == {
        Component.LEDGER_SINK,
        Component.CONSOLE,
    }
    assert {component for component, key in required if key == "REDIS_URL"} == {
        Component.DECISION_SERVICE,
        Component.WORKER,
        Component.PROFILE_SINK,
    }


def test_an_mlflow_of_its_own_is_used_by_the_login_that_the_spec_names() -> None:
    """By training and by who fetches for predictors alike, from the Secret itself; without a Secret there is nothing to mount."""
    mine = {"uri": "https://mine", "secretRef": {"name": "registry"}}
    one = make_detector(stores={"mlflow": mine})
    for component in (Component.TRAINING, Component.PREDICTOR):
        volume = store_files(one, component)
        assert volume is not None
        sources = [source["secret"] for source in volume["projected"]["sources"]]
        assert {source["name"] for source in sources} == {"registry"}
        assert [source["items"][0]["path"] for source in sources] == list(MLFLOW_LOGIN)
        assert all(source["optional"] for source in sources)
        assert store_files(make_detector(stores={"mlflow": {"uri": "https://mine"}}), component) is None
    assert {"name": "MLFLOW_TRACKING_URI", "value": "https://mine"} in environment(one, Component.TRAINING)
