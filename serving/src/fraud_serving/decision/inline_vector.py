"""The vector of one event at the inline door: profiles from Redis, brought up to date with the events that they may lack."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fraud_contracts.errors import Degraded
from fraud_contracts.records import Event, Saw
from fraud_pipelines.features import FeatureSet, Stage
from fraud_serving import stored_records

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class InlineVector:
    """``vector`` has the feature set's columns; None where the engine failed. ``saw`` is what each entity's stage had seen before.

    ``degraded`` marks what the vector was made without. ``applied`` holds, by entity, the pending entries that may go: the
    profile has them, or they are no events. ``unreadable`` names (profile or pending, entity) of what couldn't be read.
    """

    vector: list[float | None] | None
    saw: Saw
    degraded: list[str] = field(default_factory=list)
    applied: dict[str, list[bytes]] = field(default_factory=dict)
    unreadable: list[tuple[str, str]] = field(default_factory=list)


def compute_inline(
    features: FeatureSet,
    event: Event,
    profiles: Mapping[str, bytes | None],
    pending: Mapping[str, Sequence[bytes]],
    complete: bool,
    epoch: int,
) -> InlineVector:
    """``profiles`` and ``pending`` by entity. ``complete`` says that an absent profile is a new key, not a lost one.

    Pending events were decided a moment ago and may not have come back as a profile yet. Observing one that the profile has
    changes nothing, so all are observed, in the order in which they were decided. The exception is a late event of a busy
    key: where single events were thinned away nobody can tell whether the profile has it, and counted twice it would be
    wrong unnoticed. So it is left to the stream, and the digest shows the difference.
    """
    computed = InlineVector(None, {})
    values: dict[str, Sequence[float] | None] = {}
    try:
        for entity, profile in profiles.items():
            stage = features.stage(entity)
            if profile is None and not complete:
                computed.degraded = [Degraded.PROFILES_INCOMPLETE]
            try:
                computed.applied[entity] = []
                values[entity] = _observe(computed, stage, profile, pending.get(entity, ()), event, epoch)
            except Exception:  # whatever the bytes did to the engine
                if profile is None:
                    raise  # a fault of the engine, then
                # Of another set, cut or worse: as good as lost. The sink replaces it with the key's next event.
                _note_unreadable(computed, "profile", entity)
                computed.applied[entity] = []
                values[entity] = _observe(computed, stage, None, pending.get(entity, ()), event, epoch)
        computed.vector = features.vector(event, values)  # type: ignore[assignment]  # list is invariant: of floats alone, it is only read
    except Exception:  # a fault of the engine must not refuse a payment; the record says what it did without
        _log.exception("features failed", extra={"data": {"set": features.hash6}})
        computed.vector = None
    return computed


def _observe(
    computed: InlineVector,
    stage: Stage,
    profile: bytes | None,
    pending: Sequence[bytes],
    event: Event,
    epoch: int,
) -> list[float]:
    """The values of one entity; ``saw`` and ``applied`` are noted in ``computed``."""
    state = stage.open(profile, epoch)
    applied = computed.applied[stage.entity]
    for entry in pending:
        try:
            earlier = stored_records.read_event(entry)
        except ValueError:
            _note_unreadable(computed, "pending", stage.entity)
            applied.append(entry)  # to be taken out
            continue
        if earlier["id"] == event["id"]:
            continue
        if state.unsure(earlier) or state.observe(earlier) is None:
            applied.append(entry)
    state_epoch, seq, digest = state.saw
    computed.saw[stage.entity] = (state_epoch, seq, f"{digest:016x}")
    values = state.observe(event)
    return state.read(event) if values is None else values


def _note_unreadable(computed: InlineVector, what: str, entity: str) -> None:
    computed.unreadable.append((what, entity))
    computed.degraded = [Degraded.PROFILES_INCOMPLETE]
