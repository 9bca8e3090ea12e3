"""Reports of what a transaction turned out to be: checked, then appended to ``label-reports``. The ledger sink joins them."""

from __future__ import annotations

from typing import Final

from fraud_contracts.detector import DetectorSpec
from fraud_contracts.errors import EventError
from fraud_contracts.raw_json import decode
from fraud_contracts.records import LabelReport
from fraud_pipelines.events import MIN_TIME, identifier
from fraud_serving.decision.desk import RefusedError

LABELS: Final = ("fraud", "legitimate")
_FIELDS: Final = {"id", "label", "source", "claimed"}
_MAX_SKEW_MS: Final = 86_400_000


def parse(raw: bytes, spec: DetectorSpec, now: int) -> LabelReport:
    """A report as it may go to the topic; EventError where it is no JSON object, RefusedError names the field at fault."""
    given, _ = decode(raw)
    unknown = sorted(given.keys() - _FIELDS)
    if unknown:
        raise RefusedError(
            422, "unknown_field", f"unknown field; give {', '.join(sorted(_FIELDS))}", unknown[0][:100]
        )
    event_id, source, claimed = given.get("id"), given.get("source"), given.get("claimed")
    try:
        event_id = identifier(event_id, "id")
    except EventError as error:
        raise RefusedError(422, error.reason, error.message, "id") from error
    if given.get("label") not in LABELS:
        raise RefusedError(422, "invalid_label", "label must be fraud or legitimate", "label")
    sources = [known.name for known in spec.labels.sources]
    if source not in sources:
        raise RefusedError(422, "unknown_source", f"source must be one of {', '.join(sources)}", "source")
    report: LabelReport = {"id": event_id, "label": given["label"], "source": source}
    if claimed is not None:
        if (
            not isinstance(claimed, int)
            or isinstance(claimed, bool)
            or not MIN_TIME <= claimed <= now + _MAX_SKEW_MS
        ):
            raise RefusedError(
                422,
                "invalid_time",
                "claimed must be UTC milliseconds since 2000, not in the future",
                "claimed",
            )
        report["claimed"] = claimed
    return report
