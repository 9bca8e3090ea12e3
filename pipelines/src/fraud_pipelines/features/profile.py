"""The binary form of a key's state: what Flink stores, the profiles topic carries and the decision service reads.

After the header that all components know (``fraud_contracts.profile_header``) come the newest event's time, the counter
of events that came too late, the sizes and bases of each part, then the parts' columns as little-endian arrays. Fixed
arrays are longer than variable-length numbers, but Python reads them at the speed of a copy.

Versions differ in the digest alone; the latest is written, all are read:

1. XOR of the hashes. It cancels: events that a state took three times left the digest of once.
2. Their sum mod 2^64. Nobody can tell a sum from an XOR, so a state that goes on from a profile of version 1 takes its
   digest as it stands for the sum so far. Stream and decision service do so by the same code from the same bytes: their
   digests are equal where they took the same since. Where one of them took an event as version 1 yet, they differ, which
   is staleness (counted, never a mismatch), until the key's next profile.
"""

from __future__ import annotations

import struct
import sys
from typing import Final, NamedTuple

from fraud_contracts import profile_header

VERSION: Final = 2
FIXED: Final = struct.Struct(profile_header.HEADER.format + "qI")

if sys.byteorder != "little":
    raise ImportError("profiles are little-endian arrays; this machine is not")


class ProfileError(ValueError):
    """The bytes are no profile, or one of another version or feature set."""


class FullHeader(NamedTuple):
    """What can be read of a profile without its feature set: the contract's header, and the time of its newest event, 0
    before the first.
    """

    version: int
    set_hash8: str
    epoch: int
    seq: int
    digest: int
    newest_time: int


def check_version(version: int) -> None:
    """ProfileError where this engine can't read it: a reader from before an update takes the profile for missing."""
    if not 1 <= version <= VERSION:
        raise ProfileError(f"the profile is of version {version}; this engine reads versions 1 to {VERSION}")


def read_header(profile: bytes) -> FullHeader:
    """The header of a profile of any feature set; ProfileError where the bytes are no profile or of a later version."""
    if len(profile) < FIXED.size or profile[:2] != profile_header.MAGIC:
        raise ProfileError("these bytes are no profile: they don't begin with a profile's header")
    _, version, set_hash, epoch, seq, digest, newest, _ = FIXED.unpack_from(profile)
    check_version(version)
    return FullHeader(version, set_hash.hex(), epoch, seq, digest, newest)
