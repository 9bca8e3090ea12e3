"""Which Secrets a spec may not name, and that nothing is read or made for one that does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fraud_contracts import names
from fraud_operator.detector import Detector
from fraud_operator.named_secrets import check, named_secrets
from fraud_operator.settings import Platform, StorageSettings
from fraud_testing.healthy import make_detector

MINE: dict[str, Any] = {"metadata": {"name": "mine", "labels": {"app": "x"}}}
MARKS: list[dict[str, Any]] = [
    {"labels": {names.UID_LABEL: "another"}},
    {"labels": {"app.kubernetes.io/managed-by": names.FIELD_MANAGER}},
    {"managedFields": [{"manager": names.FIELD_MANAGER, "operation": "Update"}]},
]


def naming(secret: str) -> Detector:
    """A detector each of whose references is this Secret."""
    ref = {"secretRef": {"name": secret}}
    return make_detector(
        stores={"redis": ref, "postgres": ref, "mlflow": {"uri": "http://m", **ref}},
        storage={"uri": "s3://bank/fraud", **ref},
        kafka={"external": {"bootstrapServers": "k:9092", **ref}, "partitions": 1},
        clients=[{"name": "first", "scopes": ["Read"]}, {"name": "shop", "scopes": ["Read"], **ref}],
    )


FIELDS = [field for field, _ in named_secrets(naming("any"))]


def refused(detector: Detector, secret: dict[str, Any] | None) -> list[str]:
    return [error.path for error in check(detector, lambda _: secret)]


def test_each_field_that_names_a_secret_is_looked_at() -> None:
    """Of a spec's fields none that ends in secretRef is left out."""
    assert FIELDS == [
        "spec.stores.redis.secretRef",
        "spec.stores.postgres.secretRef",
        "spec.stores.mlflow.secretRef",
        "spec.kafka.external.secretRef",
        "spec.storage.secretRef",
        "spec.clients[1].secretRef",
    ]


@pytest.mark.parametrize("meta", MARKS)
def test_a_secret_that_the_operator_made_is_refused(meta: dict[str, Any]) -> None:
    """By any of its marks, in every field, with the remedy; whichever detector it was made for."""
    detector = naming("other-stores")
    assert refused(detector, {"metadata": {"name": "other-stores", **meta}}) == FIELDS
    (first, *_) = check(detector, lambda _: {"metadata": meta})
    assert (
        "Secret other-stores is the operator's" in first.message and "name one that you made" in first.message
    )


@pytest.mark.parametrize("name", ["d-keys", "d-stores", "d-clients", "d-pull", "d-client-first"])
def test_its_own_are_refused_by_name(name: str) -> None:
    """Also before they are there, and where somebody else made them."""
    assert refused(naming(name), None) == FIELDS
    assert refused(naming(name), MINE) == FIELDS


def test_the_passwords_in_a_managed_kafka_are_refused_by_name() -> None:
    """Strimzi makes them after the detector; in a Kafka of one's own nothing of that name is anybody's."""
    ref = {"secretRef": {"name": "d-kafka-worker"}}
    assert refused(make_detector(storage={"uri": "s3://bank/fraud", **ref}), None) == [
        "spec.storage.secretRef"
    ]
    assert refused(naming("d-kafka-worker"), MINE) == []


def test_a_persons_secret_is_taken() -> None:
    """One that is there, one that isn't yet, and one with the name that a client's default Secret would have."""
    assert refused(naming("mine"), MINE) == refused(naming("mine"), None) == []
    assert refused(naming("d-client-shop"), MINE) == []
    assert refused(make_detector(), {"metadata": MARKS[0]}) == []


@pytest.mark.parametrize("name", ["bank-stores", "bucket", "registry"])
def test_the_platforms_are_refused_in_its_namespace(name: str) -> None:
    """They open what is all detectors'; elsewhere a Secret of that name is somebody else's."""
    platform = Platform(
        namespace="n", release="bank", storage=StorageSettings(secret="bucket"), pull_secrets=("registry",)
    )
    assert refused(replace(naming(name), platform=platform), MINE) == FIELDS
    assert refused(replace(naming(name), platform=platform.model_copy(update={"namespace": "p"})), MINE) == []
