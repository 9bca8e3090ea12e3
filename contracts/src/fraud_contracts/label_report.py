"""A report of what a transaction turned out to be: the one parser and the one set of bounds, for HTTP and the topic alike.

A report is a JSON object with ``id``, ``label``, ``source`` and, where the sender knows it, ``claimed``: when it was reported
(UTC ms). The detector lists its sources; each is of a kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fraud_contracts.detector_event import LabelKind, Labels
from fraud_contracts.errors import EventError, FraudError, Reason
from fraud_contracts.event_values import MIN_TIME, identifier
from fraud_contracts.raw_json import decode
from fraud_contracts.records import LabelReport

LABELS: Final[Mapping[str, bool]] = {"fraud": True, "legitimate": False}
"""What a label says, by its name on the wire: whether it was fraud."""
FIELDS: Final = ("claimed", "id", "label", "source")
MAX_SKEW_MS: Final = 86_400_000


class ReportCode(StrEnum):
    """Why a report is refused, beside ``Reason``. The values are public: API answers carry them."""

    UNKNOWN_FIELD = "unknown_field"
    INVALID_LABEL = "invalid_label"
    UNKNOWN_SOURCE = "unknown_source"


class ReportError(FraudError):
    """A JSON object that is no report. ``message`` never holds a value that came with it; ``field`` is the one at fault."""

    def __init__(self, code: ReportCode | Reason, message: str, field: str) -> None:
        super().__init__(message)
        self.code, self.message, self.field = code, message, field


@dataclass(frozen=True, slots=True)
class ParsedReport:
    id: str
    fraud: bool
    source: str
    kind: LabelKind
    claimed: int | None

    def record(self) -> LabelReport:
        """The form that goes to the topic."""
        report: LabelReport = {
            "id": self.id,
            "label": "fraud" if self.fraud else "legitimate",
            "source": self.source,
        }
        if self.claimed is not None:
            report["claimed"] = self.claimed
        return report


def source_kinds(labels: Labels) -> dict[str, LabelKind]:
    """The detector's sources and the kind of each."""
    return {source.name: source.kind_or_default for source in labels.sources}


def parse_report(raw: bytes, kinds: Mapping[str, LabelKind], now: int) -> ParsedReport:
    """A report in its bytes; ``now`` (UTC ms) is when it came: on the topic its append time.

    EventError where the bytes are no JSON object that may be read at all, ReportError names the field at fault.
    """
    document, _ = decode(raw)
    unknown = sorted(document.keys() - set(FIELDS))
    if unknown:
        raise ReportError(
            ReportCode.UNKNOWN_FIELD, f"unknown field; give {', '.join(FIELDS)}", unknown[0][:100]
        )
    try:
        event_id = identifier(document.get("id"), "id")
    except EventError as error:
        raise ReportError(error.reason, error.message, "id") from error
    label, source, claimed = document.get("label"), document.get("source"), document.get("claimed")
    if not isinstance(label, str) or label not in LABELS:
        raise ReportError(ReportCode.INVALID_LABEL, f"label must be {' or '.join(LABELS)}", "label")
    if not isinstance(source, str) or source not in kinds:
        raise ReportError(ReportCode.UNKNOWN_SOURCE, f"source must be one of {', '.join(kinds)}", "source")
    if claimed is not None and (
        not isinstance(claimed, int)
        or isinstance(claimed, bool)
        or not MIN_TIME <= claimed <= now + MAX_SKEW_MS
    ):
        raise ReportError(
            Reason.INVALID_TIME, "claimed must be UTC milliseconds since 2000, at most a day ahead", "claimed"
        )
    return ParsedReport(event_id, LABELS[label], source, kinds[source], claimed)
