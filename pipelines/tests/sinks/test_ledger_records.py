"""What the ledger makes of a record, and which of several reports stands. No servers."""

from __future__ import annotations

import random

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_contracts.detector_event import LabelKind
from fraud_sinks.ledger_records import UnfitError, decision, report
from fraud_sinks.ledger_reports import ReportEntry, standing_report
from fraud_sinks.records import Record

NOW = 1_800_000_000_000
SOURCES = {"analyst": LabelKind.ANALYST, "chargeback": LabelKind.PASSIVE}


def make_decision(**changes: object) -> Record:
    event = {
        "id": "tx-1",
        "time": 1,
        "amount": 5,
        "currency": "EUR",
        "entities": {"card": "t_1", "shop": None},
    }
    body = {
        "id": "tx-1",
        "hash": "h",
        "door": "inline",
        "action": "approve",
        "decided": 7,
        "event": event,
    } | changes
    return Record("decisions", 0, 3, 9, b"t_1", orjson.dumps(body))


def make_report(value: object, appended: int = 100) -> Record:
    return Record("label-reports", 1, 4, appended, None, orjson.dumps(value))


def test_a_row_is_keyed_by_the_first_entity() -> None:
    """The entity column holds the token that the split is made on."""
    assert decision(make_decision(), "card").entry.entity == "t_1"


def test_what_the_audit_adds_does_not_change_a_decisions_content() -> None:
    """A repeat that carries another streamed vector or source is the same decision."""
    audited = make_decision(
        parity="stale", streamed={"vector": [1.0]}, source={"offset": 3}, shadow={"score": 3}
    )
    assert decision(audited, "card").entry.content == decision(make_decision(), "card").entry.content


@pytest.mark.parametrize("change", [{"hash": "other"}, {"action": "decline"}, {"decided": 8}])
def test_another_decision_of_one_id_has_another_content(change: dict[str, object]) -> None:
    """Body, action and time of decision belong to the content."""
    assert (
        decision(make_decision(**change), "card").entry.content
        != decision(make_decision(), "card").entry.content
    )


def test_a_nul_character_keeps_the_original_bytes() -> None:
    """PostgreSQL's jsonb can't hold U+0000: the row shows a replacement and the bytes stay beside it."""
    record = make_decision(release="a\0b")
    row = decision(record, "card")
    assert row.entry.raw == record.value
    assert orjson.loads(row.entry.record)["release"] == "a\ufffdb"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"[]",
        b"{}",
        b'{"id": "x", "event": {}}',
        b'{"id": "", "event": {"entities": {}}, "action": "approve"}',
    ],
)
def test_what_is_no_decision_is_unfit(value: bytes) -> None:
    """Such a record is told apart before PostgreSQL sees it."""
    with pytest.raises(UnfitError):
        decision(Record("decisions", 0, 0, 0, None, value), "card")


def test_a_report_is_known_from_its_append_time() -> None:
    """The claimed date is kept beside it and defaults to it."""
    got = report(make_report({"id": "tx-1", "label": "fraud", "source": "analyst"}, appended=123), SOURCES)
    assert (got.known, got.claimed, got.fraud) == (123, 123, True)
    claimed = {"id": 17, "label": "legitimate", "source": "chargeback", "claimed": 1_700_000_000_000}
    got = report(make_report(claimed, appended=NOW), SOURCES)
    assert (got.id, got.known, got.claimed, got.fraud) == ("17", NOW, 1_700_000_000_000, False)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {"id": "x", "label": "maybe", "source": "analyst"},
        {"id": "x", "label": ["fraud"], "source": "analyst"},
        {"id": "x", "label": "fraud", "source": "neighbour"},
        {"id": "x" * 201, "label": "fraud", "source": "analyst"},
        {"id": "a\0b", "label": "fraud", "source": "analyst"},
        {"id": True, "label": "fraud", "source": "analyst"},
        {"id": "x", "label": "fraud", "source": "analyst", "claimed": "yesterday"},
        {"id": "x", "label": "fraud", "source": "analyst", "claimed": 2**60},
        {"id": "x", "label": "fraud", "source": "analyst", "claimed": 5},
        {"id": "x", "label": "fraud", "source": "analyst", "note": "x"},
        {"id": " x", "label": "fraud", "source": "analyst"},
    ],
)
def test_a_report_that_says_nothing_usable_is_unfit(value: object) -> None:
    """Reports come from outside; each field is judged."""
    with pytest.raises(UnfitError):
        report(make_report(value), SOURCES)


def reports(verdicts: list[bool]) -> list[ReportEntry]:
    return [
        ReportEntry("x", fraud, "analyst", 0, 10 * at, "t", 0, 0, at) for at, fraud in enumerate(verdicts)
    ]


def test_the_newest_report_stands_from_when_its_verdict_was_first_given() -> None:
    """A confirmation doesn't move the time at which a label became known; a correction does."""
    assert standing_report(reports([True, True])).known == 0
    assert standing_report(reports([True, False, True, True])).known == 20
    assert standing_report(reports([True, True, False])).fraud is False


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.randoms())
def test_the_order_of_arrival_does_not_matter(verdicts: list[bool], chance: random.Random) -> None:
    """Two partitions may be read in any order: the label depends on the log's times alone."""
    one = reports(verdicts)
    other = list(one)
    chance.shuffle(other)
    assert standing_report(one) == standing_report(other)
    assert standing_report(one).fraud is verdicts[-1]
