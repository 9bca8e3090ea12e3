"""One entity's stage as plain calls."""

from __future__ import annotations

import struct
from typing import Any

import orjson
import pytest

from fraud_contracts import profile_header
from fraud_flink.elements import EventElement
from fraud_flink.intake import Intake
from fraud_flink.stages import EntityStage
from fraud_pipelines.dead_letter_cipher import DeadLetterCipher
from fraud_pipelines.events import Tokeniser
from fraud_pipelines.features import compile_detector
from fraud_testing import detectors

NOW = 1_795_000_000_000
CONFIG = detectors.detector("unused:9092")
INTAKE = Intake(
    CONFIG, Tokeniser(b"0" * 32), DeadLetterCipher("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
)
CUSTOMER, COUNTERPARTY = EntityStage(CONFIG, 0, "run"), EntityStage(CONFIG, 1, "run")


def one_event(event_id: str = "a", time: int = NOW, merchant: str | None = "m") -> EventElement:
    raw = {"id": event_id, "time": time, "amount": 1, "card": "c", "merchant": merchant}
    element = INTAKE.transaction(orjson.dumps(raw), {"topic": "t", "partition": 0, "offset": 1}, NOW)
    assert isinstance(element, EventElement)
    return element


def test_two_stages_give_the_engines_vector() -> None:
    """Values through the stages and their record equal one call of the whole engine."""
    engine = compile_detector(CONFIG.spec)
    element = one_event()
    assert CUSTOMER.event(None, element) is not None
    assert COUNTERPARTY.event(None, element) is not None
    vector, _, _ = engine.observe({}, element.event, CONFIG.epoch)
    record = orjson.loads(COUNTERPARTY.feature_record(element))
    assert record["vector"] == [None if value != value else value for value in vector]
    assert record["saw"] == {"customer": [1, 0, "0" * 16], "counterparty": [1, 0, "0" * 16]}
    assert (record["set"], record["run"], record["repeat"]) == (CONFIG.feature_set, "run", False)


def test_a_repeat_changes_no_state() -> None:
    """The first stage marks it; neither stage writes, and the record still has a vector."""
    state = CUSTOMER.event(None, one_event())
    shop = COUNTERPARTY.event(None, one_event())
    again = one_event()
    assert CUSTOMER.event(state, again) is None
    assert again.repeat
    assert COUNTERPARTY.event(shop, again) is None
    assert COUNTERPARTY.event(None, again) is None
    assert orjson.loads(COUNTERPARTY.feature_record(again))["vector"] is not None


def test_a_seed_needs_a_key_without_state() -> None:
    """One with a state takes none, of whatever epoch; a key without takes it into the job's own epoch."""
    state = CUSTOMER.event(None, one_event())
    assert state is not None
    stage = compile_detector(CONFIG.spec).stages[0]
    later = stage.seed(state, CONFIG.epoch + 1)
    assert CUSTOMER.seed(None, state) == CUSTOMER.seed(None, later) == state
    assert CUSTOMER.seed(state, state) is None
    assert CUSTOMER.seed(state, later) is None
    assert (
        EntityStage(CONFIG.model_copy(update={"epoch": CONFIG.epoch + 1}), 0, "run").seed(None, state)
        == later
    )


@pytest.mark.parametrize("bad", [b"", b"FP", b"x" * 200])
def test_a_bad_seed_is_refused(bad: bytes) -> None:
    """Bytes that are no profile of this stage never become state."""
    assert CUSTOMER.seed(None, bad) is None


def test_a_label_counts_once() -> None:
    """The same label again changes nothing."""
    label: Any = {"id": "a", "time": NOW, "fraud": True, "known": NOW + 1}
    state = COUNTERPARTY.label(None, label)
    assert state is not None
    assert COUNTERPARTY.label(state, label) is None


def later_version(state: bytes) -> bytes:
    changed = bytearray(state)
    struct.pack_into("<H", changed, 2, 99)
    return bytes(changed)


def test_a_state_that_cannot_be_read_is_missing_and_begins_anew() -> None:
    """The event is valued as its key's first and says so; the state that it leaves can be read, and where the old header
    could, it goes on from its seq: else no store would take the new profile for the newer one."""
    alone = one_event("z", NOW + 9)
    CUSTOMER.event(None, alone)
    full = CUSTOMER.event(CUSTOMER.event(None, one_event("a")), one_event("b", NOW + 1))
    assert full is not None
    for broken, seq in ((b"rubbish", 0), (full[:-1], 2), (full + b"\0", 2)):
        element = one_event("z", NOW + 9)
        new = CUSTOMER.event(broken, element)
        assert new is not None
        assert profile_header.read(new).seq == seq + 1
        assert element.values == alone.values
        assert element.saw == {"customer": (1, seq, "0" * 16)}
        COUNTERPARTY.event(None, element)
        record = orjson.loads(COUNTERPARTY.feature_record(element))
        assert (record["reason"], record["degraded"]) == (None, ["profiles_incomplete"])
        assert record["vector"] is not None
        after = one_event("y", NOW + 10)
        assert CUSTOMER.event(new, after) is not None
        assert after.degraded == []


def test_a_state_of_a_later_version_is_left_alone() -> None:
    """A stream that was put back must not wipe out what a newer one knows: its events are valued alone and marked, each."""
    state = CUSTOMER.event(None, one_event("a"))
    assert state is not None
    element = one_event("b", NOW + 1)
    assert CUSTOMER.event(later_version(state), element) is None
    assert element.degraded == ["profiles_incomplete"]
    assert CUSTOMER.seed(later_version(state), state) is None
    label: Any = {"id": "a", "time": NOW, "fraud": True, "known": NOW + 1}
    assert COUNTERPARTY.label(later_version(COUNTERPARTY.event(None, one_event("a")) or b""), label) is None


def test_labels_and_seeds_find_no_state_where_it_cannot_be_read() -> None:
    """A label is kept for the events to come, and a seed of the same epoch makes the key whole again."""
    label: Any = {"id": "a", "time": NOW, "fraud": True, "known": NOW + 1}
    state = COUNTERPARTY.event(None, one_event("a"))
    assert state is not None
    new = COUNTERPARTY.label(state[:-1], label)
    assert new is not None
    assert COUNTERPARTY.label(new, label) is None
    assert COUNTERPARTY.seed(state[:-1], state) == state


def test_a_fault_of_an_event_costs_its_vector_only() -> None:
    """What no stage can take passes, and says so; later stages leave it alone, and the state stays."""
    state = CUSTOMER.event(None, one_event("a"))
    element = one_event("b")
    element.event["time"] = 2**63
    assert CUSTOMER.event(state, element) is None
    assert COUNTERPARTY.token(element) is None
    record = orjson.loads(COUNTERPARTY.feature_record(element))
    assert (record["vector"], record["reason"]) == (None, "features_failed")
    assert record["event"]["id"] == "b"


def test_an_absent_entity_gives_nulls() -> None:
    """Without a merchant its stage has nothing to do, and its values are null."""
    element = one_event(merchant=None)
    CUSTOMER.event(None, element)
    assert COUNTERPARTY.token(element) is None
    names = compile_detector(CONFIG.spec).names
    record = orjson.loads(COUNTERPARTY.feature_record(element))
    assert record["reason"] is None
    assert record["vector"][names.index("counterparty_count_1d")] is None
    assert record["vector"][names.index("customer_count_1d")] == 1.0


def test_a_new_state_has_the_detectors_epoch() -> None:
    """After a loss of state the operator raises the epoch, and profiles made anew outrank the old ones."""
    raised = EntityStage(CONFIG.model_copy(update={"epoch": 9}), 0, "run")
    state = raised.event(None, one_event())
    assert state is not None
    assert profile_header.read(state).epoch == 9


def test_another_engine_is_refused() -> None:
    """A document of another feature set than this code computes stops the job at its start."""
    with pytest.raises(ValueError, match="different versions"):
        EntityStage(CONFIG.model_copy(update={"feature_set": "0" * 64}), 0, "run")


def test_the_key_of_a_record_never_fails() -> None:
    """First entity's token; else the event's id; else the decision's."""
    element = one_event()
    assert CUSTOMER.feature_key(element) == element.event["entities"]["customer"].encode()

    def key(event: Any, decision: Any) -> bytes:
        return CUSTOMER.feature_key(
            EventElement(event, "h", {"topic": "t", "partition": 0, "offset": 1}, NOW, decision)
        )

    assert key({"id": "x", "entities": None}, None) == b"x"
    assert key(None, {"id": "y"}) == b"y"
    assert key(None, None) == b""
