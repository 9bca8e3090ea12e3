"""The parity audit: is the inline vector the one that the stream computes of the same events?

Equal digests say that both sides had seen the same events; then every bit must agree, and a difference is a fault. Other
digests say that one side had seen more: staleness, which is counted on its own. The metric tells how many; the log tells
which, by samples.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from fraud_contracts.records import Decision, FeatureRecord, Saw

Result = Literal["equal", "stale", "mismatch", "none"]

# Seconds between two lines about one result. A mismatch is a fault, staleness the price of two doors.
EVERY: Final = {"mismatch": 1.0, "stale": 60.0}
SHOWN: Final = 5
_log = logging.getLogger(__name__)


def same_vector(one: Sequence[float | None], other: Sequence[float | None]) -> bool:
    return len(one) == len(other) and all(a == b for a, b in zip(one, other, strict=True))


def same_digests(one: Saw, other: Saw) -> bool:
    """Whether both sides had seen the same events of each entity."""
    return _digests(one) == _digests(other)


def _digests(saw: Saw) -> dict[str, str]:
    return {entity: digest for entity, (_, _, digest) in saw.items()}


def compare_vectors(decision: Decision, record: FeatureRecord) -> Result:
    inline, streamed = decision["vector"], record["vector"]
    if inline is None or streamed is None or decision["set"] != record["set"]:
        return "none"
    if not same_digests(decision["saw"], record["saw"]):
        return "stale"
    return "equal" if same_vector(inline, streamed) else "mismatch"


def with_audit(decision: Decision, record: FeatureRecord) -> Decision:
    """The decision with its place in the stream, the result, and the streamed vector where it differs."""
    result = compare_vectors(decision, record)
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


class ParitySamples:
    """Ids of decisions whose vectors differ, for the log: the first of each result, then one in a while with how many."""

    def __init__(self, names: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._names, self._clock = names, clock
        self._next = dict.fromkeys(EVERY, 0.0)
        self._since = dict.fromkeys(EVERY, 0)

    def note(self, decision: Decision) -> None:
        result, other = decision.get("parity"), decision.get("streamed")
        if result not in EVERY or other is None or decision["vector"] is None:
            return
        self._since[result] += 1
        now = self._clock()
        if now < self._next[result]:
            return
        inline, streamed = decision["vector"], other["vector"]
        sample = {
            "id": decision["id"],
            "result": result,
            "count": self._since[result],
            "stale_entities": [
                entity
                for entity, digest in _digests(other["saw"]).items()
                if _digests(decision["saw"]).get(entity) != digest
            ],
            "features": [name for name, a, b in zip(self._names, inline, streamed, strict=False) if a != b][
                :SHOWN
            ],
        }
        level = logging.ERROR if result == "mismatch" else logging.INFO
        _log.log(level, "inline vector is not the streamed one", extra={"data": sample})
        self._next[result], self._since[result] = now + EVERY[result], 0
