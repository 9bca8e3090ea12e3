"""What Redis holds under a claimed id: one byte that says whether the record is known to be in the log, then JSON.

``0`` means that the append to ``accepted`` was not acknowledged as far as this entry knows, so whoever meets the claim
appends again; readers drop the repeat. Claims of the stream door start as ``1``: their record is in Kafka already.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson

from fraud_contracts.records import Decision

TTL_SECONDS: Final = 86_400
APPENDED: Final = b"1"
_MARKS: Final = (b"0", APPENDED)
# What a mark leaves where Redis had lost the claim: no claim.
STRAY: Final = (APPENDED,)


@dataclass(frozen=True, slots=True)
class Claim:
    hash: str
    decision: Decision
    appended: bool


def pack(decision: Decision, appended: bool) -> bytes:
    return _MARKS[appended] + orjson.dumps(decision)


def read(value: bytes) -> Claim:
    """The claim in a stored value; ValueError where another program wrote it."""
    if value[:1] not in _MARKS:
        raise ValueError("no claim of this platform")
    decision: Any = orjson.loads(value[1:])
    return Claim(decision["hash"], decision, value[:1] == b"1")
