"""Reports of what a transaction turned out to be: checked, then appended to ``label-reports``. The ledger sink joins them."""

from __future__ import annotations

from fraud_contracts.detector import DetectorSpec
from fraud_contracts.label_report import ReportError, parse_report, source_kinds
from fraud_contracts.records import LabelReport
from fraud_serving.decision.errors import RequestRefusedError


def parse_label(raw: bytes, spec: DetectorSpec, now: int) -> LabelReport:
    """A report as it may go to the topic; EventError where it is no JSON object, RequestRefusedError names the field at fault."""
    try:
        return parse_report(raw, source_kinds(spec.labels), now).record()
    except ReportError as error:
        raise RequestRefusedError(422, error.code, error.message, error.field) from error
