"""The parity audit: was the inline vector what the stream makes of the same events?

Equal digests say that both sides had seen the same events; then every bit must agree, and a difference is a fault. Other
digests say that one side had seen more: staleness, which is counted on its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from fraud_contracts.records import Decision, FeatureRecord, Saw

Result = Literal["equal", "stale", "mismatch", "none"]


def same_vector(one: Sequence[float | None], other: Sequence[float | None]) -> bool:
    return len(one) == len(other) and all(a == b for a, b in zip(one, other, strict=True))


def same_seen(one: Saw, other: Saw) -> bool:
    return {entity: seen[2] for entity, seen in one.items()} == {
        entity: seen[2] for entity, seen in other.items()
    }


def compare(decision: Decision, record: FeatureRecord) -> Result:
    inline, streamed = decision["vector"], record["vector"]
    if inline is None or streamed is None or decision["set"] != record["set"]:
        return "none"
    if not same_seen(decision["saw"], record["saw"]):
        return "stale"
    return "equal" if same_vector(inline, streamed) else "mismatch"


def audited(decision: Decision, record: FeatureRecord) -> Decision:
    """The decision with its place in the stream, the verdict, and the streamed vector where it isn't the inline one."""
    result = compare(decision, record)
    streamed: dict[str, Any] | None = None
    if record["vector"] is not None and result != "equal":
        streamed = {"set": record["set"], "vector": record["vector"], "saw": record["saw"]}
    return {
        **decision,
        "streamed": streamed,
        "parity": result,
        "source": record["source"],
        "appended": record["appended"],
    }
