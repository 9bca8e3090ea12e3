"""Other Pods for another authority of the brokers, and for nothing else that becomes of its Secret."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from fraud_contracts import names
from fraud_operator.desired.child import KafkaAuthority, Wanted
from fraud_operator.desired.children import build_children
from fraud_operator.facts import KafkaFact
from fraud_operator.kafka_authority import PUBLIC, kafka_authority
from fraud_operator.kafka_target import KafkaTarget
from fraud_operator.objects import ChildKey
from fraud_operator.releases import make_release
from fraud_operator.rollout_state import RolloutState
from fraud_process.kafka import KafkaLogin
from fraud_testing.healthy import make_detector

DETECTOR = make_detector()
UNKNOWN = KafkaFact(None, "Checking", "no login yet")
# Titles of what speaks to Kafka as long as it lives; a training ends by itself.
SPEAKERS = {"d-decision", "d-worker", "d-profile-sink", "d-ledger-sink", "d-lake-sink"}


def vouched(authority: str) -> KafkaTarget:
    return KafkaTarget("b:9093", KafkaLogin("u", "p", "SCRAM-SHA-512", authority))


def children(authority: KafkaAuthority, revision: str | None = None) -> dict[ChildKey, dict[str, Any]]:
    """As the API server has them once they were applied."""
    state = RolloutState()
    wanted = Wanted(
        release=make_release(DETECTOR, state, None, DETECTOR.spec.policy),
        state=state,
        training_revision=revision,
        kafka_authority=authority,
    )
    built = {(child.kind, child.name): child.body for child in build_children(DETECTOR, wanted)}
    for body in built.values():
        fields = {f"f:{key}": {} for key in body["metadata"].get("annotations", {})}
        entry = {"manager": names.FIELD_MANAGER, "fieldsV1": {"f:metadata": {"f:annotations": fields}}}
        body["metadata"]["managedFields"] = [entry]
    return built


def marks(built: Mapping[ChildKey, Any]) -> dict[str, str]:
    """By name the children anywhere in which an authority is named, and which."""

    def walk(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            yield from (text for key, text in value.items() if key == names.KAFKA_AUTHORITY_ANNOTATION)
            for inner in value.values():
                yield from walk(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from walk(inner)

    return {name: text for (_, name), body in built.items() for text in walk(body)}


def test_the_first_authority_makes_no_other_pods() -> None:
    """It comes while the first Pods are being made: the configuration remembers it, and no template names it."""
    before = kafka_authority(DETECTOR, UNKNOWN, {})
    assert before == KafkaAuthority()
    first = kafka_authority(DETECTOR, vouched("one"), children(before))
    assert first.first and not first.later
    config = ("ConfigMap", names.config("d"))
    changed = {key for key, body in children(first).items() if body != children(before)[key]}
    assert changed == {config}
    assert kafka_authority(DETECTOR, vouched("one"), children(first)) == first


def test_another_authority_makes_other_pods_once() -> None:
    """Of each component that speaks to Kafka, by nothing but its name; asked again, nothing is to be changed."""
    first = kafka_authority(DETECTOR, vouched("one"), {})
    renewed = kafka_authority(DETECTOR, vouched("two"), children(first))
    assert renewed.first == first.first and renewed.later not in ("", first.first)
    stream = names.flink_deployment("d", DETECTOR.hash6)
    assert marks(children(renewed, "r1")) == dict.fromkeys({*SPEAKERS, stream}, renewed.later)
    assert kafka_authority(DETECTOR, vouched("two"), children(renewed)) == renewed
    again = kafka_authority(DETECTOR, vouched("one"), children(renewed))
    assert again.later == first.first


@pytest.mark.parametrize(
    "target", [UNKNOWN, None, KafkaTarget("b:9092"), vouched("")], ids=["no", "nobody", "open", "public"]
)
def test_without_an_authority_all_stays_as_it_is(target: KafkaTarget | KafkaFact | None) -> None:
    """A Secret that is gone, empty or can't be read changes no template, before and after a renewal."""
    first = kafka_authority(DETECTOR, vouched("one"), {})
    renewed = kafka_authority(DETECTOR, vouched("two"), children(first))
    for authority in (first, renewed):
        assert kafka_authority(DETECTOR, target, children(authority)) == authority


def test_an_authority_in_the_place_of_public_ones_makes_other_pods() -> None:
    """Where a Kafka of the user's own changes to one of its own."""
    public = kafka_authority(DETECTOR, vouched(""), {})
    assert public == KafkaAuthority(PUBLIC)
    assert kafka_authority(DETECTOR, vouched("one"), children(public)).later


def test_other_line_breaks_are_no_other_authority() -> None:
    """Whoever copies a certificate may end its lines otherwise."""
    first = kafka_authority(DETECTOR, vouched("one\ntwo\n"), {})
    assert kafka_authority(DETECTOR, vouched("one\r\ntwo"), children(first)) == first


def test_what_a_hand_wrote_or_deleted_is_not_believed() -> None:
    """The authority of now is the first one then, and templates that name one go on naming it."""
    first = kafka_authority(DETECTOR, vouched("one"), {})
    renewed = kafka_authority(DETECTOR, vouched("two"), children(first))
    for authority, target in ((first, vouched("one")), (renewed, vouched("two"))):
        config = ("ConfigMap", names.config("d"))
        forged = children(replace(authority, first="x"))
        forged[config]["metadata"]["managedFields"] = []
        gone = {key: body for key, body in children(authority).items() if key != config}
        for live in (forged, gone):
            assert kafka_authority(DETECTOR, target, live).later == authority.later
