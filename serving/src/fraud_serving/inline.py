"""Features of one event at the inline door: profiles from Redis, brought up to date with what they may lack."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fraud_contracts.errors import Degraded
from fraud_contracts.names import profile_key
from fraud_contracts.records import Event, Saw
from fraud_pipelines.features import FeatureSet, Stage
from fraud_serving import reading

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Inline:
    """A vector (None where the engine failed), what was seen before it, pending entries that may go, and what couldn't be read.

    ``applied`` are those that the profile has and those that are no event; ``unreadable`` names (what, entity).
    """

    vector: list[float] | None
    saw: Saw
    degraded: list[str] = field(default_factory=list)
    applied: dict[str, list[bytes]] = field(default_factory=dict)
    unreadable: list[tuple[str, str]] = field(default_factory=list)


def keys(features: FeatureSet, event: Event) -> list[tuple[str, str]]:
    """(entity, profile key) of the entities that the event has."""
    given = event["entities"]
    return [
        (stage.entity, profile_key(features.hash6, stage.entity, token))
        for stage in features.stages
        if (token := given.get(stage.entity)) is not None
    ]


def compute(
    features: FeatureSet,
    event: Event,
    profiles: Mapping[str, bytes | None],
    pending: Mapping[str, Sequence[bytes]],
    complete: bool,
    epoch: int,
) -> Inline:
    """``profiles`` and ``pending`` by entity. ``complete`` says that an absent profile is a new key, not a lost one.

    Pending events were decided a moment ago and may not have come back as a profile yet. Observing one that the profile
    has changes nothing, so all are observed, in the order in which they were decided. But for a late one of a busy key:
    where single events were thinned away nobody can tell whether the profile has it, so it is left to the stream, and the
    digest says so. Counted twice, it would be wrong and not said.
    """
    found = Inline(None, {})
    values: dict[str, Sequence[float] | None] = {}
    try:
        for entity, profile in profiles.items():
            stage = features.stage(entity)
            if profile is None and not complete:
                found.degraded = [Degraded.PROFILES_INCOMPLETE]
            try:
                found.applied[entity] = []
                values[entity] = _observe(found, stage, profile, pending.get(entity, ()), event, epoch)
            except Exception:  # whatever the bytes made of the engine
                if profile is None:
                    raise  # a fault of the engine, then
                # Of another set, cut or worse: as good as lost. The sink replaces it with the key's next event.
                _lose(found, "profile", entity)
                found.applied[entity] = []
                values[entity] = _observe(found, stage, None, pending.get(entity, ()), event, epoch)
        found.vector = features.vector(event, values)
    except Exception:  # a fault of the engine must not refuse a payment; the record says what it did without
        _log.exception("features failed", extra={"data": {"set": features.hash6}})
        found.vector = None
    return found


def _observe(
    found: Inline, stage: Stage, profile: bytes | None, pending: Sequence[bytes], event: Event, epoch: int
) -> list[float]:
    """The values of one entity; ``saw`` and ``applied`` are noted in ``found``."""
    live = stage.open(profile, epoch)
    applied = found.applied[stage.entity]
    for entry in pending:
        try:
            earlier = reading.event(entry)
        except ValueError:
            _lose(found, "pending", stage.entity)
            applied.append(entry)  # to be taken out
            continue
        if earlier["id"] == event["id"]:
            continue
        if live.unsure(earlier) or live.observe(earlier) is None:
            applied.append(entry)
    seen, seq, digest = live.saw
    found.saw[stage.entity] = (seen, seq, f"{digest:016x}")
    made = live.observe(event)
    return live.read(event) if made is None else made


def _lose(found: Inline, what: str, entity: str) -> None:
    found.unreadable.append((what, entity))
    found.degraded = [Degraded.PROFILES_INCOMPLETE]
