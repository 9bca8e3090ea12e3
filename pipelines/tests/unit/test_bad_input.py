"""The table of bad input, as the schema that both doors share judges it, and as people read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fraud_contracts.detector import parse_spec
from fraud_contracts.errors import EventError
from fraud_pipelines.events import EventSchema, Tokeniser
from fraud_testing.bad_input import CASES, DECIDED, LABELS, Case
from fraud_testing.detectors import SPEC

NOW = 1_795_000_000_000
SPECIFIED = parse_spec(SPEC)
SCHEMA = EventSchema(SPECIFIED.event, SPECIFIED.entities)
TOKENS = Tokeniser(bytes(range(32)))
PAGE = Path(__file__).parents[3] / "docs" / "bad-input.md"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_has_its_outcome(case: Case) -> None:
    """An event, or the stated reason with the field at fault; the message never holds the value."""
    raw = case.body("odd-1", NOW)
    if case.outcome == DECIDED:
        SCHEMA.parse(raw, TOKENS, NOW)
        return
    with pytest.raises(EventError) as caught:
        SCHEMA.parse(raw, TOKENS, NOW)
    assert (caught.value.reason, caught.value.field) == (case.outcome, case.field)


def test_look_alikes_are_other_ids() -> None:
    """Letters that only look alike are not the same id: equality is of characters, not of shapes."""
    same = [case for case in CASES if "look-alike" in case.name]
    ids = {SCHEMA.parse(case.body("a", NOW), TOKENS, NOW)[0]["id"] for case in same}
    assert len(ids) == len(same)
    assert not ids & {"a-a", "12-a"}


def test_the_page_says_the_same() -> None:
    """Every case is a row of docs/bad-input.md with its outcome, and the page has no other rows."""
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    listed = [tuple(cell.strip().strip("`") for cell in row.strip("|").split("|")[:2]) for row in rows]
    expected = [(case.name, case.outcome) for case in CASES]
    expected += [(name, code or "taken") for name, _, code in LABELS]
    assert sorted(row for row in listed if row[0] not in ("what", "---")) == sorted(expected)
