"""What a Kafka of the user's own answers to the operator's question, with a real broker: each fault by its reason, in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka.admin import AclOperation, ResourceType

from fraud_contracts import names
from fraud_contracts.names import Identity
from fraud_operator.facts import KafkaFact
from fraud_operator.kafka_checks import KafkaChecks
from fraud_operator.kafka_questions import WantedTopics, ask
from fraud_operator.kafka_target import KafkaTarget
from fraud_operator.lags import LagReader
from fraud_process.kafka import KafkaLogin
from fraud_testing import kafka_tls
from fraud_testing.kafka import free_port, wait_for
from fraud_testing.kafka_tls import SCRAM, Authority, LockedBroker
from fraud_testing.required import require

pytestmark = pytest.mark.integration
KEY = ("n", "d")
PASSWORD = "one of sixteen or more"


@pytest.fixture(scope="module")
def broker() -> Iterator[LockedBroker]:
    require(kafka_tls.missing())
    with kafka_tls.locked_broker() as running:
        running.set_password("maker", PASSWORD)
        running.allow("maker", "n.")
        running.set_password("reader", PASSWORD)
        running.allow("reader", "n.", [AclOperation.DESCRIBE, AclOperation.READ])
        yield running


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no broker that is away."""
    monkeypatch.setattr("fraud_operator.kafka_questions.PATIENCE", 30.0)


def target(broker: LockedBroker, user: str = "maker", **other: str) -> KafkaTarget:
    login = KafkaLogin(user, PASSWORD, SCRAM, broker.authority.certificate)
    return KafkaTarget(broker.bootstrap, replace(login, **other), "field: Secret s in n")


def answer(where: KafkaTarget, name: str = "d", partitions: int = 2, *, make: bool = True) -> KafkaFact:
    return ask(where, {KEY: WantedTopics(Identity("n", name), partitions, make)})[KEY]


def test_topics_that_lack_are_made(broker: LockedBroker) -> None:
    """With the partitions of the spec and the settings of a managed Kafka's; asked again, all is well."""
    fact = answer(target(broker), "makes")
    assert (fact.ready, fact.reason) == (True, "External"), fact
    assert not answer(target(broker), "makes", make=False).flawed
    rows = broker.plain.consumer("settings").list_topics().topics
    identity = Identity("n", "makes")
    assert {len(rows[identity.topic(noun)].partitions) for noun in names.TOPICS} == {2}


def test_topics_that_may_not_be_made_are_listed_with_their_settings(broker: LockedBroker) -> None:
    """Each by its noun, with partitions, cleanup policy and retention, within what a condition holds."""
    fact = answer(target(broker, "reader"), "lists")
    assert (fact.ready, fact.reason) == (False, "TopicsMissing")
    assert len(fact.message) < 1024
    for noun in names.TOPICS:
        assert noun in fact.message
    assert "2 partitions" in fact.message and "may not be made" in fact.message
    assert "cleanup.policy=compact" in fact.message and "retention.ms=172800000" in fact.message


def test_a_paused_detector_makes_no_topics(broker: LockedBroker) -> None:
    """They are listed, and none is there afterwards."""
    fact = answer(target(broker), "paused", make=False)
    assert (fact.reason, "spec.paused" in fact.message) == ("TopicsMissing", True)
    assert Identity("n", "paused").topic("seeds") not in broker.plain.consumer("x").list_topics().topics


def test_other_partitions_and_settings_are_told(broker: LockedBroker) -> None:
    """Another number of partitions won't do; a compacted topic that deletes will, but for that."""
    identity = Identity("n", "differs")
    for noun in names.TOPICS:
        config = {} if noun == "labels" else {"message.timestamp.type": "LogAppendTime"}
        broker.plain.create([identity.topic(noun)], 2, config)
    fact = answer(target(broker), "differs", partitions=3)
    assert (fact.ready, fact.reason) == (False, "TopicPartitions")
    assert f"{identity.topic('labels')} has 2" in fact.message
    fact = answer(target(broker), "differs")
    assert (fact.ready, fact.reason, fact.flawed) == (True, "TopicSettings", True)
    assert f"{identity.topic('profiles')}: cleanup.policy is delete, must be compact" in fact.message


@pytest.mark.parametrize(
    ("other", "reason", "words"),
    [
        ({"password": "another one entirely"}, "LoginRefused", "put in those of now"),
        ({"username": "nobody"}, "LoginRefused", "revoked"),
        ({"mechanism": "SCRAM-SHA-256"}, "MechanismRefused", "KAFKA_SASL_MECHANISM"),
        ({"mechanism": "PLAIN"}, "MechanismRefused", "KAFKA_SASL_MECHANISM"),
        ({"authority": ""}, "CertificateUntrusted", "KAFKA_CA_CERT"),
    ],
    ids=["password", "user", "mechanism", "plain", "authority"],
)
def test_a_login_that_is_refused_is_told(
    broker: LockedBroker, other: dict[str, str], reason: str, words: str
) -> None:
    """The field, what the broker says and the remedy; never the password."""
    fact = answer(target(broker, **other))
    assert (fact.ready, fact.reason) == (False, reason), fact
    assert fact.message.startswith("field: Secret s in n: ") and words in fact.message
    assert PASSWORD not in fact.message and "another one entirely" not in fact.message


def test_a_certificate_of_another_authority_is_told(broker: LockedBroker, tmp_path: Path) -> None:
    """One that vouches for nobody there."""
    other = Authority(tmp_path / "other", "other").make()
    fact = answer(target(broker, authority=other.certificate))
    assert (fact.ready, fact.reason) == (False, "CertificateUntrusted"), fact


def test_an_expired_certificate_is_told(broker: LockedBroker) -> None:
    """By its own reason: the remedy lies with the brokers."""
    fact = answer(replace(target(broker), bootstrap=broker.expired))
    assert (fact.ready, fact.reason) == (False, "CertificateExpired"), fact
    assert "renew it at the brokers" in fact.message


def test_brokers_that_are_away_are_told(broker: LockedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is a listener that wants a login where none is given."""
    monkeypatch.setattr("fraud_operator.kafka_questions.PATIENCE", 2.0)
    nowhere = f"127.0.0.1:{free_port()}"
    fact = answer(KafkaTarget(nowhere))
    assert (fact.ready, fact.reason) == (False, "Unreachable") and nowhere in fact.message
    assert "ms in state" not in fact.message and "identical error" not in fact.message
    fact = answer(KafkaTarget(broker.bootstrap))
    assert (fact.ready, fact.reason) == (False, "Unreachable")


def test_lags_are_read_with_the_login(broker: LockedBroker) -> None:
    """By the same certificates and user."""
    assert answer(target(broker), "lags").ready
    reader = LagReader()
    topic = Identity("n", "lags").topic("seeds")
    broker.plain.produce(topic, [("k", "v")])
    assert reader.read(KEY, target(broker), "n.group", topic, 2) == (1, 1)
    reader.done(KEY)


def test_a_user_that_is_revoked_turns_the_answer(
    broker: LockedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing tells of it: what is asked again between passes leads to one."""
    monkeypatch.setattr("fraud_operator.kafka_checks.AGAIN", 0.5)
    broker.set_password("shortly", PASSWORD)
    broker.allow("shortly", "n.", kinds=(ResourceType.TOPIC,))
    checks, wanted = KafkaChecks(), WantedTopics(Identity("n", "revoked"), 1)
    own = target(broker, "shortly")
    wait_for(lambda: checks.look(KEY, own, wanted).ready, 10, "an answer")
    assert not checks.turned(KEY)
    broker.revoke("shortly")
    wait_for(lambda: checks.turned(KEY), 20, "another answer")
    assert checks.look(KEY, own, wanted).reason == "LoginRefused"
    assert not checks.turned(KEY)
    checks.forget(KEY)
    assert not checks.turned(KEY)
