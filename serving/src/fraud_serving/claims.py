"""What Redis holds under a claimed id, and the scripts that change it: the one place that knows the form and its states.

A claim is one byte, then the decision's JSON. ``0``: claimed; that the record is in ``accepted`` isn't known, so whoever
meets the claim appends again; readers drop the repeat. ``1``: the record is in Kafka; claims of the stream door start so.

No write is blind: a claim is replaced where it holds the very bytes that were read, and marked or rewritten where it holds
the decision meant, told by its body's hash and when it was made. Else nothing happens, and no key is made. A command is a
tuple that any client sends as it is, for all ids of a batch at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import orjson

from fraud_contracts.records import Decision
from fraud_serving import reading

TTL_SECONDS: Final = 86_400
_MARKS: Final = (b"0", b"1")
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
local function own(key, hash, decided)
  local now = redis.pcall('GET', key)
  if type(now) ~= 'string' then return nil end
  local read, decision = pcall(cjson.decode, string.sub(now, 2))
  if read and type(decision) == 'table' and decision.hash == hash and decision.decided == tonumber(decided) then
    return now
  end
end
"""
# ARGV: seconds to live; per claim hash and time of its decision.
_MARK: Final = (
    _OWN
    + """
for i, key in ipairs(KEYS) do
  local now = own(key, ARGV[2 * i], ARGV[2 * i + 1])
  if now and string.sub(now, 1, 1) == '0' then
    redis.call('SETRANGE', key, 0, '1')
    redis.call('EXPIRE', key, ARGV[1])
  end
end
"""
)
# One claim. ARGV: hash and time of its decision, and the JSON to replace it by. -> whether it was this decision's.
_REWRITE: Final = (
    _OWN
    + """
local now = own(KEYS[1], ARGV[1], ARGV[2])
if not now then return 0 end
redis.call('SET', KEYS[1], string.sub(now, 1, 1) .. ARGV[3], 'KEEPTTL')
return 1
"""
)


@dataclass(frozen=True, slots=True)
class Claim:
    hash: str
    decision: Decision
    appended: bool


class Taking(NamedTuple):
    """A claim to make. ``instead_of`` are the bytes that were read and are no claim; empty where nothing was there."""

    key: str
    value: bytes
    instead_of: bytes = b""


class Own(NamedTuple):
    """Which claim to mark: its key, and what tells its decision from another one of the id."""

    key: str
    hash: str
    decided: int


def pack(decision: Decision, appended: bool) -> bytes:
    return _MARKS[appended] + orjson.dumps(decision)


def read(value: bytes | None, event_id: str) -> Claim | None:
    """The claim of that id in a stored value, None where there is none; ValueError where the bytes aren't one."""
    if value is None or value == _STRAY:
        return None
    if value[:1] not in _MARKS:
        raise ValueError("no claim of this platform")
    decision = reading.decision(value[1:], event_id)
    return Claim(decision["hash"], decision, value[:1] == b"1")


def take(takings: Sequence[Taking]) -> Command:
    """-> per claim None where it is the caller's now, else the bytes that are there."""
    arguments = [argument for taking in takings for argument in (taking.instead_of, taking.value)]
    return ("EVAL", _TAKE, len(takings), *(taking.key for taking in takings), TTL_SECONDS, *arguments)


def mark_appended(owns: Iterable[Own]) -> Command:
    """Says in the claims that their records are in the log; they then live a day from here."""
    owns = list(owns)
    arguments = [argument for own in owns for argument in (own.hash, own.decided)]
    return ("EVAL", _MARK, len(owns), *(own.key for own in owns), TTL_SECONDS, *arguments)


def rewrite(key: str, decision: Decision) -> Command:
    """Puts what the caller hears into the claim of that decision, whose state and time to live stay; -> 1 if it was there."""
    return ("EVAL", _REWRITE, 1, key, decision["hash"], decision["decided"], orjson.dumps(decision))
