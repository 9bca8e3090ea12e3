"""The time of one request: one deadline for all of it, and up to which part of it each step may take.

A step gets all that is left up to its part, so what one saves is the next one's. However late a step ends, the ones after it keep the
difference between their parts: that is the share in which a stand-in is claimed and recorded.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

# Of the deadline. Older than the first a request isn't begun: what is left wouldn't do for all steps.
BEGUN: Final = 0.4
READ: Final = 0.5
RECALLED: Final = 0.55
SCORED: Final = 0.7
CLAIMED: Final = 0.8
# Where the policy answers without the record, its claim is told so in the rest.
RECORDED: Final = 0.95


@dataclass(frozen=True, slots=True)
class RequestClock:
    """``arrived`` is when the request's last byte reached the machine, by perf_counter; ``deadline`` is in seconds from then."""

    arrived: float
    deadline: float

    def left(self, part: float = 1.0, at_least: float = 0.0) -> float:
        """Seconds until that part of the deadline is over, or ``at_least`` that other part of it."""
        left = self.arrived + part * self.deadline - time.perf_counter()
        return max(left, at_least * self.deadline)
