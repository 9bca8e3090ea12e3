"""What goes through a batch: feature records in, what is to be published out."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

from fraud_contracts.errors import Degraded
from fraud_contracts.records import Decision, FeatureRecord
from fraud_serving import stored_records
from fraud_serving.claims import Claim
from fraud_serving.ruling import Case
from fraud_serving.worker.parity import with_audit
from fraud_serving.worker.published_ids import DecisionStamp, Publication

# No decision was made then.
_UNKNOWN: Final = -1


@dataclass(slots=True)
class Incoming:
    """One feature record and what becomes of it.

    ``decision`` is filled in while the batch is processed; ``claim`` is what Redis had under the id. ``instead_of`` are the
    bytes that a claim of ours would replace: empty where there are none, None where nobody knows.
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
    def claimed(self) -> DecisionStamp | None:
        """Which decision lies in the id's claim; None where that is shrunk."""
        claim = self.claim
        if claim is None or claim.decision is None:
            return None
        return DecisionStamp(claim.hash, claim.decision["decided"])

    @property
    def published(self) -> DecisionStamp | None:
        """What was published under the id, as far as its claim says.

        A shrunk one doesn't say when it was decided. The record's own decision is the one of its body then, unless it says that it was
        made without a claim.
        """
        claim, own = self.claim, self.decision
        if claim is None or not claim.published:
            return None
        if claim.decision is not None:
            return self.claimed
        if own is None or not claim.is_of(own["hash"]):
            return DecisionStamp(claim.hash, _UNKNOWN)
        return DecisionStamp(
            own["hash"], _UNKNOWN if Degraded.IDEMPOTENCY in own["degraded"] else own["decided"]
        )

    @property
    def id(self) -> str:
        return self.record["event"]["id"]

    def case(self) -> Case:
        record = self.record
        return Case(
            record["event"],
            record["hash"],
            record["set"],
            record["vector"],
            record["saw"],
            "stream",
            self.degraded,
            record["source"],
            record["appended"],
        )


@dataclass(slots=True)
class Outgoing:
    """A record to publish on the topic of ``noun``; without a partition the key chooses it.

    ``of``: the partition of ``features`` that it comes of, where that isn't its own. ``offset`` is where the broker says that it put the
    record, negative until then; what is sent again gets another one.
    """

    noun: str
    partition: int | None
    key: bytes
    value: bytes
    of: int | None = None
    offset: int = field(default=-1, compare=False)

    @property
    def source(self) -> int | None:
        return self.partition if self.of is None else self.of


@dataclass(slots=True)
class BatchResult:
    """What to publish, and what to remember and count once it is committed.

    ``published`` and ``dropped`` are by partition of the features topic: the decisions in ``outgoing``, and other decisions of
    published ids; ``ends`` is where the first end in ``decisions``, once they are committed. ``records`` has by id the action of each
    published decision, and its record among ``outgoing``. ``unclaimed`` are published ones that aren't known to be in their claims.
    ``repeats`` holds the door of each record that was met before; ``superseded`` counts inline answers that another decision of their
    id was published before.
    """

    outgoing: list[Outgoing] = field(default_factory=list)
    published: dict[int, dict[str, DecisionStamp]] = field(default_factory=lambda: defaultdict(dict))
    dropped: dict[int, list[tuple[str, DecisionStamp]]] = field(default_factory=lambda: defaultdict(list))
    records: dict[str, tuple[str, Outgoing]] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)
    unclaimed: list[Decision] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    repeats: list[str] = field(default_factory=list)
    conflicts: int = 0
    superseded: int = 0

    def publications(self, partition: int) -> list[Publication]:
        """Those of a partition, and what was dropped for others: their claims are to say that they are published."""
        dropped = [Publication(event_id, stamp) for event_id, stamp in self.dropped.get(partition, ())]
        published = [
            Publication(event_id, stamp, action, record.offset)
            for event_id, stamp in self.published.get(partition, {}).items()
            for action, record in [self.records[event_id]]
        ]
        return published + dropped


def read_incoming(partition: int, key: bytes, value: bytes) -> Incoming:
    """A feature record as read; ValueError where it isn't one."""
    record = stored_records.read_feature_record(value)
    return Incoming(partition, key, record, degraded=list(record.get("degraded", ())))


def take_claim(incoming: Incoming) -> None:
    """An id that was claimed before: its decision stands, whichever door made it, and is published once.

    What the inline door answered stands as well, unless another decision of the id is published already.
    """
    claim = incoming.claim
    if claim is None or incoming.decision is not None:
        return
    if not claim.is_of(incoming.record["hash"]):
        incoming.conflict = True
    elif claim.published or claim.decision is None:
        incoming.repeat = True
    elif claim.decision["door"] == "inline":
        incoming.decision = with_audit(claim.decision, incoming.record)
    else:
        incoming.decision = claim.decision
