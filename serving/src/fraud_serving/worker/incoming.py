"""One feature record on its way through a batch."""

from __future__ import annotations

from dataclasses import dataclass, field

from fraud_contracts.records import Decision, FeatureRecord
from fraud_serving import reading
from fraud_serving.claims import Claim
from fraud_serving.worker.recent import Known


@dataclass(slots=True)
class Incoming:
    """``decision`` is filled in while the batch is judged; ``claim`` is what Redis had under the id.

    ``instead_of`` are the bytes that a claim of ours would replace: empty where there are none, None where nobody knows.
    """

    partition: int
    key: bytes
    record: FeatureRecord
    decision: Decision | None = None
    repeat: bool = False
    conflict: bool = False
    degraded: list[str] = field(default_factory=list)
    claim: Claim | None = None
    instead_of: bytes | None = None

    @property
    def claimed(self) -> Known | None:
        """Which decision lies in the id's claim."""
        return None if self.claim is None else Known(self.claim.hash, self.claim.decision["decided"])

    @property
    def published(self) -> Known | None:
        """What was published under the id, as far as its claim says."""
        return self.claimed if self.claim is not None and self.claim.published else None

    @property
    def id(self) -> str:
        return self.record["event"]["id"]


def read(partition: int, key: bytes, value: bytes) -> Incoming:
    """A feature record as read; ValueError where it isn't one."""
    record = reading.features(value)
    return Incoming(partition, key, record, degraded=list(record.get("degraded", ())))
