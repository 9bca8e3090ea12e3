"""Reports of what a transaction turned out to be: checked, then appended to ``label-reports``. The ledger sink joins them."""

from __future__ import annotations

from typing import Any, Final

import orjson

from fraud_contracts.detector import DetectorSpec
from fraud_contracts.records import LabelReport
from fraud_serving.decision.desk import RefusedError

LABELS: Final = ("fraud", "legitimate")
_FIELDS: Final = {"id", "label", "source", "claimed"}
_MAX_ID: Final = 200
_MAX_SKEW_MS: Final = 86_400_000


def parse(raw: bytes, spec: DetectorSpec, now: int) -> LabelReport:
    """A report as it may go to the topic; RefusedError names the field at fault."""
    try:
        given: Any = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise RefusedError(400, "invalid_json", "the report is no valid JSON") from error
    if not isinstance(given, dict):
        raise RefusedError(400, "not_an_object", "the report is no JSON object")
    unknown = sorted(given.keys() - _FIELDS)
    if unknown:
        raise RefusedError(
            422, "unknown_field", f"unknown field; give {', '.join(sorted(_FIELDS))}", unknown[0][:100]
        )
    event_id, source, claimed = given.get("id"), given.get("source"), given.get("claimed")
    if isinstance(event_id, int) and not isinstance(event_id, bool):
        event_id = str(event_id)
    if not isinstance(event_id, str) or not event_id or len(event_id) > _MAX_ID or not event_id.isprintable():
        raise RefusedError(422, "invalid_id", f"id must be 1 to {_MAX_ID} printable characters", "id")
    if given.get("label") not in LABELS:
        raise RefusedError(422, "invalid_label", "label must be fraud or legitimate", "label")
    sources = [known.name for known in spec.labels.sources]
    if source not in sources:
        raise RefusedError(422, "unknown_source", f"source must be one of {', '.join(sources)}", "source")
    report: LabelReport = {"id": event_id, "label": given["label"], "source": source}
    if claimed is not None:
        if not isinstance(claimed, int) or isinstance(claimed, bool) or not 0 < claimed <= now + _MAX_SKEW_MS:
            raise RefusedError(
                422, "invalid_time", "claimed must be UTC milliseconds, not in the future", "claimed"
            )
        report["claimed"] = claimed
    return report
