"""One deadline for all of a request."""

from __future__ import annotations

import time

from fraud_serving.decision import request_clock as clocks
from fraud_serving.decision.request_clock import RequestClock


def test_the_parts_come_in_the_order_of_the_steps_and_end_with_the_deadline() -> None:
    """Each later step has time of its own, however late the one before it ends."""
    parts = [clocks.BEGUN, clocks.READ, clocks.RECALLED, clocks.SCORED, clocks.CLAIMED, clocks.RECORDED, 1.0]
    assert parts == sorted(set(parts))
    assert parts[0] > 0


def test_a_request_that_waited_has_so_much_less() -> None:
    """What lay in the kernel counts; past its part a step has nothing, or what it is given in any case."""
    fresh, old = RequestClock(time.perf_counter(), 1.0), RequestClock(time.perf_counter() - 0.5, 1.0)
    assert 0.4 < fresh.left() - old.left() < 0.6
    assert old.left(clocks.READ) == 0.0
    assert old.left(clocks.READ, at_least=0.1) == 0.1
