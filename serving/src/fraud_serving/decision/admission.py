"""How many decisions may be under way at once: as many as are answered in time. Pure: time comes in, in seconds of a steady clock.

With n under way each waits for n times what one costs, so a bound on them is a bound on the wait. What one costs changes with the machine and
its neighbours, so the bound is found by what it is for: how long requests wait until the process comes to them. Waiting for a store isn't
counted: it is bounded by the deadline, and fewer requests wouldn't end it.
"""

from __future__ import annotations

from typing import Final

from fraud_serving.decision.request_clock import BEGUN

MAX_UNDER_WAY: Final = 512
# Calm, a deadline of d admits d divided by this: as many as a thousand a second are, if each takes the whole deadline.
_EACH: Final = 0.001
_LEAST: Final = 4
# Of the deadline: what requests may wait on average until they are begun. A decision waits its turn at the loop some five times.
_WAIT: Final = 0.05
# The kernel tells a wait to its tick, some milliseconds: what a short deadline makes of the average, and of a single wait, is no less.
_LEAST_WAIT, _TICK = 0.002, 0.01
_WINDOW: Final = 0.05
# So many in a row are an overload; fewer are a pause of the machine, which is over when it is seen.
_IN_A_ROW: Final = 3
# So many bring the bound from its least to the top.
_WINDOWS: Final = 45
_SHRINK: Final = 0.5
_GROW: Final = 1 / 8
_BUSY: Final = 1.0


def most(deadline: float) -> float:
    """How many may be under way while nothing waits, of a deadline in seconds."""
    return max(float(_LEAST), min(deadline / _EACH, MAX_UNDER_WAY))


class Admission:
    """``admit`` each request that comes, ``leave`` with each that was admitted. Deadlines are in seconds.

    Where the average wait of a third window in a row is longer than it may be, the bound becomes smaller by that factor, to a half at most; where it is less
    than half of that, the bound grows by an eighth a window, up to ``most``. It never falls below four, so that there is always
    somebody who is answered.
    """

    def __init__(self) -> None:
        self.bound = float(MAX_UNDER_WAY)
        self.under_way = 0
        self._peak = 0
        self._since = 0.0
        self._waits, self._count, self._long = 0.0, 0, 0
        self._refused = -_BUSY

    def admit(self, now: float, waited: float, deadline: float) -> bool:
        """Whether a request that has waited so long may begin; it then counts as under way."""
        self._observe(now, waited, deadline)
        if waited > max(BEGUN * deadline, _TICK) or self.under_way >= self.bound:
            self._refused = now
            return False
        self.under_way += 1
        self._peak = max(self._peak, self.under_way)
        return True

    def leave(self) -> None:
        self.under_way -= 1

    def is_busy(self, now: float) -> bool:
        """Whether somebody was refused within the last second."""
        return now - self._refused < _BUSY

    def _observe(self, now: float, waited: float, deadline: float) -> None:
        passed = now - self._since
        if passed >= _WINDOW:
            average = self._waits / max(1, self._count)
            self._adapt(average / max(_WAIT * deadline, _LEAST_WAIT), most(deadline))
            # Windows that nobody came in are over, too.
            for _ in range(min(int(passed / _WINDOW) - 1, _WINDOWS)):
                self._adapt(0.0, most(deadline))
            self._since, self._waits, self._count, self._peak = now, 0.0, 0, self.under_way
        self._waits += waited
        self._count += 1

    def _adapt(self, excess: float, top: float) -> None:
        """``excess`` is the average wait of a window over what it may be."""
        bound = min(self.bound, top)
        self._long = self._long + 1 if excess > 1.0 else 0
        if self._long >= _IN_A_ROW:
            bound = min(bound, float(self._peak)) * max(_SHRINK, 1.0 / excess)
        elif excess < 0.5:
            bound += max(1.0, bound * _GROW)
        self.bound = max(float(_LEAST), min(bound, top))
