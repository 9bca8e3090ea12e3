"""Records on the topics, as JSON objects. They are plain dictionaries on the hot path; these types document and check them.

Times are UTC milliseconds since 1970, amounts integer minor units. A vector's NaN travels as null. All bytes are made by
``orjson.dumps`` with sorted keys only where a hash is taken (``canonical``).

Keys are hashed to partitions by the Java clients' murmur2. A producer made with librdkafka must set
``partitioner=murmur2_random``, else an entity's records end up on two partitions.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

# Pydantic's own dependency: before Python 3.12 it checks no other TypedDict.
from typing_extensions import NotRequired, TypedDict  # noqa: UP035

Scalar = str | int | float | bool | None


class Event(TypedDict):
    """A canonical event: validated, tokenised, only what the detector declares."""

    id: str
    time: int
    amount: int
    currency: str | None
    entities: dict[str, str | None]
    fields: dict[str, Scalar]


class Source(TypedDict):
    topic: str
    partition: int
    offset: int


class DecisionReason(TypedDict):
    """A reason with its stable code: a feature's name, a rule (``rule:<name>``), a list or a limit."""

    code: str
    text: str
    contribution: NotRequired[float]


Saw = dict[str, tuple[int, int, str]]
"""Per entity (epoch, seq, digest in 16 hex): what its stage had applied before this event.

Equal digests mean the same seen, as often: of events by id, time and amount, of labels by id and when they were known.
"""


class Decision(TypedDict):
    """A decision, whole: replay of a decision needs nothing else. One line of ``decisions``, ``alerts``, ledger and lake."""

    id: str
    hash: str
    door: Literal["inline", "stream"]
    event: Event
    set: str
    vector: list[float | None] | None
    saw: Saw
    action: Literal["approve", "review", "decline"]
    score: int | None
    probability: float | None
    reasons: list[DecisionReason]
    release: str
    model_version: str | None
    model_digest: str | None
    arm: Literal["stable", "candidate"] | None
    bucket: int | None
    degraded: list[str]
    decided: int
    latency_ms: float | None
    shadow: NotRequired[dict[str, Any] | None]
    streamed: NotRequired[dict[str, Any] | None]
    parity: NotRequired[Literal["equal", "stale", "mismatch", "none"]]
    source: NotRequired[Source | None]
    appended: NotRequired[int | None]


class Accepted(TypedDict):
    """What the decision service appends: decided, tokenised."""

    event: Event
    hash: str
    decision: Decision


class FeatureRecord(TypedDict):
    """``reason``: why there is no vector. ``degraded``: what the vector was made without, for the decision to say."""

    event: Event
    hash: str
    set: str
    vector: list[float | None] | None
    reason: str | None
    degraded: NotRequired[list[str]]
    saw: Saw
    run: str
    repeat: bool
    source: Source
    appended: int
    decision: Decision | None


class LabelReport(TypedDict):
    """What an analyst or a chargeback feed sends; ``claimed`` defaults to the append time."""

    id: str
    label: Literal["fraud", "legitimate"]
    source: str
    claimed: NotRequired[int]


class Label(TypedDict):
    """A report joined with its transaction. ``known`` is the report's append time: features use it, not ``claimed``."""

    id: str
    time: int
    entities: dict[str, str | None]
    fraud: bool
    source: str
    claimed: int
    known: int


class DeadLetter(TypedDict):
    """``payload`` is a Fernet token (base64) over the record's bytes, under the detector's DEAD_LETTER_KEY."""

    id: str | None
    reason: str
    message: str
    stage: Literal["stream", "worker"]
    source: Source
    appended: int
    payload: str


def canonical(event: Event) -> bytes:
    """The bytes that a body hash is taken over."""
    return json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def body_hash(event: Event) -> str:
    """32 hex characters that tell two bodies of one id apart, whichever door they came through."""
    return hashlib.sha256(canonical(event)).hexdigest()[:32]
