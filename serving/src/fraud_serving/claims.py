"""What Redis holds under a claimed id, and the scripts that change it: the one place that knows the form and its states.

A claim is one byte, then the decision's JSON, then a newline where the decision is published:

========= ========= ======================================================================================================
bytes     state     what it says
========= ========= ======================================================================================================
``0{…}``  claimed   that the record is in ``accepted`` isn't known: whoever meets the claim appends again, readers drop the repeat
``1{…}``  appended  the record is in Kafka; claims of the stream door start so
``1{…}⏎`` published the decision is in ``decisions``, committed: a record of the id that comes again is a repeat, or a conflict
========= ========= ======================================================================================================

Versions without the third state read it as the second, since a newline after JSON says nothing; what they write may take it back.

No write is blind: a claim is replaced where it holds the very bytes that were read, and marked or rewritten where it holds
the decision meant, told by its body's hash and when it was made. Else nothing happens, and no key is made. A command is a
tuple that any client sends as it is, for all ids of a batch at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import orjson

from fraud_contracts.records import Decision
from fraud_serving import stored_records

TTL_SECONDS: Final = 86_400
_MARKS: Final = (b"0", b"1")
_PUBLISHED: Final = b"\n"
# What older versions' marks left where Redis had lost the claim: no claim.
_STRAY: Final = b"1"
Command = tuple[str | bytes | int, ...]

# KEYS: claims. ARGV: seconds to live; per claim the bytes that may be replaced (empty: none) and the new ones.
# -> per claim nil where it is the caller's now, else what is there. A key of another type is no claim.
_TAKE: Final = """
local held = {}
for i, key in ipairs(KEYS) do
  local now = redis.pcall('GET', key) or ''
  if type(now) == 'table' then now = '' end
  if now == ARGV[2 * i] then
    redis.call('SET', key, ARGV[2 * i + 1], 'EX', ARGV[1])
    held[i] = false
  else
    held[i] = now
  end
end
return held
"""
_OWN: Final = """
local function get(key)
  local now = redis.pcall('GET', key)
  return type(now) == 'string' and now or ''
end
local function own(now, hash, decided)
  local read, decision = pcall(cjson.decode, string.sub(now, 2))
  return read and type(decision) == 'table' and decision.hash == hash and decision.decided == tonumber(decided)
end
"""
# ARGV: seconds to live; the newline, or nothing; per claim hash and time of its decision. No state is taken back.
_MARK: Final = (
    _OWN
    + """
for i, key in ipairs(KEYS) do
  local now = get(key)
  local done = string.sub(now, -1) == '\\n' or string.sub(now, 1, 1) .. ARGV[2] == '1'
  if not done and own(now, ARGV[2 * i + 1], ARGV[2 * i + 2]) then
    redis.call('SET', key, '1' .. string.sub(now, 2) .. ARGV[2], 'EX', ARGV[1])
  end
end
"""
)
# One claim. ARGV: hash and time of its decision, and the JSON to replace it by. -> whether it was this decision's.
_REWRITE: Final = (
    _OWN
    + """
local now = get(KEYS[1])
if not own(now, ARGV[1], ARGV[2]) then return 0 end
local ending = string.sub(now, -1) == '\\n' and '\\n' or ''
redis.call('SET', KEYS[1], string.sub(now, 1, 1) .. ARGV[3] .. ending, 'KEEPTTL')
return 1
"""
)


@dataclass(frozen=True, slots=True)
class Claim:
    hash: str
    decision: Decision
    appended: bool
    published: bool


class ClaimAttempt(NamedTuple):
    """A claim to make. ``instead_of`` are the bytes that it may replace; empty where none were read."""

    key: str
    value: bytes
    instead_of: bytes = b""


class ClaimRef(NamedTuple):
    """Which claim to mark: its key, and what tells its decision from another one of the id."""

    key: str
    hash: str
    decided: int


def pack(decision: Decision, appended: bool, published: bool = False) -> bytes:
    """``published`` is ``appended``, too."""
    return _MARKS[appended] + orjson.dumps(decision) + (_PUBLISHED if published else b"")


def read(value: bytes | None, event_id: str) -> Claim | None:
    """The claim of that id in a stored value, None where there is none; ValueError where the bytes aren't one."""
    if value is None or value == _STRAY:
        return None
    if value[:1] not in _MARKS:
        raise ValueError("no claim of this platform")
    decision = stored_records.read_decision(value[1:], event_id)
    appended = value[:1] == b"1"
    return Claim(decision["hash"], decision, appended, appended and value[-1:] == _PUBLISHED)


def take(attempts: Sequence[ClaimAttempt]) -> Command:
    """-> per claim None where it is the caller's now, else the bytes that are there."""
    arguments = [argument for attempt in attempts for argument in (attempt.instead_of, attempt.value)]
    return ("EVAL", _TAKE, len(attempts), *(attempt.key for attempt in attempts), TTL_SECONDS, *arguments)


def mark(refs: Sequence[ClaimRef], published: bool) -> Command:
    """Says in the claims that their records are in the log, or that they are published; they then live a day from here."""
    ending = _PUBLISHED if published else b""
    arguments = [argument for ref in refs for argument in (ref.hash, ref.decided)]
    return ("EVAL", _MARK, len(refs), *(ref.key for ref in refs), TTL_SECONDS, ending, *arguments)


def rewrite(key: str, decision: Decision) -> Command:
    """Puts what the caller hears into the claim of that decision, whose state and time to live stay; -> 1 if it was there."""
    return ("EVAL", _REWRITE, 1, key, decision["hash"], decision["decided"], orjson.dumps(decision))
