"""The one parser of label reports, for HTTP and the topic."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from fraud_contracts.detector_event import LabelKind, Labels, LabelSource
from fraud_contracts.errors import EventError
from fraud_contracts.label_report import MAX_SKEW_MS, ParsedReport, ReportError, parse_report, source_kinds
from fraud_testing.bad_input import LABELS

NOW = 1_780_000_000_000
KINDS = source_kinds(Labels())
SOUND = {"id": "label-1", "label": "fraud", "source": "analyst"}


@pytest.mark.parametrize(
    ("change", "code"), [(change, code) for _, change, code in LABELS], ids=[n for n, _, _ in LABELS]
)
def test_reports_are_taken_or_refused_with_their_code(
    change: dict[str, Any] | bytes, code: str | None
) -> None:
    """Each case has the stated code, and no message holds what was sent."""
    raw = change if isinstance(change, bytes) else orjson.dumps({**SOUND, **change})
    try:
        parse_report(raw, KINDS, NOW)
    except ReportError as error:
        assert error.code == code
    except EventError as error:
        assert error.reason == code
    else:
        assert code is None


def test_a_parsed_report_is_sent_as_it_came() -> None:
    """The record for the topic is parsed to the same report again; an integer id has become text."""
    parsed = parse_report(orjson.dumps({**SOUND, "id": 17, "claimed": NOW}), KINDS, NOW)
    assert parsed == ParsedReport("17", True, "analyst", LabelKind.ANALYST, NOW)
    assert parse_report(orjson.dumps(parsed.record()), KINDS, NOW) == parsed
    assert "claimed" not in parse_report(orjson.dumps(SOUND), KINDS, NOW).record()


def test_a_report_may_be_claimed_for_a_day_ahead() -> None:
    """Clocks differ: a claimed time is taken up to a day after the report came, and no later one."""
    parse_report(orjson.dumps({**SOUND, "claimed": NOW + MAX_SKEW_MS}), KINDS, NOW)
    with pytest.raises(ReportError, match="at most a day ahead"):
        parse_report(orjson.dumps({**SOUND, "claimed": NOW + MAX_SKEW_MS + 1}), KINDS, NOW)


def test_a_source_has_the_kind_that_is_stated_or_its_name_gives() -> None:
    """A source named analyst is Analyst and any other Passive, unless the detector says otherwise."""
    sources = [
        LabelSource(name="analyst"),
        LabelSource(name="bank"),
        LabelSource(name="desk", kind=LabelKind.ANALYST),
    ]
    assert source_kinds(Labels(sources=sources)) == {
        "analyst": LabelKind.ANALYST,
        "bank": LabelKind.PASSIVE,
        "desk": LabelKind.ANALYST,
    }
