"""What Redis holds under a claimed id, and the scripts that change it: the one place that knows the form and its states.

A claim is *whole* until its decision has been published for RETRY_WINDOW_SECONDS: so long a retry is answered from it. Then it is
*shrunk* to its head, which still tells a repeat from another body; the answer is in the ledger.

======= ===========================================================================================================
bytes   what
======= ===========================================================================================================
0       the state: ``C`` claimed, ``L`` appended (in the log), else published: ``A`` approve, ``R`` review, ``D`` decline,
        ``P`` where nobody knew the action
1 - 16  the body's hash
17 - 27 the record in ``decisions``: of the topic's id the first 4 bytes, partition (2), offset (5); ones where not known
28 - 33 when it was decided, UTC ms; here the head has ended
34 -    the decision's JSON by zlib
======= ===========================================================================================================

``C``: that the record is in ``accepted`` isn't known: whoever meets the claim appends again, readers drop the repeat. ``L``: the record
is in Kafka; claims of the stream door start so. Published: the decision is in ``decisions``, committed: a record of the id that comes
again is a repeat, or a conflict. No state is taken back, and only a published claim is shrunk.

Whole claims of published decisions are in a sorted set, ``names.redis_due``, by when they were published. The scripts that make or
mark them put them there, a worker takes out what is over its time, whoever put it there. Where the set loses some, as it
does where another program deletes it, they stay whole for the rest of their day.

Versions before wrote ``0{json}`` for claimed, ``1{json}`` for appended, ``1{json}`` and a newline for published. Such claims are
read and marked in their own form, and end with their day; they aren't shrunk.

No write is blind: a claim is replaced where it holds the very bytes that were read, and marked or rewritten where it holds
the decision meant, told by its body's hash and when it was made. Else nothing happens, and no key is made. A command is a
tuple that any client sends as it is, for all ids of a batch at once.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import orjson

from fraud_contracts.records import Decision
from fraud_serving import stored_records

TTL_SECONDS: Final = 86_400
RETRY_WINDOW_SECONDS: Final = 600
HEAD: Final = 28
# So many claims are kept whole at most: the oldest of more are shrunk before their time. In Redis they take up to 1 GB.
MOST_WHOLE: Final = 1_000_000
_BODY: Final = 34
_CLAIMED: Final = b"C"
_APPENDED: Final = b"L"
_PUBLISHED: Final = {"approve": b"A", "review": b"R", "decline": b"D", "": b"P"}
_STATES: Final = frozenset({_CLAIMED, _APPENDED, *_PUBLISHED.values()})
_FASTEST: Final = 1
_HASH: Final = re.compile("[0-9a-f]{32}")
_NOWHERE: Final = b"\xff" * 11
_BEYOND: Final = 2**40 - 1
# What older versions' marks left where Redis had lost the claim: no claim.
_STRAY: Final = b"1"
_OLD_STATES: Final = (b"0", b"1")
_OLD_PUBLISHED: Final = b"\n"
Command = tuple[str | bytes | int, ...]

# Marking and shrinking free more than they take, so a Redis that is full must let them.
WHEN_FULL: Final = "#!lua flags=allow-oom\n"
# A key of another type is no claim.
_READ: Final = """
local function get(key)
  local now = redis.pcall('GET', key)
  return type(now) == 'string' and now or ''
end
local function published(now) return string.find(now, '^[ARDP]') ~= nil end
"""
# What isn't a sorted set gives way to one.
_DUE: Final = """
local function shrink_later(due, key, at)
  if type(redis.pcall('ZADD', due, at, key)) == 'table' then
    redis.call('DEL', due)
    redis.call('ZADD', due, at, key)
  end
  redis.call('EXPIRE', due, 86400)
end
"""
# ``own`` is what tells a decision in the form of now; its hash and time as text tell it in the form of before.
_OWN: Final = """
local function is_own(now, own) return string.sub(now, 2, 17) .. string.sub(now, 29, 34) == own end
local function is_own_of_before(now, hash, decided)
  local read, decision = pcall(cjson.decode, string.sub(now, 2))
  return read and type(decision) == 'table' and decision.hash == hash and decision.decided == tonumber(decided)
end
"""
# KEYS: claims, and the set of those to be shrunk. ARGV: seconds to live, UTC ms of now; per claim the bytes that may be replaced (empty:
# none) and the new ones. -> per claim nil where it is the caller's now, else what is there.
_TAKE: Final = (
    _READ
    + _DUE
    + """
local held = {}
for i = 1, #KEYS - 1 do
  local key, now, new = KEYS[i], get(KEYS[i]), ARGV[2 * i + 2]
  if now == ARGV[2 * i + 1] then
    redis.call('SET', key, new, 'EX', ARGV[1])
    if published(new) then shrink_later(KEYS[#KEYS], key, ARGV[2]) end
    held[i] = false
  else
    held[i] = now
  end
end
return held
"""
)
# KEYS: claims. ARGV: seconds to live; per claim hash and time of its decision, and ``own``.
_MARK_APPENDED: Final = (
    _READ
    + _OWN
    + """
for i, key in ipairs(KEYS) do
  local now = get(key)
  local hash, decided, own = unpack(ARGV, 3 * i - 1, 3 * i + 1)
  local state = string.sub(now, 1, 1)
  if state == 'C' and is_own(now, own) then
    redis.call('SET', key, 'L' .. string.sub(now, 2), 'EX', ARGV[1])
  elseif state == '0' and is_own_of_before(now, hash, decided) then
    redis.call('SET', key, '1' .. string.sub(now, 2), 'EX', ARGV[1])
  end
end
"""
)
# KEYS: claims, and the set of those to be shrunk. ARGV: seconds to live, UTC ms of now; per claim hash and time of its decision,
# ``own``, the state and the place.
_MARK_PUBLISHED: Final = (
    WHEN_FULL
    + _READ
    + _DUE
    + _OWN
    + """
for i = 1, #KEYS - 1 do
  local key, now = KEYS[i], get(KEYS[i])
  local hash, decided, own, marked, place = unpack(ARGV, 5 * i - 2, 5 * i + 2)
  local state = string.sub(now, 1, 1)
  if (state == 'C' or state == 'L') and is_own(now, own) then
    redis.call('SET', key, marked .. string.sub(now, 2, 17) .. place .. string.sub(now, 29), 'EX', ARGV[1])
    shrink_later(KEYS[#KEYS], key, ARGV[2])
  elseif (state == '0' or state == '1') and string.sub(now, -1) ~= '\\n' and is_own_of_before(now, hash, decided) then
    redis.call('SET', key, '1' .. string.sub(now, 2) .. '\\n', 'EX', ARGV[1])
  end
end
"""
)
# One claim. ARGV: hash and time of its decision, ``own``, and what to replace it by: by zlib, and as JSON. -> whether it was this decision's.
_REWRITE: Final = (
    _READ
    + _OWN
    + """
local now = get(KEYS[1])
if is_own(now, ARGV[3]) then
  redis.call('SET', KEYS[1], string.sub(now, 1, 34) .. ARGV[4], 'KEEPTTL')
elseif is_own_of_before(now, ARGV[1], ARGV[2]) then
  local ending = string.sub(now, -1) == '\\n' and '\\n' or ''
  redis.call('SET', KEYS[1], string.sub(now, 1, 1) .. ARGV[5] .. ending, 'KEEPTTL')
else
  return 0
end
return 1
"""
)
# KEYS: the set. ARGV: those from before then (UTC ms), so many at most; and how many may be left whole. -> how many were taken out.
_SHRINK: Final = (
    WHEN_FULL
    + _READ
    + """
local due = KEYS[1]
local over = redis.pcall('ZRANGE', due, '-inf', ARGV[1], 'BYSCORE', 'LIMIT', 0, ARGV[2])
if over.err then
  redis.call('DEL', due)
  return 0
end
if #over == 0 and #redis.call('ZRANGE', due, ARGV[3], ARGV[3]) > 0 then
  over = redis.call('ZRANGE', due, 0, ARGV[2] - 1)
end
for _, key in ipairs(over) do
  local now = get(key)
  if published(now) and #now > 28 then redis.call('SET', key, string.sub(now, 1, 28), 'KEEPTTL') end
end
if #over > 0 then redis.call('ZREM', due, unpack(over)) end
return #over
"""
)


class Place(NamedTuple):
    """Where a decision lies in ``decisions``; of the topic's id, base64 as Kafka shows it, the first five characters."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Claim:
    """``decision`` is None where the claim is shrunk, and then published; ``place`` where that isn't known."""

    hash: str
    decision: Decision | None
    appended: bool
    published: bool
    place: Place | None = None

    def is_of(self, body_hash: str) -> bool:
        """Whether it was made for that body."""
        return self.hash == (body_hash if self.decision is not None else _kept(body_hash).hex())


class ClaimAttempt(NamedTuple):
    """A claim to make. ``instead_of`` are the bytes that it may replace; empty where none were read."""

    key: str
    value: bytes
    instead_of: bytes = b""


class ClaimRef(NamedTuple):
    """Which claim to mark: its key, and what tells its decision from another one of the id.

    Where it is published, also what it will still say when it is shrunk: its action, empty where not known, and its place.
    """

    key: str
    hash: str
    decided: int
    action: str = ""
    place: bytes = _NOWHERE


def place(topic_id: str, partition: int, offset: int) -> bytes:
    """A place as a head has it; ``offset`` is negative where it isn't known. ``topic_id`` is base64, empty where a broker has none."""
    if not 0 <= offset < _BEYOND or not 0 <= partition < 2**16:
        return _NOWHERE
    of_topic = base64.b64decode(topic_id.replace("-", "+").replace("_", "/") + "==")[:4]
    return of_topic.ljust(4, b"\0") + partition.to_bytes(2) + offset.to_bytes(5)


def pack(decision: Decision, appended: bool, published: bool = False) -> bytes:
    """A whole claim; ``published`` is ``appended``, too."""
    state = _PUBLISHED[decision["action"]] if published else _APPENDED if appended else _CLAIMED
    own = _own(decision["hash"], decision["decided"])
    return b"".join((state, own[:16], _NOWHERE, own[16:], _packed(decision)))


def read(value: bytes | None, event_id: str) -> Claim | None:
    """The claim of that id in a stored value, None where there is none; ValueError where the bytes aren't one."""
    if value is None or value == _STRAY:
        return None
    if value[:1] in _OLD_STATES:
        return _read_of_before(value, event_id)
    state, head = value[:1], value[:HEAD]
    if state not in _STATES or len(head) < HEAD:
        raise ValueError("no claim of this platform")
    published = state not in (_CLAIMED, _APPENDED)
    if len(value) == HEAD:
        if not published:
            raise ValueError("shrunk before it was published")
        return Claim(head[1:17].hex(), None, True, True, _place(head))
    decision = stored_records.read_decision(_unpacked(value[_BODY:]), event_id)
    if _own(decision["hash"], decision["decided"]) != head[1:17] + value[HEAD:_BODY]:
        raise ValueError("the head of another decision")
    return Claim(decision["hash"], decision, state != _CLAIMED, published, _place(head))


def take(attempts: Sequence[ClaimAttempt], due: str, now: int) -> Command:
    """-> per claim None where it is the caller's now, else the bytes that are there. ``due`` is the set, ``now`` UTC ms."""
    arguments = [argument for attempt in attempts for argument in (attempt.instead_of, attempt.value)]
    keys = [attempt.key for attempt in attempts]
    return ("EVAL", _TAKE, len(keys) + 1, *keys, due, TTL_SECONDS, now, *arguments)


def mark_appended(refs: Sequence[ClaimRef]) -> Command:
    """Says in the claims that their records are in the log; they then live a day from here."""
    arguments = [
        argument for ref in refs for argument in (ref.hash, ref.decided, _own(ref.hash, ref.decided))
    ]
    return ("EVAL", _MARK_APPENDED, len(refs), *(ref.key for ref in refs), TTL_SECONDS, *arguments)


def mark_published(refs: Sequence[ClaimRef], due: str, now: int) -> Command:
    """Says in the claims that they are published, and where; they then live a day from here, and are whole for the retry window."""
    arguments = [
        argument
        for ref in refs
        for argument in (
            ref.hash,
            ref.decided,
            _own(ref.hash, ref.decided),
            _PUBLISHED.get(ref.action, _PUBLISHED[""]),
            ref.place,
        )
    ]
    keys = [ref.key for ref in refs]
    return ("EVAL", _MARK_PUBLISHED, len(keys) + 1, *keys, due, TTL_SECONDS, now, *arguments)


def rewrite(key: str, decision: Decision) -> Command:
    """Puts what the caller hears into the claim of that decision, whose state and time to live stay; -> 1 if it was there."""
    own = _own(decision["hash"], decision["decided"])
    told = (decision["hash"], decision["decided"], own)
    return ("EVAL", _REWRITE, 1, key, *told, _packed(decision), orjson.dumps(decision))


def shrink(due: str, now: int, count: int, most: int = MOST_WHOLE) -> Command:
    """Shrinks claims whose retry window is over at ``now``, UTC ms, the oldest first, ``count`` at most; -> how many. Without such
    ones the oldest where more than ``most`` are whole."""
    return ("EVAL", _SHRINK, 1, due, now - RETRY_WINDOW_SECONDS * 1000, count, most)


def _kept(body_hash: str) -> bytes:
    """All of a body's hash. What isn't one, as a damaged record may have, is told by the hash of it."""
    if _HASH.fullmatch(body_hash) is not None:
        return bytes.fromhex(body_hash)
    return hashlib.sha256(body_hash.encode()).digest()[:16]


def _own(body_hash: str, decided: int) -> bytes:
    return _kept(body_hash) + (decided % 2**48).to_bytes(6)


def _place(head: bytes) -> Place | None:
    packed = head[17:HEAD]
    if packed == _NOWHERE:
        return None
    topic = base64.urlsafe_b64encode(packed[:4]).decode()[:5]
    return Place(topic, int.from_bytes(packed[4:6]), int.from_bytes(packed[6:]))


def _packed(decision: Decision) -> bytes:
    return zlib.compress(orjson.dumps(decision), _FASTEST)


def _unpacked(body: bytes) -> bytes:
    """ValueError where it is not what was packed, or more than any record has."""
    unpacking = zlib.decompressobj()
    try:
        text = unpacking.decompress(body, stored_records.MAX_BYTES)
    except zlib.error:
        raise ValueError("no bytes by zlib") from None
    if not unpacking.eof or unpacking.unused_data:
        raise ValueError("cut, or more than any record has")
    return text


def _read_of_before(value: bytes, event_id: str) -> Claim:
    decision = stored_records.read_decision(value[1:], event_id)
    appended = value[:1] == b"1"
    return Claim(decision["hash"], decision, appended, appended and value[-1:] == _OLD_PUBLISHED)
