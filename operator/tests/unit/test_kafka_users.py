"""Who may do what in a managed Kafka: one user a component, with what its code needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fraud_contracts import names
from fraud_contracts.detector import Component
from fraud_operator.desired.child import Wanted
from fraud_operator.desired.components import COMPONENTS
from fraud_operator.desired.documents import build_config
from fraud_operator.desired.kafka import build_kafka
from fraud_operator.desired.kafka_login import kafka_volumes
from fraud_operator.desired.kafka_users import RIGHTS, build_kafka_users, kafka_parts
from fraud_operator.facts import KafkaFact
from fraud_operator.kafka_target import KafkaTarget, kafka_secrets, kafka_target
from fraud_operator.releases import make_release
from fraud_operator.rollout_state import RolloutState
from fraud_testing.authorities import new_authority
from fraud_testing.healthy import make_detector
from fraud_testing.secrets import secret

DETECTOR = make_detector()
USERS = {child.name: child.body["spec"] for child in build_kafka_users(DETECTOR, None)}  # type: ignore[arg-type]  # it reads nothing of it


def rules(part: str) -> Iterator[tuple[str, str, str, str]]:
    """(resource, pattern, name, operation) of one user."""
    for rule in USERS[names.kafka_user("d", part)]["authorization"]["acls"]:
        resource = rule["resource"]
        for operation in rule["operations"]:
            yield resource["type"], resource.get("patternType", ""), resource.get("name", ""), operation


def topics(part: str, operation: str) -> set[str]:
    return {name.split(".")[2] for kind, _, name, one in rules(part) if kind == "topic" and one == operation}


def test_each_component_that_speaks_to_kafka_has_a_user() -> None:
    """And the operator has one; nobody else has."""
    speakers = {component for component, defaults in COMPONENTS.items() if defaults.kafka}
    assert set(RIGHTS) == speakers
    assert set(USERS) == {names.kafka_user("d", part) for part in kafka_parts()}
    assert {spec["authentication"]["type"] for spec in USERS.values()} == {"scram-sha-512"}


def test_each_topic_has_its_one_writer() -> None:
    """Clients write transactions and label reports, and but for these the two doors and the worker's redrive nobody does."""
    writers: dict[str, set[str]] = {}
    for part in kafka_parts():
        for noun in topics(part, "Write"):
            writers.setdefault(noun, set()).add(part)
    assert writers == {
        "accepted": {"decision"},
        "label-reports": {"decision"},
        "transactions": {"worker"},
        "decisions": {"worker"},
        "alerts": {"worker"},
        "dead-letters": {"worker", "features"},
        "features": {"features"},
        "profiles": {"features"},
        "seeds": {"training"},
        "labels": {"ledger-sink"},
    }


def test_card_numbers_are_read_by_the_stream_and_the_redrive_alone() -> None:
    """They are in clear in ``transactions`` only."""
    readers = {part for part in kafka_parts() if "transactions" in topics(part, "Read")}
    assert readers == {"features", "worker"}


def test_the_operator_sees_how_far_groups_are_and_reads_nothing() -> None:
    """It describes, by the detector's own prefix, and what is left of the brokers' disks."""
    assert {operation for *_, operation in rules("operator")} == {"Describe"}
    named = {(kind, pattern, name) for kind, pattern, name, _ in rules("operator") if kind != "cluster"}
    assert named == {("topic", "prefix", "n.d."), ("group", "prefix", "n.d.")}


def test_only_the_worker_has_transactions() -> None:
    """Whoever could take its transactional id would fence it."""
    owners = {part for part in kafka_parts() for kind, *_ in rules(part) if kind == "transactionalId"}
    assert owners == {"worker"}


def test_no_rule_reaches_another_detector() -> None:
    """Every name begins with the identity; the rules of the whole cluster read brokers' settings, and disks."""
    for part in kafka_parts():
        for kind, _, name, operation in rules(part):
            assert name.startswith("n.d.") or (kind, operation) in (
                ("cluster", "DescribeConfigs"),
                ("cluster", "Describe"),
            )


def test_the_one_listener_asks_for_tls_and_a_user() -> None:
    """There is no plain one beside it, and who has no rule may do nothing."""
    [kafka] = build_kafka(DETECTOR, type("W", (), {"copies": None})())  # type: ignore[arg-type]  # it reads no more of it
    spec = kafka.body["spec"]["kafka"]
    [listener] = spec["listeners"]
    assert (listener["tls"], listener["authentication"]) == (True, {"type": "scram-sha-512"})
    assert (listener["port"], spec["authorization"]) == (names.KAFKA_PORT, {"type": "simple"})
    assert DETECTOR.bootstrap.endswith(f":{names.KAFKA_PORT}")


def test_a_pod_mounts_its_own_user_and_the_brokers_authority() -> None:
    """Password and authority from Strimzi's Secrets, user and mechanism from the configuration."""
    release = make_release(DETECTOR, RolloutState(), None, DETECTOR.spec.policy)
    [config] = build_config(DETECTOR, Wanted(release, RolloutState(), None))
    for component in RIGHTS:
        label = COMPONENTS[component].label
        [volume] = kafka_volumes(DETECTOR, component)
        password, authority, documents = volume["projected"]["sources"]
        assert password["secret"]["name"] == names.kafka_user("d", label)
        assert authority["secret"]["name"] == "d-cluster-ca-cert"
        values = {item["path"]: config.body["data"][item["key"]] for item in documents["configMap"]["items"]}
        assert values == {"username": names.kafka_user("d", label), "mechanism": "SCRAM-SHA-512"}
    assert not kafka_volumes(DETECTOR, Component.CONSOLE)


def test_the_operator_logs_in_as_itself() -> None:
    """Once Strimzi has made its Secrets; before that, and where no certificate is in one, nobody is asked."""
    user, authority = kafka_secrets(DETECTOR)
    certificate = new_authority()
    values: dict[str, Any] = {user: secret(password="p"), authority: secret(**{"ca.crt": certificate})}
    target = kafka_target(DETECTOR, values)
    assert isinstance(target, KafkaTarget) and target.login is not None
    assert (target.login.username, target.login.authority) == ("d-kafka-operator", certificate)
    for text in (None, "", "no certificate"):
        other = None if text is None else secret(**{"ca.crt": text})
        assert isinstance(kafka_target(DETECTOR, {**values, authority: other}), KafkaFact)
