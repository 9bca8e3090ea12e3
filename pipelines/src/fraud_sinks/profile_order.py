"""Which of two profiles of a key is the later one."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from fraud_contracts import profile_header

_TIME: Final = struct.Struct("<q")


class ProfileAge(NamedTuple):
    """``newest``: the time of its newest event, UTC ms; None where the profile ends before it."""

    epoch: int
    seq: int
    newest: int | None

    @classmethod
    def of(cls, profile: bytes) -> ProfileAge:
        """ValueError where the bytes are no profile."""
        header, at = profile_header.read(profile), profile_header.NEWEST_OFFSET
        whole = len(profile) >= at + _TIME.size
        return cls(header.epoch, header.seq, _TIME.unpack_from(profile, at)[0] if whole else None)


def replaces(new: ProfileAge, old: ProfileAge, reach: int) -> bool:
    """Whether ``new`` takes the place of ``old``; ``reach`` is that of their feature set in ms, 0 where it isn't known.

    A higher ``(epoch, seq)`` does, and an equal one: of two such the topic's order decides. But a key that comes back after the stream has
    forgotten it begins a new count of ``seq``. In one count the newest event's time never falls, and no state is forgotten before a
    reach after it: so of two profiles whose newest events lie as far apart, the later one counts.
    """
    if new.epoch != old.epoch:
        return new.epoch > old.epoch
    if reach and new.newest is not None and old.newest is not None and abs(new.newest - old.newest) >= reach:
        return new.newest > old.newest
    return new.seq >= old.seq
