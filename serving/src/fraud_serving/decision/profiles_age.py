"""How far behind the accepted payments the profiles are, from what Kafka holds and what Redis says is applied. Pure.

It is counted in offsets, and in this process's own time: when it asked where the inputs end. No clock of another machine is compared,
and no time that a payment bears. So a stream that stands still shows, and one that has nothing to do doesn't.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

# An input's noun, and a partition.
Place = tuple[str, int]
# So long the answer to the last question where the inputs end holds for now, and until a payment is accepted: who can't ask Kafka can't
# as a rule accept one either.
ASKED_SECONDS: Final = 5.0
_MOST_SAMPLES: Final = 1_000
# The end of a transaction takes an offset and is nobody's record: clients may write theirs in transactions. A rest that is no longer than
# this, and stays as it is while the stream goes on, is of such ends.
_ENDS: Final = 16
_BEATS: Final = 3


@dataclass(frozen=True, slots=True)
class AppliedOffsets:
    """By place the offset up to which payments are in the profiles that Redis holds; ``beat`` changes as long as the stream goes on."""

    offsets: Mapping[Place, int] = field(default_factory=dict)
    beat: object = None


@dataclass(frozen=True, slots=True)
class Extent:
    """What one partition of an input holds: its first offset, where that was asked, and its end."""

    end: int
    first: int = 0


class ProfilesAge:
    """``seconds`` is how long ago the last moment was of which all that was accepted before is known to be applied."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, dict[Place, int]]] = deque()
        self._covered: float | None = None
        self._asked = self._accepted = self._forgotten = -math.inf
        # By place what was applied of how much, and through how many beats that has been so.
        self._unmoved: dict[Place, tuple[int, int, int]] = {}
        self._beat: object = None

    @property
    def known(self) -> bool:
        """Whether it has been seen even once that the profiles have all that was accepted up to some moment."""
        return self._covered is not None

    def seconds(self, now: float) -> float:
        """Infinite until something is known. ``now`` as ``update``'s ``at``."""
        if self._covered is None:
            return math.inf
        return max(0.0, min(now, max(self._asked + ASKED_SECONDS, self._accepted)) - self._covered)

    def accepted(self, now: float) -> None:
        """Kafka acknowledged a payment, whatever it answers where its inputs end."""
        self._accepted = now

    def forget(self, now: float) -> None:
        """Redis has lost something: what was known of it doesn't hold, nor does what was read until now. ``now`` as ``update``'s ``at``."""
        self._forgotten, self._covered = now, None
        self._samples.clear()

    def update(self, at: float, applied: AppliedOffsets, extents: Mapping[Place, Extent]) -> None:
        """``applied`` was read, then ``extents`` asked for, from ``at`` on: seconds of a clock that never goes back."""
        if at <= self._forgotten:
            return
        self._asked = at
        self._count_beats(applied, extents)
        if any(applied.offsets.get(place, 0) > extent.end for place, extent in extents.items()):
            # The topic was made anew, or lost its end: its offsets are no longer those that were applied.
            self._samples.clear()
            return
        if len(self._samples) < _MOST_SAMPLES:
            self._samples.append((at, {place: extent.end for place, extent in extents.items()}))
        while self._samples and self._has_all(applied, extents, self._samples[0][1]):
            self._covered = self._samples.popleft()[0]

    def _has_all(
        self, applied: AppliedOffsets, extents: Mapping[Place, Extent], ends: Mapping[Place, int]
    ) -> bool:
        return all(
            self._following(place, applied, extents[place]) >= end
            for place, end in ends.items()
            if place in extents
        )

    def _following(self, place: Place, applied: AppliedOffsets, extent: Extent) -> int:
        """Up to where all records of a place are applied."""
        offset = applied.offsets.get(place)
        if (
            offset is None
        ):  # nothing has been read of it: there is nothing to read, or that is what is missing
            return extent.end if extent.first == extent.end else 0
        same = self._unmoved.get(place, (0, 0, 0))[2] >= _BEATS
        return extent.end if same and extent.end - offset <= _ENDS else offset

    def _count_beats(self, applied: AppliedOffsets, extents: Mapping[Place, Extent]) -> None:
        goes_on = applied.beat != self._beat
        self._beat = applied.beat
        for place, extent in extents.items():
            offset = applied.offsets.get(place, 0)
            known = self._unmoved.get(place)
            if known is None or known[:2] != (offset, extent.end):
                self._unmoved[place] = (offset, extent.end, 0)
            elif goes_on:
                self._unmoved[place] = (offset, extent.end, known[2] + 1)
