"""Whether Redis may have lost claims, and since when it has lost none: the one place that knows the mark that says so. No I/O.

The mark is one key, ``names.redis_whole``: ``<since>``, UTC ms, then, once the ledger holds all that was decided before, how far
it had got, ``<lineage>/<partition>/<following>`` of each partition of ``decisions``. ``0`` says that none was ever lost.

A loss is noticed by whoever reads the mark first: an emptied Redis has none. One that was put back to an earlier state has an
earlier one, so each process also keeps a *witness* in Redis, a count that it raises after whatever it writes of claims; where
Redis has a lower count than it confirmed, it has lost some of them. Within a day of ``since`` a claim that isn't there says nothing.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Sequence
from typing import Final, NamedTuple

from fraud_contracts.names import Identity
from fraud_process.instruments import Instruments
from fraud_serving.claims import TTL_SECONDS, WHEN_FULL, Command

DAY_MS: Final = TTL_SECONDS * 1000
# So far apart clocks may be. A mark from beyond was set by one that was wrong, and isn't waited for.
SKEW_MS: Final = 3_600_000
_log = logging.getLogger(__name__)
_WITNESS_SECONDS: Final = 2 * TTL_SECONDS
_FORM: Final = re.compile(rb"[0-9]{1,15}( [0-9]{1,9}/[0-9]{1,9}/[0-9]{1,18})*")
# KEYS: the mark. ARGV: the bytes that may be replaced (empty: none) and the new ones. What isn't bytes counts as none.
_REPLACE: Final = (
    WHEN_FULL
    + """
local now = redis.pcall('GET', KEYS[1])
if type(now) ~= 'string' then now = '' end
if now ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""
)


# KEYS: a witness. ARGV: the count, seconds to live, what it must have been at least. -> what was there, empty where there was none. No late
# command lowers it, and one that finds less than it must have been leaves it: its reply may be lost, and what is there tells of the loss.
_BEAR: Final = (
    WHEN_FULL
    + """
local now = redis.pcall('GET', KEYS[1])
if type(now) ~= 'string' then now = '' end
local count = #now < 16 and string.match(now, '^%d+$') and tonumber(now) or 0
if tonumber(ARGV[3]) <= count and count < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) end
return now
"""
)


class Reached(NamedTuple):
    """How far the ledger is in one partition of ``decisions``: the offset after the last record that it holds."""

    lineage: int
    partition: int
    following: int


class Mark(NamedTuple):
    """No claim was lost since then. ``ledger``: it held all that was decided before when it was there; empty until that is known."""

    since: int
    ledger: tuple[Reached, ...] = ()

    def doubts(self, now: int) -> bool:
        """Whether an id without a claim may have been decided: claims of before ``since`` would still live."""
        return now - self.since < DAY_MS

    def pack(self) -> bytes:
        return " ".join([str(self.since), *("/".join(map(str, one)) for one in self.ledger)]).encode()


def read(value: bytes | None) -> Mark | None:
    """The mark in stored bytes; None where they are none."""
    if value is None or _FORM.fullmatch(value) is None:
        return None
    since, *places = value.decode().split(" ")
    return Mark(int(since), tuple(Reached(*map(int, place.split("/"))) for place in places))


def replace(key: str, held: bytes | None, mark: Mark) -> Command:
    """Puts a mark in the place of the bytes that were read, None where there were none; -> 1 where they were still there."""
    return ("EVAL", _REPLACE, 1, key, held or b"", mark.pack())


def lost(known: Mark | None, now: int) -> Mark:
    """The mark of a loss noticed now; never one of before ``known``, unless that was set by a wrong clock."""
    return Mark(now if known is None or known.since > now + SKEW_MS else max(now, known.since + 1))


class Witness(NamedTuple):
    """``number`` is the count that ``command`` raises the witness to where that was ``before`` at least, as it must have been."""

    number: int
    before: int
    command: Command


def _count(value: bytes | None) -> int:
    """The count in a witness; 0 where it is none."""
    return int(value) if value is not None and value.isdigit() and len(value) < 16 else 0


class Wholeness:
    """What one process knows of the mark. ``now`` is UTC ms. All calls of one process come from one thread."""

    def __init__(self, of: Identity, instruments: Instruments) -> None:
        self.mark_key, self.witness_key = of.redis_whole, of.redis_witness(secrets.token_hex(8))
        self._instruments = instruments
        self._sent = 0
        self._confirmed = (0, 0)  # the highest count that Redis took, and when
        # The bytes of a mark that is known to be wrong: it is as old as what Redis was put back to.
        self._disproved: bytes | None = None
        # Redis had a lower count than it should have when it was to take a higher one.
        self._regressed = False
        self._heard: bytes | None = None
        self._mark: Mark | None = None

    @property
    def keys(self) -> tuple[str, str]:
        """What ``heard`` needs the values of, in this order."""
        return self.mark_key, self.witness_key

    @property
    def since(self) -> int | None:
        """UTC ms; None while nothing is known."""
        return None if self._mark is None else self._mark.since

    @property
    def heard_since(self) -> int | None:
        """As ``since``, where Redis itself was heard to say so; None where this process alone does."""
        return self.since if self._mark is not None and read(self._heard) == self._mark else None

    def bear_witness(self, now: int) -> Witness:
        """What to send after each writing of claims, on the same connection."""
        self._sent += 1
        before = self.confirmed_before(now)
        command = ("EVAL", _BEAR, 1, self.witness_key, self._sent, _WITNESS_SECONDS, before)
        return Witness(self._sent, before, command)

    def confirmed(self, witness: Witness, reply: bytes, now: int) -> None:
        """Redis answered it, and the writing before it; ``reply`` is what it had until then."""
        if _count(reply) < witness.before:
            self._regressed = True
        else:
            self._confirmed = max(self._confirmed[0], witness.number), now

    def confirmed_before(self, now: int) -> int:
        """What Redis must have at least; to be asked before the keys are read. Claims of longer ago are over anyway."""
        number, at = self._confirmed
        return number if now - at < DAY_MS else 0

    def heard(self, held: Sequence[bytes | None], before: int, now: int) -> Command | None:
        """Takes in what the keys held; -> the command that tells all others of a loss, None where nothing was lost."""
        mark, count = held[0], _count(held[1])
        if mark == self._heard and not self._is_wrong(mark, count, before, now):
            return None
        known = read(mark)
        if mark is not None and known is None:
            self._instruments.unreadable("whole")
        self._heard, self._mark = mark, known
        if not self._is_wrong(mark, count, before, now):
            return None
        if count < before:
            self._confirmed = count, now
        return self.lost(now)

    def _is_wrong(self, mark: bytes | None, count: int, before: int, now: int) -> bool:
        ahead = self._mark is not None and self._mark.since > now + SKEW_MS
        return self._mark is None or ahead or self._regressed or count < before or mark == self._disproved

    def lost(self, now: int) -> Command:
        """Claims were lost, as this process has found out by itself."""
        _log.warning("claims may be lost", extra={"data": {"mark": self.mark_key}})
        mark = lost(self._mark, now)
        command = replace(self.mark_key, self._heard, mark)
        self._disproved, self._mark, self._regressed = self._heard, mark, False
        return command

    def doubt(self, now: int) -> Mark | None:
        """The mark, where an id without a claim may have been decided before; None where it can't."""
        return self._mark if self._mark is not None and self._mark.doubts(now) else None
