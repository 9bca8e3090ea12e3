"""How long the state of a key that nothing comes to any more is kept: by the stream, in Redis, in the topic between them.

No value of a feature set looks further back than its *reach*. A key whose newest event lies further back than that before the next one
gives the vectors of a key that had none, so its state may be forgotten. What counts for that is when the state was last changed,
not when its events were: a stream that stands still reads on where it was, and what it reads then is older than it seems. The
inputs keep their records for a week at most, hence the week more.

A profile in Redis is forgotten first. One that is still there while its state is gone would outrank the key's new one, whose
``seq`` begins anew. The topic keeps it longest, as Redis is made again from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fraud_contracts import durations
from fraud_contracts.detector_event import Entity, Features
from fraud_contracts.feature_set import all_features

_DAY: Final = 86_400_000
# How far behind its key's newest event an event may come and still be counted.
LATENESS: Final = 3_600_000
# What an entity without any window keeps.
HORIZON: Final = 30 * _DAY
_STOOD_STILL: Final = 7 * _DAY


def reach(features: Features, entities: Sequence[Entity]) -> int:
    """Milliseconds: the longest window of any entity, with its label's delay, and the lateness."""
    delays = {
        entity.name: 0 if entity.label_delay is None else durations.to_ms(entity.label_delay)
        for entity in entities
    }
    longest: dict[str, int] = {}
    for feature in all_features(features, entities):
        if feature.entity is None or feature.aggregate is None or feature.window is None:
            continue
        delay = delays.get(feature.entity, 0) if feature.aggregate.entry.needs_labels else 0
        back = delay + durations.to_ms(feature.window)
        longest[feature.entity] = max(back, longest.get(feature.entity, 0))
    return max(longest.get(entity.name, HORIZON) for entity in entities) + LATENESS


def profile_kept(reach_ms: int) -> int:
    """Milliseconds from its record on that Redis keeps a profile."""
    return reach_ms + _STOOD_STILL


def state_kept(reach_ms: int) -> int:
    """Milliseconds from its last change on that the stream keeps a key's state."""
    return profile_kept(reach_ms) + _DAY


def record_kept(reach_ms: int) -> int:
    """Milliseconds that the topic ``profiles`` keeps a record at least."""
    return state_kept(reach_ms) + _DAY
