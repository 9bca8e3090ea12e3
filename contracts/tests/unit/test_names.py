"""Names: unique per identity, within each kind's limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_contracts import names
from fraud_contracts.child_kinds import BY_KIND

LONGEST = "d" * names.MAX_NAME
DNS = st.from_regex(r"[a-z]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("Kafka", names.kafka(LONGEST)),
        ("KafkaNodePool", f"{names.kafka(LONGEST)}-{names.kafka_node_pool(LONGEST)}"),
        ("KafkaTopic", names.kafka_topic(LONGEST, "label-reports")),
        ("FlinkDeployment", names.flink_deployment(LONGEST, "abcdef")),
        ("RayJob", names.ray_job(LONGEST, "abcdef01")),
        ("InferenceService", names.inference_service(LONGEST, "a")),
        ("Deployment", names.decision_service(LONGEST)),
        ("Deployment", names.sink(LONGEST, "profile")),
        ("Deployment", names.console(LONGEST)),
        ("Deployment", names.worker(LONGEST)),
        ("Service", names.predictors(names.inference_service(LONGEST, "a"))),
        ("ConfigMap", names.release(LONGEST, "abcdef01")),
        ("ConfigMap", names.config(LONGEST)),
        ("Secret", names.keys(LONGEST)),
        ("Secret", names.client(LONGEST, LONGEST)),
    ],
)
def test_the_longest_detector_name_gives_children_within_their_kinds_limit(kind: str, name: str) -> None:
    """A detector name of the greatest length still gives a valid name to each kind of child."""
    assert len(name) <= BY_KIND[kind].longest_name


def test_a_topic_is_at_most_249_characters() -> None:
    """Kafka refuses topics of more than 249 characters; the longest identity stays below."""
    identity = names.Identity("n" * names.MAX_NAMESPACE, LONGEST)
    assert max(len(identity.topic(noun)) for noun in names.TOPICS) <= 249


@given(DNS, DNS, DNS, DNS)
def test_two_identities_share_no_external_name(
    namespace: str, name: str, other_namespace: str, other_name: str
) -> None:
    """Two detectors never read each other's topics, keys or tables."""
    one, two = names.Identity(namespace, name), names.Identity(other_namespace, other_name)
    if one == two:
        return
    assert one.topic("transactions") != two.topic("transactions")
    assert one.redis_claim("x") != two.redis_claim("x")
    assert one.database_schema != two.database_schema
    assert one.database_logins != two.database_logins
    assert not two.database_owner.startswith(one.database_logins)
    assert one.group("worker") != two.group("worker")


@given(DNS, DNS)
def test_an_identity_survives_its_text(namespace: str, name: str) -> None:
    """Parsing the text form gives the identity back."""
    assert names.Identity.parse(str(names.Identity(namespace, name))) == names.Identity(namespace, name)


def test_a_schema_name_fits_postgresql() -> None:
    """PostgreSQL cuts identifiers at 63 bytes; the longest identity's schema is not cut, nor a login with its stamp."""
    longest = names.Identity("n" * 63, LONGEST)
    assert len(longest.database_schema) <= 63
    assert len(f"{longest.database_logins}00000000") <= 63


def test_an_unknown_topic_is_refused() -> None:
    """A noun that isn't a topic is an error that lists the topics."""
    with pytest.raises(ValueError, match="one of transactions"):
        names.Identity("a", "b").topic("payments")
