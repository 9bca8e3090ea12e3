"""The first step: what passes, what becomes a dead letter, what is ignored."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import orjson
import pytest

from fraud_contracts.config import MAX_EVENT_BYTES
from fraud_contracts.names import profile_key, seed_key
from fraud_flink.elements import EventElement, LabelElement, SeedElement, entity_key
from fraud_flink.intake import DeadLetterRow, Intake
from fraud_pipelines.dead_letter_cipher import DeadLetterCipher
from fraud_pipelines.events import Tokeniser
from fraud_pipelines.features import compile_detector
from fraud_testing import detectors

NOW = 1_795_000_000_000
KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
CONFIG = detectors.detector("unused:9092")
SOURCE: Any = {"topic": "t", "partition": 3, "offset": 14}
INTAKE = Intake(CONFIG, Tokeniser(b"0" * 32), DeadLetterCipher(KEY))
RAW = {
    "id": "a",
    "time": NOW,
    "amount": 12.34,
    "card": "4000",
    "merchant": "m",
    "category": "food",
    "other": 1,
}
LABEL_RECORD: Any = {
    "id": "a",
    "time": NOW,
    "entities": {"customer": "t_1", "counterparty": "shop"},
    "fraud": True,
    "known": NOW,
}


def event_element(outcome: object) -> EventElement:
    assert isinstance(outcome, EventElement)
    return outcome


def letter(outcome: object) -> dict[str, Any]:
    assert isinstance(outcome, DeadLetterRow)
    return dict(orjson.loads(outcome.value))


def test_intake_and_stages_need_no_flink() -> None:
    """Both import without PyFlink, so replay and tests may use them anywhere."""
    code = "import sys, fraud_flink.intake, fraud_flink.stages; sys.exit('pyflink' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_transaction_becomes_an_element() -> None:
    """A raw payment is tokenised, cut to its declared fields, and remembers where it lay."""
    element = event_element(INTAKE.transaction(orjson.dumps(RAW), SOURCE, NOW))
    assert element.event["amount"] == 1234
    assert element.event["entities"]["customer"].startswith("t_")
    assert element.event["fields"] == {"category": "food"}
    assert (element.source, element.appended, element.decision) == (SOURCE, NOW, None)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (None, "invalid_json"),
        (b"", "invalid_json"),
        (b"[]", "not_an_object"),
        (b" " * (MAX_EVENT_BYTES + 1), "too_large"),
        (orjson.dumps({**RAW, "card": None}), "missing_field"),
        (orjson.dumps({**RAW, "time": NOW + 3_600_000}), "time_in_future"),
        (orjson.dumps({**RAW, "decision": {"action": "approve"}}), "carries_decision"),
    ],
)
def test_a_bad_transaction_becomes_an_encrypted_letter(raw: bytes | None, reason: str) -> None:
    """Its letter says why and whence, holds at most the first bytes, and only the key opens them."""
    dead = letter(INTAKE.transaction(raw, SOURCE, NOW))
    assert dead["reason"] == reason
    assert (dead["source"], dead["stage"], dead["appended"]) == (SOURCE, "stream", NOW)
    assert DeadLetterCipher(KEY).decrypt(dead["payload"]) == (raw or b"")[:MAX_EVENT_BYTES]


def test_another_currency_is_a_dead_letter() -> None:
    """A payment in another currency than the detector's is sealed as wrong_currency, naming field and currency."""
    event = {
        **detectors.SPEC["event"],
        "amount": {"field": "amount", "currency": "EUR", "currencyField": "cur"},
    }
    intake = Intake(
        detectors.detector("unused:9092", event=event), Tokeniser(b"0" * 32), DeadLetterCipher(KEY)
    )
    dead = letter(intake.transaction(orjson.dumps({**RAW, "cur": "JPY"}), SOURCE, NOW))
    assert (dead["reason"], dead["message"]) == (
        "wrong_currency",
        "cur must hold EUR, the detector's currency",
    )
    element = event_element(intake.transaction(orjson.dumps({**RAW, "cur": "EUR"}), SOURCE, NOW))
    assert element.event["currency"] == "EUR"


def test_a_letter_with_an_id_is_keyed_by_it() -> None:
    """Letters of one id follow each other on one partition."""
    row = INTAKE.transaction(orjson.dumps({**RAW, "amount": -1}), SOURCE, NOW)
    assert isinstance(row, DeadLetterRow)
    assert row.key == b"a"


@pytest.mark.parametrize(
    "event",
    [
        None,
        7,
        {},
        {"id": "a", "time": "soon"},
        {"id": "a", "time": 1, "amount": 1, "entities": {"customer": 4}, "fields": {}},
    ],
)
def test_a_damaged_accepted_event_passes(event: object) -> None:
    """Its decision must be published, so it goes on without a vector and is never a dead letter."""
    record = {"event": event, "hash": "h", "decision": {"id": "a", "action": "approve"}}
    element = event_element(INTAKE.accepted(orjson.dumps(record), SOURCE, NOW))
    assert element.decision is not None
    assert (element.reason, element.decision["id"]) == ("features_failed", "a")
    assert isinstance(entity_key(element, "customer"), str)


WHOLE_EVENT: Any = {
    "id": "a",
    "time": NOW,
    "amount": 5,
    "currency": "EUR",
    "entities": {"customer": "t_1"},
    "fields": {},
}


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": 5.5},
        {"amount": True},
        {"id": "b"},
        {"fields": None},
        {"fields": {"category": []}},
        {"currency": 7},
        {"entities": {}},
        None,
    ],
)
def test_the_decisions_own_event_stands_for_a_damaged_one(changes: dict[str, Any] | None) -> None:
    """Event and hash are there twice, and the worker publishes nothing of a record that lacks them."""
    event = None if changes is None else {**WHOLE_EVENT, **changes}
    decision = {"id": "a", "action": "decline", "event": WHOLE_EVENT, "hash": "h"}
    element = event_element(
        INTAKE.accepted(orjson.dumps({"event": event, "decision": decision}), SOURCE, NOW)
    )
    assert (element.event, element.hash, element.reason) == (WHOLE_EVENT, "h", "features_failed")


@pytest.mark.parametrize("body_hash", [None, 7])
def test_the_decisions_own_hash_stands_for_a_lost_one(body_hash: object) -> None:
    """The event is whole, so it goes on as others do."""
    decision = {"id": "a", "action": "decline", "event": WHOLE_EVENT, "hash": "h"}
    record = {"event": WHOLE_EVENT, "hash": body_hash, "decision": decision}
    element = event_element(INTAKE.accepted(orjson.dumps(record), SOURCE, NOW))
    assert (element.event, element.hash, element.reason) == (WHOLE_EVENT, "h", None)


def test_a_letter_of_accepted_names_the_id_where_it_holds_one() -> None:
    """So that the id has an end."""
    row = INTAKE.accepted(orjson.dumps({"event": WHOLE_EVENT, "hash": "h"}), SOURCE, NOW)
    assert letter(row)["id"] == "a"


@pytest.mark.parametrize("raw", [None, b"", b"{}", b"[]", b'{"event":{}}'])
def test_accepted_without_a_decision_is_a_dead_letter(raw: bytes | None) -> None:
    """Bytes that hold no decision have nothing to publish; they are kept instead of dropped."""
    assert letter(INTAKE.accepted(raw, SOURCE, NOW))["reason"] in ("invalid_json", "not_an_object")


def test_a_label_passes_and_a_bad_one_is_kept() -> None:
    """A label goes to the entities with features of labels; one without its parts becomes a dead letter."""
    elements = INTAKE.label(orjson.dumps(LABEL_RECORD), SOURCE, NOW)
    assert elements == [LabelElement("counterparty", LABEL_RECORD)]
    assert [entity_key(elements[0], entity) for entity in ("customer", "counterparty")] == ["ishop", "tshop"]
    absent = {**LABEL_RECORD, "entities": {"customer": "t_1", "counterparty": None}}
    assert INTAKE.label(orjson.dumps(absent), SOURCE, NOW) == []
    assert (
        letter(INTAKE.label(orjson.dumps({**LABEL_RECORD, "known": None}), SOURCE, NOW))["reason"]
        == "wrong_type"
    )
    assert letter(INTAKE.label(b"{}", SOURCE, NOW))["reason"] == "missing_field"


def test_only_seeds_of_this_set_count() -> None:
    """A seed's key says set, entity and token; a token may hold colons; other sets and tombstones are passed over."""
    key = profile_key(CONFIG.hash6, "customer", "a:b").encode()
    profile = compile_detector(CONFIG.spec).stage("customer").open(None, 2).dump()
    elements = INTAKE.take("seeds", key, profile, SOURCE, NOW)
    assert elements == [SeedElement("customer", "a:b", profile)]
    assert [entity_key(elements[0], entity) for entity in ("customer", "counterparty")] == ["ta:b", "ia:b"]
    for other, value in ((b"000000:customer:x", b"p"), (key, None), (None, b"p"), (b"\xff", b"p")):
        assert INTAKE.take("seeds", other, value, SOURCE, NOW) == []


def test_a_job_that_begins_with_seeds_takes_those_of_their_training_only() -> None:
    """Another training's lie in the same topic; a job that begins without takes those of any, and of before they were marked."""
    profile = compile_detector(CONFIG.spec).stage("customer").open(None).dump()
    plain = profile_key(CONFIG.hash6, "customer", "tk")
    ours, others = (seed_key(plain, run).encode() for run in ("abcdef01", "9" * 8))
    tied = Intake(CONFIG, Tokeniser(b"0" * 32), DeadLetterCipher(KEY), "abcdef01")
    for intake, taken in ((tied, [1, 0, 0]), (INTAKE, [1, 1, 1])):
        keys = (ours, others, plain.encode())
        assert [len(intake.take("seeds", key, profile, SOURCE, NOW)) for key in keys] == taken


def test_a_seed_that_no_stage_can_read_is_a_dead_letter() -> None:
    """Cut, rubbish, or of another entity's stage: it has this set's key, so training meant it for us, and somebody must know
    that a key begins cold."""
    engine = compile_detector(CONFIG.spec)
    key = profile_key(CONFIG.hash6, "customer", "a").encode()
    good = engine.stage("customer").open(None, 2).dump()
    other = engine.stage("counterparty").open(None, 2).dump()
    for value in (good[:-1], b"rubbish", other):
        dead = letter(INTAKE.take("seeds", key, value, SOURCE, NOW))
        assert (dead["reason"], dead["source"], dead["id"]) == ("wrong_type", SOURCE, None)
        assert DeadLetterCipher(KEY).decrypt(dead["payload"]) == value


@pytest.mark.parametrize("name", ["time", "known"])
def test_a_label_whose_time_no_state_can_hold_is_a_dead_letter(name: str) -> None:
    """A stage would fail on it, and the label would be gone."""
    for value in (2**63, -1):
        dead = letter(INTAKE.label(orjson.dumps({**LABEL_RECORD, name: value}), SOURCE, NOW))
        assert (dead["reason"], dead["source"]) == ("wrong_type", SOURCE)


def test_a_missing_entity_is_spread_by_id() -> None:
    """Events without an entity must not meet on one key, nor on the key of a token that looks like an id."""
    event: Any = {"id": "a", "entities": {"customer": "a", "counterparty": None}}
    element = EventElement(event, "h", SOURCE, NOW, None)
    assert entity_key(element, "counterparty") == "ia"
    assert entity_key(element, "customer") == "ta"
