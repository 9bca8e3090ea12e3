"""The values that a key showed lately: for each, when it was last seen. What Distinct counts.

At most ``limit`` values are kept, those seen last; a key with more distinct values than that in the retained time gets a
lower bound. The table is a function of the set of events, like the curve.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right

MISSING = 0  # hash of no value; a value that hashes to it (one in 2^64) isn't counted


class LastSeen:
    """``lasts`` and ``hashes`` in step, sorted by time, then hash."""

    __slots__ = ("hashes", "lasts", "limit", "retain")

    def __init__(self, limit: int, retain: int) -> None:
        self.limit, self.retain = limit, retain
        self.lasts: array[int] = array("q")
        self.hashes: array[int] = array("Q")

    def add(self, t: int, value: int, newest: int) -> None:
        """``value``, a hash, was seen at ``t``; the key's newest event, with a value or without, is at ``newest``."""
        lasts, hashes = self.lasts, self.hashes
        if value != MISSING:
            self._move(t, value)
        gone = max(bisect_right(lasts, newest - self.retain), len(lasts) - self.limit)
        if gone > 0:
            del lasts[:gone], hashes[:gone]

    def _move(self, t: int, value: int) -> None:
        """Puts the value to ``t``, unless it was seen later."""
        lasts, hashes = self.lasts, self.hashes
        if value in hashes:
            i = hashes.index(value)
            if lasts[i] >= t:
                return
            del lasts[i], hashes[i]
        at = bisect_left(lasts, t)
        while at < len(lasts) and lasts[at] == t and hashes[at] < value:
            at += 1
        lasts.insert(at, t)
        hashes.insert(at, value)

    def count(self, after: int, until: int) -> int:
        """Values last seen in (after, until]. A value seen again after ``until`` is missed: late events undercount."""
        return bisect_right(self.lasts, until) - bisect_right(self.lasts, after)
