"""The bytes of a claim: what is packed is read, and what earlier versions wrote, too. What the scripts do is tested with a real Redis."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from fraud_serving import claims
from fraud_serving.claims import Place
from fraud_testing import batches
from fraud_testing.feature_stream import Stream

STREAM = Stream(SimpleNamespace(config=batches.CONFIG, digest="sha256:0"))  # type: ignore[arg-type]  # no servers
DECISION: Any = orjson.loads(orjson.dumps(STREAM.inline(STREAM.record("pay"), action="review")["decision"]))
TOPIC = "b7Fm3XkFQkGv-_Q1r2s3tA"


@pytest.mark.parametrize(("appended", "published"), [(False, False), (True, False), (True, True)])
def test_a_whole_claim_gives_its_decision(appended: bool, published: bool) -> None:
    """In each state, in half of the JSON's bytes."""
    value = claims.pack(DECISION, appended, published)
    claim = claims.read(value, "pay")
    assert claim == claims.Claim(DECISION["hash"], DECISION, appended, published)
    assert len(value) < len(orjson.dumps(DECISION)) * 0.6


@pytest.mark.parametrize(("action", "state"), [("approve", b"A"), ("review", b"R"), ("decline", b"D")])
def test_a_head_alone_tells_bodies_apart(action: str, state: bytes) -> None:
    """And is published; its first byte shows the action to whoever looks."""
    value = claims.pack({**DECISION, "action": action}, appended=True, published=True)[: claims.HEAD]
    claim = claims.read(value, "pay")
    assert claim == claims.Claim(DECISION["hash"], None, True, True)
    assert claim.is_of(DECISION["hash"])
    assert not claim.is_of(f"{int(DECISION['hash'], 16) ^ 1:032x}")
    assert value[:1] == state


@pytest.mark.parametrize("odd", ["", "h", "F" * 32, "f" * 33, "\u00e9"])
def test_what_is_no_hash_is_told_from_others_too(odd: str) -> None:
    """As a damaged record may have: shrunk, a claim is still of that and of nothing else."""
    value = claims.pack({**DECISION, "hash": odd}, appended=True, published=True)[: claims.HEAD]
    claim = claims.read(value, "pay")
    assert claim is not None
    assert claim.is_of(odd)
    assert not claim.is_of(odd + "x")


@pytest.mark.parametrize("decided", [0, -1, 2**48, 2**63 - 1])
def test_any_time_of_a_decision_is_packed(decided: int) -> None:
    """Also one that no clock shows, as a damaged record may have."""
    value = claims.pack({**DECISION, "decided": decided}, appended=False)
    claim = claims.read(value, "pay")
    assert claim is not None and claim.decision is not None
    assert claim.decision["decided"] == decided


@pytest.mark.parametrize(
    ("partition", "offset", "place"),
    [
        (0, 0, Place("b7Fm3", 0, 0)),
        (65_535, 2**40 - 2, Place("b7Fm3", 65_535, 2**40 - 2)),
        (3, -1, None),
        (65_536, 1, None),
        (0, 2**40 - 1, None),
    ],
)
def test_a_place_is_kept_where_it_is_known_and_fits(partition: int, offset: int, place: Place | None) -> None:
    """The topic's id by its beginning, as Kafka writes it."""
    value = claims.pack(DECISION, appended=True, published=True)
    head = value[:17] + claims.place(TOPIC, partition, offset)
    claim = claims.read(head, "pay")
    assert claim is not None
    assert claim.place == place


@pytest.mark.parametrize("topic_id", ["", "AAAAAAAAAAAAAAAAAAAAAA", "+/+/+/+/+/+/+/+/+/+/+A", TOPIC])
def test_any_id_of_a_topic_is_packed(topic_id: str) -> None:
    """None at all, that of a broker without ids, and those of both alphabets that base64 has."""
    assert len(claims.place(topic_id, 1, 2)) == 11


@pytest.mark.parametrize("ending", [b"", b"\n"])
@pytest.mark.parametrize("state", [b"0", b"1"])
def test_claims_of_the_version_before_are_read(state: bytes, ending: bytes) -> None:
    """Their states, too; a newline behind one that isn't appended says nothing."""
    claim = claims.read(state + orjson.dumps(DECISION) + ending, "pay")
    appended = state == b"1"
    assert claim == claims.Claim(DECISION["hash"], DECISION, appended, appended and ending == b"\n")
    assert claims.read(b"1", "pay") is None
