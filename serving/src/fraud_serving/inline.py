"""Features of one event at the inline door: profiles from Redis, brought up to date with what they may lack."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from fraud_contracts.errors import Degraded
from fraud_contracts.names import profile_key
from fraud_contracts.records import Event, Saw
from fraud_pipelines.features import FeatureSet, ProfileError

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Inline:
    """A vector (None where the engine failed), what was seen before it, and pending entries the profile already has."""

    vector: list[float] | None
    saw: Saw
    degraded: list[str] = field(default_factory=list)
    applied: dict[str, list[bytes]] = field(default_factory=dict)


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
                live = stage.open(profile, epoch)
            except ProfileError as error:
                # Of another set or cut: as good as lost. It is replaced by the sink with the key's next event.
                _log.warning("profile refused", extra={"data": {"entity": entity, "error": str(error)}})
                found.degraded = [Degraded.PROFILES_INCOMPLETE]
                live = stage.open(None, epoch)
            for entry in pending.get(entity, ()):
                earlier: Any = orjson.loads(entry)
                if earlier["id"] == event["id"]:
                    continue
                if live.unsure(earlier) or live.observe(earlier) is None:
                    found.applied.setdefault(entity, []).append(entry)
            seen, seq, digest = live.saw
            found.saw[entity] = (seen, seq, f"{digest:016x}")
            made = live.observe(event)
            values[entity] = live.read(event) if made is None else made
        found.vector = features.vector(event, values)
    except Exception:  # a fault of the engine must not refuse a payment; the record says what it did without
        _log.exception("features failed", extra={"data": {"set": features.hash6}})
        found.vector = None
    return found
