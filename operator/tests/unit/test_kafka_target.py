"""A Secret becomes a login, or a sentence that says what to do about it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event
from typing import Any

import pytest

from fraud_contracts.config import KAFKA_LOGIN_PATH
from fraud_contracts.detector import Component, ExternalKafka, Kafka, SecretRef
from fraud_contracts.names import Identity
from fraud_operator import conditions
from fraud_operator.child_status import Level
from fraud_operator.desired.components import COMPONENTS
from fraud_operator.desired.kafka_login import kafka_mounts, kafka_volumes
from fraud_operator.detector import Detector
from fraud_operator.facts import KafkaFact
from fraud_operator.glances import secrets_of
from fraud_operator.kafka_checks import CHECKING, KafkaChecks
from fraud_operator.kafka_questions import WantedTopics
from fraud_operator.kafka_target import KafkaTarget, kafka_target
from fraud_testing.healthy import healthy_facts, make_detector
from fraud_testing.secrets import secret

VALUES = {"KAFKA_USERNAME": "u", "KAFKA_PASSWORD": "p", "KAFKA_SASL_MECHANISM": "PLAIN"}
KEY = ("n", "d")
WANTED = WantedTopics(Identity("n", "d"), 1)


def external(secret: str | None = "login") -> Detector:
    detector = make_detector()
    kafka = Kafka(
        external=ExternalKafka(
            bootstrapServers="b:9093", secretRef=SecretRef(name=secret) if secret else None
        ),
        partitions=detector.spec.kafka.partitions,
    )
    return replace(detector, spec=detector.spec.model_copy(update={"kafka": kafka}))


def test_a_secret_becomes_a_login() -> None:
    """Over TLS, with the authority where it names one; its password is in no text."""
    target = kafka_target(external(), {"login": secret(**VALUES)})
    assert isinstance(target, KafkaTarget) and target.login is not None
    assert target.settings() == {
        "bootstrap.servers": "b:9093",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "u",
        "sasl.password": "p",
    }
    assert "password" not in repr(target)
    assert kafka_target(external(None), {}) == KafkaTarget("b:9093")


@pytest.mark.parametrize(
    ("values", "reason", "words"),
    [
        (None, "SecretMissing", "KAFKA_USERNAME and KAFKA_PASSWORD and KAFKA_SASL_MECHANISM"),
        ({"KAFKA_PASSWORD": ""}, "SecretKeyMissing", "KAFKA_PASSWORD"),
        ({"KAFKA_SASL_MECHANISM": "GSSAPI"}, "MechanismUnknown", "SCRAM-SHA-512"),
        ({"KAFKA_PASSWORD": "p\n"}, "SecretKeyBroken", "KAFKA_PASSWORD"),
        ({"KAFKA_PASSWORD": 'p"'}, "SecretKeyBroken", "KAFKA_PASSWORD"),
        ({"KAFKA_CA_CERT": "no certificate"}, "SecretKeyBroken", "KAFKA_CA_CERT"),
    ],
    ids=["no secret", "no password", "mechanism", "line break", "quote", "authority"],
)
def test_a_secret_that_will_not_do_is_told(values: dict[str, str] | None, reason: str, words: str) -> None:
    """Field, Secret, key and remedy, before anybody is asked."""
    fact = kafka_target(external(), {"login": None if values is None else secret(**VALUES | values)})
    assert isinstance(fact, KafkaFact) and (fact.ready, fact.reason) == (False, reason)
    assert fact.message.startswith("spec.kafka.external.secretRef: ")
    assert "login" in fact.message and words in fact.message
    states = conditions.conditions(
        external(), replace(healthy_facts(external()), kafka=fact), conditions.Trouble()
    )
    assert (states["KafkaReady"].status, states["KafkaReady"].reason) == (False, reason)
    assert states["Degraded"].reason == reason


def test_a_kafka_that_is_not_quite_as_it_must_be_is_degraded_and_ready() -> None:
    """Decisions go on; what is to be mended stands in both conditions."""
    detector = external()
    fact = KafkaFact(True, "TopicSettings", "words", flawed=True)
    states = conditions.conditions(
        detector, replace(healthy_facts(detector), kafka=fact), conditions.Trouble()
    )
    assert states["KafkaReady"].status and states["Ready"].status
    assert (states["Degraded"].status, states["Degraded"].reason) == (True, "TopicSettings")
    fact = KafkaFact(None, "Checking", "words")
    assert (
        conditions.kafka_ready(detector, replace(healthy_facts(detector), kafka=fact)).level
        is Level.PROGRESSING
    )


def test_the_login_is_mounted_where_kafka_is_spoken_to() -> None:
    """By its own file names, the authority's as one that may lack; nowhere else, and nowhere without a Secret."""
    speakers = {component for component in Component if kafka_mounts(external(), component)}
    assert speakers == {component for component, one in COMPONENTS.items() if one.kafka}
    assert speakers == set(Component) - {Component.PREDICTOR, Component.CONSOLE}
    assert kafka_mounts(external(), Component.WORKER)[0]["mountPath"] == KAFKA_LOGIN_PATH
    [volume] = kafka_volumes(external(), Component.WORKER)
    login, authority = (source["secret"] for source in volume["projected"]["sources"])
    assert {item["path"]: item["key"] for item in login["items"]} == {
        "username": "KAFKA_USERNAME", "password": "KAFKA_PASSWORD", "mechanism": "KAFKA_SASL_MECHANISM",
    }  # fmt: skip
    assert authority["optional"] and authority["items"] == [{"key": "KAFKA_CA_CERT", "path": "ca.crt"}]
    assert not kafka_volumes(external(), Component.CONSOLE)
    assert not kafka_volumes(external(None), Component.WORKER)
    assert external().config.kafka.login == KAFKA_LOGIN_PATH
    assert external(None).config.kafka.login is None
    assert "login" in secrets_of(external())


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_detectors_of_one_kafka_are_asked_about_together() -> None:
    """One question for all that log in alike; the last that goes takes the Kafka out of what is asked."""
    asked: list[int] = []
    clock = Clock()

    def ask(_: KafkaTarget, wanted: Any) -> dict[Any, KafkaFact]:
        asked.append(len(wanted))
        return dict.fromkeys(wanted, KafkaFact(True, "External", "words"))

    checks = KafkaChecks(ask, clock, ThreadPoolExecutor(1))
    target, keys = KafkaTarget("b:9092"), [("n", f"d{number}") for number in range(3)]
    for key in keys:
        assert checks.look(key, target, WANTED).ready
    clock.now = 60
    for key in keys:
        assert checks.look(key, target, WANTED).ready
    checks.pool.shutdown(wait=True)
    assert asked == [1, 2, 3, 3]
    for key in keys:
        checks.forget(key)
    assert not checks.turned(keys[0])


def test_passes_wait_for_brokers_that_are_away_once_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new leader has many detectors at them: who comes when the question is a moment old doesn't wait for its answer."""
    clock, answered, waits = Clock(), Event(), list[float]()
    monkeypatch.setattr("fraud_operator.kafka_checks.wait", lambda _, seconds: waits.append(seconds))

    def ask(_: KafkaTarget, wanted: Any) -> dict[Any, KafkaFact]:
        answered.wait(30)
        return dict.fromkeys(wanted, KafkaFact(True, "External", "words"))

    checks, target = KafkaChecks(ask, clock, ThreadPoolExecutor(1)), KafkaTarget("b:9092")
    for number in range(4):
        assert checks.look(("n", f"d{number}"), target, WANTED) == CHECKING
        clock.now += 0.5
    assert waits == [1.0, 0.5]
    answered.set()
    checks.pool.shutdown(wait=True)


def test_a_check_that_breaks_is_told() -> None:
    """A fault of ours is a reason of its own, and is logged whole."""

    def broken(*_: Any) -> dict[Any, KafkaFact]:
        raise RuntimeError("a fault")

    checks = KafkaChecks(broken, pool=ThreadPoolExecutor(1))
    fact = checks.look(KEY, KafkaTarget("b:9092"), WANTED)
    assert (fact.ready, fact.reason) == (False, "CheckFailed")
