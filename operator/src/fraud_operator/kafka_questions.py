"""What the operator asks a Kafka of the user's own: may I log in, are the topics there, are they as they must be; and makes what lacks."""

from __future__ import annotations

import logging
import re
import socket
import ssl
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from fraud_contracts import names
from fraud_contracts.lineage import SOURCES
from fraud_contracts.names import Identity
from fraud_operator.desired.kafka_topics import TOPIC_RETENTION
from fraud_operator.detector import DetectorKey
from fraud_operator.facts import KafkaFact
from fraud_operator.kafka_target import ADDRESS_FIELD, KafkaTarget

LOG: Final = logging.getLogger(__name__)
# Of the brokers, for their first answer, and of each request after it.
PATIENCE: Final = 10.0
_STEP: Final = 0.5
# The cluster's own number of copies (KIP-464): how many brokers a user has is none of ours.
_COPIES: Final = -1
_X509_EXPIRED: Final = 10
# librdkafka's own clocks and counts: with them the same fault would be another answer each time, and lead to a pass.
_UNSTEADY: Final = re.compile(r" \(after \d+ms(?:[^()]|\(s\))*\)")
_MAY_NOT: Final = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)
# What would spoil data where it differs: a compacted topic is a store, and event time is checked against the append time.
_VITAL: Final = ("cleanup.policy", "message.timestamp.type")


@dataclass(frozen=True)
class WantedTopics:
    """A detector's ten topics. ``make``: those that lack are made where the login may."""

    identity: Identity
    partitions: int
    make: bool = True


class _AskError(Exception):
    """Why no broker can be asked."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


def ask(target: KafkaTarget, wanted: Mapping[DetectorKey, WantedTopics]) -> dict[DetectorKey, KafkaFact]:
    """A fact for each detector, in some 20 s at most for the first and 20 s for each further one."""
    errors: list[KafkaError] = []
    try:
        admin = AdminClient(
            {
                **target.settings(),
                "socket.timeout.ms": int(PATIENCE * 1000),
                "error_cb": errors.append,
                "log_level": 0,
            }
        )
        listing = _listing(target, admin, errors)
    except KafkaException as error:  # a setting that librdkafka won't have
        fact = KafkaFact(False, "Refused", f"{target.owner}: {_words(error.args[0])}")
        return dict.fromkeys(wanted, fact)
    except _AskError as error:
        return dict.fromkeys(wanted, KafkaFact(False, error.reason, error.message))
    return {key: _topics(target, admin, listing, one) for key, one in wanted.items()}


def _listing(target: KafkaTarget, admin: AdminClient, errors: list[KafkaError]) -> Mapping[str, Any]:
    """By name the topics that the login may see."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            topics: Mapping[str, Any] = admin.list_topics(timeout=_STEP).topics
            return topics
        except KafkaException as error:
            admin.poll(0)  # hands over what errors there were
            telling = [one for one in errors if one.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL)]
            if telling or time.monotonic() > until:
                last = [one for one in errors if one.code() != KafkaError._ALL_BROKERS_DOWN]
                raise _judged(target, [*telling, *last[-1:], error.args[0]][0]) from error


def _judged(target: KafkaTarget, error: KafkaError) -> _AskError:
    words = _words(error)
    if error.code() == KafkaError._AUTHENTICATION:
        if "nsupported SASL mechanism" in words:
            remedy = "write one that the listener has into KAFKA_SASL_MECHANISM"
            return _AskError("MechanismRefused", f"{target.owner}: {words}: {remedy}")
        remedy = "the user is revoked, or user and password don't belong together: put in those of now"
        return _AskError("LoginRefused", f"{target.owner}: {words}: {remedy}")
    if error.code() == KafkaError._SSL:
        reason, message = certificate_fault(target) or ("TlsFailed", words)
        return _AskError(reason, f"{target.owner}: {message}")
    remedy = "see to the brokers, to the way there, and to whether the listener wants a login"
    return _AskError(
        "Unreachable", f"{ADDRESS_FIELD}: {target.bootstrap} gives no answer ({words}): {remedy}"
    )


def certificate_fault(target: KafkaTarget) -> tuple[str, str] | None:
    """Reason and message where a broker's certificate won't do: librdkafka doesn't say why."""
    context = ssl.create_default_context(cadata=(target.login and target.login.authority) or None)
    for address in target.bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        host = host.strip("[]")
        try:
            with (
                socket.create_connection((host, int(port)), PATIENCE) as plain,
                context.wrap_socket(plain, server_hostname=host),
            ):
                continue
        except ssl.SSLCertVerificationError as error:
            what = f"the certificate of {address.strip()} won't do: {error.verify_message}"
            if error.verify_code == _X509_EXPIRED:
                return "CertificateExpired", f"{what}: renew it at the brokers"
            return "CertificateUntrusted", f"{what}: put the authority's own (PEM) into KAFKA_CA_CERT"
        except (OSError, ValueError):
            continue
    return None


def _words(error: KafkaError) -> str:
    return _UNSTEADY.sub("", str(error.str()))[:250]


def _topics(
    target: KafkaTarget, admin: AdminClient, listing: Mapping[str, Any], wanted: WantedTopics
) -> KafkaFact:
    topics = {noun: wanted.identity.topic(noun) for noun in names.TOPICS}
    lacking = [noun for noun, topic in topics.items() if topic not in listing]
    refused = _make(admin, wanted, lacking) if wanted.make else dict.fromkeys(lacking, "spec.paused")
    if refused:
        return KafkaFact(False, "TopicsMissing", _to_make(target, wanted, refused))
    other = {
        topics[noun]: len(listing[topics[noun]].partitions)
        for noun in names.TOPICS
        if noun not in lacking and len(listing[topics[noun]].partitions) != wanted.partitions
    }
    if other:
        counts = ", ".join(f"{topic} has {count}" for topic, count in other.items())
        message = f"all topics need {wanted.partitions} partitions (spec.kafka.partitions), and {counts}: make them anew"
        return KafkaFact(False, "TopicPartitions", f"{ADDRESS_FIELD}: {message}")
    about = f"brokers are the user's own at {target.bootstrap}"
    flaws = _flaws(admin, [noun for noun in names.TOPICS if noun not in lacking], topics)
    ids = _ids(admin, topics)
    if flaws:
        return KafkaFact(True, "TopicSettings", f"{about}; {'; '.join(flaws)}", flawed=True, topics=ids)
    return KafkaFact(True, "External", f"{about}, with all topics", topics=ids)


def _ids(admin: AdminClient, topics: Mapping[str, str]) -> dict[str, str]:
    """By noun, of what a streaming job reads; brokers from before topics had ids have none."""
    described = admin.describe_topics(
        TopicCollection([topics[noun] for noun in SOURCES]), request_timeout=PATIENCE
    )
    ids: dict[str, str] = {}
    for noun in SOURCES:
        try:
            topic_id = described[topics[noun]].result(PATIENCE + _STEP).topic_id
        except (KafkaException, TimeoutError) as error:
            LOG.debug("no id of a topic", extra={"data": {"topic": topics[noun], "error": str(error)}})
            continue
        if topic_id is not None:
            ids[noun] = str(topic_id)
    return ids


def _make(admin: AdminClient, wanted: WantedTopics, lacking: Sequence[str]) -> dict[str, str]:
    """Makes topics; those that couldn't be made with the broker's words, empty where the login may not."""
    refused: dict[str, str] = {}
    if not lacking:
        return refused
    new_topics = [
        NewTopic(wanted.identity.topic(noun), wanted.partitions, _COPIES, config=dict(TOPIC_RETENTION[noun]))
        for noun in lacking
    ]
    futures = admin.create_topics(new_topics, operation_timeout=PATIENCE, request_timeout=PATIENCE)
    for noun in lacking:
        try:
            futures[wanted.identity.topic(noun)].result(PATIENCE + _STEP)
        except KafkaException as error:
            cause = error.args[0]
            refused[noun] = "" if cause.code() in _MAY_NOT else _words(cause)
        except TimeoutError:
            refused[noun] = "no answer in time"
    done = [noun for noun in lacking if noun not in refused]
    if done:
        LOG.info("topics made", extra={"data": {"detector": str(wanted.identity), "topics": done}})
    return refused


def _to_make(target: KafkaTarget, wanted: WantedTopics, refused: Mapping[str, str]) -> str:
    """What a person is to make, within a condition's 1,024 characters: topics of the same settings together."""
    alike: dict[str, list[str]] = defaultdict(list)
    for noun in refused:
        alike[", ".join(f"{key}={value}" for key, value in sorted(TOPIC_RETENTION[noun].items()))].append(
            noun
        )
    listed = "; ".join(f"{' '.join(nouns)} ({settings})" for settings, nouns in alike.items())
    why = sorted(set(refused.values()) - {""})
    reason = f"couldn't be made ({why[0]})" if why else "may not be made or seen with this login"
    topic = wanted.identity.topic(next(iter(refused)))
    return f"{target.owner}: topics like {topic} aren't there and {reason}; make with {wanted.partitions} partitions each: {listed}"


def _flaws(admin: AdminClient, nouns: Sequence[str], topics: Mapping[str, str]) -> list[str]:
    """Settings that would spoil data; none where the login may not read them."""
    if not nouns:
        return []
    resources = {noun: ConfigResource(ConfigResource.Type.TOPIC, topics[noun]) for noun in nouns}
    futures = admin.describe_configs(list(resources.values()), request_timeout=PATIENCE)
    flaws = []
    for noun, resource in resources.items():
        try:
            entries = futures[resource].result(PATIENCE + _STEP)
        except (KafkaException, TimeoutError) as error:
            LOG.debug("no settings of a topic", extra={"data": {"topic": topics[noun], "error": str(error)}})
            continue
        for setting in _VITAL:
            must, value = TOPIC_RETENTION[noun].get(setting), getattr(entries.get(setting), "value", None)
            if must is not None and value is not None and must != value:
                flaws.append(f"{topics[noun]}: {setting} is {value}, must be {must}")
    return flaws
