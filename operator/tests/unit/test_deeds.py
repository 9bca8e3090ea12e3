"""What is expected of each component's deeds follows from the tables; and Pods as they run are read right."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fraud_contracts import names, object_store
from fraud_contracts.clients import ClientAccess
from fraud_contracts.detector import Component
from fraud_contracts.detector_clients import Scope
from fraud_operator.detector import Detector
from fraud_testing import deeds_in_pod as deed
from fraud_testing.deeds import (
    Setting,
    countable_items,
    expected_deeds,
    expected_items,
    is_expected_answer,
    kafka_rights,
)
from fraud_testing.healthy import make_detector
from fraud_testing.held import built_pods, held, secret_items
from fraud_testing.network_policies import Json
from fraud_testing.probe_pods import Probe, manifest

TOPICS = ["n.d.accepted.v1", "n.d.labels.v1"]
INITIALIZER = {
    "name": "storage-initializer",
    "env": [
        {"name": "MLFLOW_TRACKING_URI", "value": "http://m"},
        {
            "name": "MLFLOW_TRACKING_TOKEN",
            "valueFrom": {
                "secretKeyRef": {"name": "fraud-mlflow-credentials", "key": "MLFLOW_TRACKING_TOKEN"}
            },
        },
    ],
}


def with_bucket() -> Detector:
    return make_detector(storage={"uri": "s3://bank/fraud", "secretRef": {"name": "mine"}})


def setting(**more: Any) -> Setting:
    return Setting(make_detector(), {}, objects=True, kafka_open=True, flink=True, model=True, **more)


def test_a_component_of_the_operators_making_holds_what_the_table_says() -> None:
    """Each of them, the predictor by its storage container."""
    detector = with_bucket()
    users = "-kafka-" in str(built_pods(detector, INITIALIZER))
    assert {
        one: countable_items(one, secret_items(pod)) for one, pod in built_pods(detector, INITIALIZER).items()
    } == {one: expected_items(one, detector, users) for one in Component}


def test_another_pod_holds_the_same_and_starts_without_it() -> None:
    """Its account, token, variables and mounted Secrets, each of them optional; nothing else of the other Pod."""
    pods = built_pods(with_bucket(), INITIALIZER)
    probe = Probe("features", "n", (), held=held(pods[Component.FEATURES]))
    spec = manifest(probe, "image", [1])["spec"]
    assert spec["serviceAccountName"] == names.service_account("d", "features")
    assert "automountServiceAccountToken" not in spec
    due = expected_items(Component.FEATURES, with_bucket(), "-kafka-" in str(pods))
    assert secret_items(spec) == due
    references = [
        one["valueFrom"]["secretKeyRef"] for one in spec["containers"][0]["env"] if "valueFrom" in one
    ]
    assert all(one["optional"] for one in references)
    assert {variable["name"] for variable in spec["containers"][0]["env"]} == {
        "HOME", "TOKEN_KEY", "DEAD_LETTER_KEY", *object_store.KEYS,
    }  # fmt: skip
    console = held(pods[Component.CONSOLE])
    assert console.token is False
    assert {mount["mountPath"] for mount in console.mounts} == {"/etc/fraud/stores", "/etc/fraud/clients"}


def test_the_apis_token_volume_is_not_copied() -> None:
    """The API server adds one of its own; a role's token stays."""
    projected = {"sources": [{"serviceAccountToken": {"path": "token"}}]}
    pod: Json = {
        "containers": [{"volumeMounts": [{"name": "role", "mountPath": "/role"}]}],
        "volumes": [
            {"name": "kube-api-access-x", "projected": projected},
            {"name": "role", "projected": projected},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    assert [volume["name"] for volume in held(pod).volumes] == ["role"]
    assert [mount["mountPath"] for mount in held(pod).mounts] == ["/role"]


@pytest.mark.parametrize(
    ("component", "deeds"),
    [
        (Component.CONSOLE, {deed.POSTGRES_OWN}),
        (Component.PROFILE_SINK, {deed.REDIS_OWN, deed.KAFKA_OPEN}),
        (Component.LAKE_SINK, {deed.OBJECTS_OWN, deed.OBJECTS_OTHER, deed.KAFKA_OPEN}),
        (Component.PREDICTOR, {deed.MLFLOW_READ, deed.MLFLOW_WRITE, deed.MLFLOW_OPEN}),
        (
            Component.WORKER,
            {
                deed.REDIS_OWN, deed.POSTGRES_OWN, deed.KAFKA_OPEN, deed.API_TOKEN,
                *(deed.right("n", verb, "configmaps", "d-release") for verb in ("get", "list", "watch")),
            },
        ),
    ],
)  # fmt: skip
def test_a_component_may_what_its_line_says(component: Component, deeds: set[str]) -> None:
    """Where Kafka and MLflow ask for no login, as a trial's."""
    assert expected_deeds(component, setting()) == deeds


def test_with_a_login_mlflow_lets_training_write_and_its_predictor_read() -> None:
    """Their own detector's model alone, and nobody without a login."""
    locked = setting(mlflow_locked=True, other_model=True)
    mlflow = {
        one: {name for name in expected_deeds(one, locked) if name.startswith("MLflow")} for one in Component
    }
    assert {one: deeds for one, deeds in mlflow.items() if deeds} == {
        Component.TRAINING: {deed.MLFLOW_READ, deed.MLFLOW_WRITE},
        Component.PREDICTOR: {deed.MLFLOW_READ},
    }


def test_with_users_kafka_lets_each_do_what_its_user_may() -> None:
    """By the ACLs as Strimzi has them: of the ten topics those that they name, and nothing for whoever has no user."""

    def rule(kind: str, name: str, *operations: str, pattern: str = "literal") -> Json:
        return {
            "resource": {"type": kind, "name": name, "patternType": pattern},
            "operations": list(operations),
        }

    acls = [
        rule("topic", TOPICS[0], "Write"),
        rule("topic", "n.d.l", "Read", "DescribeConfigs", pattern="prefix"),
        rule("group", "n.d.worker", "Read", pattern="prefix"),
        {"resource": {"type": "cluster"}, "operations": ["DescribeConfigs"]},
    ]
    rights = kafka_rights({"spec": {"authorization": {"acls": acls}}}, TOPICS)
    assert rights == {
        f"Kafka: WRITE {TOPICS[0]}",
        f"Kafka: DESCRIBE {TOPICS[0]}",
        f"Kafka: READ {TOPICS[1]}",
        f"Kafka: DESCRIBE {TOPICS[1]}",
        f"Kafka: DESCRIBE_CONFIGS {TOPICS[1]}",
    }
    locked = replace(setting(), kafka={Component.WORKER: rights}, kafka_open=False)
    assert rights <= expected_deeds(Component.WORKER, locked)
    assert not [one for one in expected_deeds(Component.LAKE_SINK, locked) if one.startswith("Kafka")]


@pytest.mark.parametrize(
    ("scopes", "scope", "status", "right"),
    [
        ((Scope.DECIDE,), Scope.DECIDE, 400, True),
        ((Scope.DECIDE,), Scope.READ, 403, True),
        ((Scope.DECIDE,), Scope.READ, 404, False),
        ((Scope.DECIDE,), Scope.DECIDE, 403, False),
        ((Scope.ADMIN,), Scope.LABEL, 400, True),
        ((Scope.ADMIN,), Scope.LABEL, 0, False),
        (None, Scope.READ, 401, True),
        (None, Scope.READ, 404, False),
    ],
)
def test_a_door_answers_by_the_keys_scopes(
    scopes: tuple[Scope, ...] | None, scope: Scope, status: int, right: bool
) -> None:
    """401 is for what is no key, 403 for a scope that it lacks; no answer is no refusal."""
    client = None if scopes is None else ClientAccess(name="c", scopes=scopes, hashes=())
    assert is_expected_answer(client, scope, status) is right
