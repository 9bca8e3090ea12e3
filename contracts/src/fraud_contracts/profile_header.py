"""The first bytes of every profile, seed and state of a key: all that may be known of one without the engine.

The engine writes it, the profile sink compares it (a higher ``(epoch, seq)`` is newer), the decision service refuses a
profile of another set by it. What follows the header belongs to the engine alone. Little-endian, no padding::

    offset  size  what
    0       2     magic b"FP"
    2       2     version of the binary form, u16
    4       4     first four bytes (eight hex characters) of the feature set's hash
    8       4     epoch, u32: the generation of the lineage that the state is of (``lineage``)
    12      8     seq, u64: events and labels applied in this epoch
    20      8     digest, u64: sum mod 2^64 of the 64-bit hashes of everything applied (version 1: XOR)

The engine's own part begins with the time of the newest event, i64, UTC ms; 0 before the first. The sink compares it, too: it tells a
count of ``seq`` that began anew.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

MAGIC: Final = b"FP"
HEADER: Final = struct.Struct("<2sH4sIQQ")
EPOCH_OFFSET: Final = 8
SEQ_OFFSET: Final = 12
NEWEST_OFFSET: Final = HEADER.size


class Header(NamedTuple):
    """``(epoch, seq)`` orders two profiles of one key; equal digests say that they hold the same events."""

    version: int
    set_hash8: str
    epoch: int
    seq: int
    digest: int


def pack(header: Header) -> bytes:
    return HEADER.pack(
        MAGIC, header.version, bytes.fromhex(header.set_hash8), header.epoch, header.seq, header.digest
    )


def read(profile: bytes) -> Header:
    """The header of a profile; ValueError where the bytes are none."""
    if len(profile) < HEADER.size or profile[:2] != MAGIC:
        raise ValueError("these bytes are no profile: they don't begin with its header")
    _, version, set_hash, epoch, seq, digest = HEADER.unpack_from(profile)
    return Header(version, set_hash.hex(), epoch, seq, digest)
