"""How many decisions may be under way at once; time is an argument, and an overloaded process is a few lines."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_serving.decision.admission import MAX_UNDER_WAY, Admission, most
from fraud_serving.decision.request_clock import BEGUN

DEADLINES = st.floats(0.001, 10.0)
WAITS = st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 3.0), st.booleans()), max_size=300)


@given(DEADLINES, WAITS)
def test_the_bound_stays_between_its_ends_and_holds(
    deadline: float, waits: list[tuple[float, float, bool]]
) -> None:
    """Whatever comes: never more at once than the bound says, never a bound above its top, and never one that admits nobody."""
    admission, now = Admission(), 100.0
    for pause, waited, ends in waits:
        now += pause
        before = admission.under_way
        if admission.admit(now, waited, deadline):
            assert admission.under_way == before + 1 <= max(1, math.ceil(admission.bound))
            assert waited <= max(0.01, BEGUN * deadline)
        assert 4 <= admission.bound <= most(deadline) <= MAX_UNDER_WAY
        if ends and admission.under_way:
            admission.leave()


def overloaded(deadline: float) -> tuple[Admission, float]:
    """One that has been at its least; -> with the time."""
    admission, now = Admission(), 100.0
    for _ in range(200):
        now += 0.01
        admission.admit(now, 1.0 + deadline, deadline)
    assert admission.bound == 4
    return admission, now


@given(st.floats(0.02, 2.0))
def test_two_seconds_without_waits_give_back_the_whole_bound(deadline: float) -> None:
    """In steps, however long the overload was; requests that are refused for the bound meanwhile don't hold it down."""
    admission, now = overloaded(deadline)
    bounds = []
    for _ in range(260):
        now += 0.01
        if admission.admit(now, 0.0, deadline):
            admission.leave()
        bounds.append(admission.bound)
    assert bounds == sorted(bounds)
    assert bounds[-1] == most(deadline)
    assert all(after <= max(before + 1, before * 1.7) for before, after in itertools.pairwise(bounds))


def test_a_pause_counts_as_the_windows_that_nobody_came_in() -> None:
    """Who comes after seconds of silence, with many others at once, isn't held to what was measured before."""
    admission, now = overloaded(0.25)
    assert all(admission.admit(now + 5.0, 0.0, 0.25) for _ in range(200))


def test_who_waited_too_long_is_refused_and_who_comes_in_time_is_not() -> None:
    """One long wait, as after a pause of the whole machine, refuses that one request."""
    admission = Admission()
    assert not admission.admit(100.0, 0.2, 0.25)
    assert admission.admit(100.0, 0.0, 0.25)
    assert admission.under_way == 1


def test_busy_is_told_for_a_second_after_a_refusal() -> None:
    """So that others may be held back for so long."""
    admission = Admission()
    assert not admission.is_busy(100.0)
    admission.admit(100.0, 1.0, 0.25)
    assert admission.is_busy(100.9)
    assert not admission.is_busy(101.1)


@dataclass
class Loop:
    """A process of one thread: each turn does what is ready by then, in order. Times in seconds; a decision has five parts, a store between each two."""

    deadline: float
    part: float = 0.00013
    refusal: float = 0.0001
    store: float = 0.001
    admission: Admission = field(default_factory=Admission)
    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    def run(self, arrivals: list[float]) -> None:
        # (when it is ready, its place in line, when it arrived, parts done)
        ready: list[tuple[float, int, float, int]] = [(at, n, at, 0) for n, at in enumerate(arrivals)]
        heapq.heapify(ready)
        now, number = 0.0, len(ready)
        while ready:
            now = max(now, ready[0][0])
            turn = []
            while ready and ready[0][0] <= now:
                turn.append(heapq.heappop(ready))
            for _, _, arrived, done in turn:
                if done == 0 and not self.admission.admit(100.0 + now, now - arrived, self.deadline):
                    now += self.refusal
                    self.refused.append(now - arrived)
                    continue
                now += self.part
                if done == 4:
                    self.admission.leave()
                    self.answered.append(now - arrived)
                else:
                    number += 1
                    heapq.heappush(ready, (now + self.store, number, arrived, done + 1))


def arrivals(rate: float, seconds: float) -> list[float]:
    dice, at, times = random.Random(7), 0.0, []
    while at < seconds:
        at += dice.expovariate(rate)
        times.append(at)
    return times


FITS = 0.8 / (5 * Loop.part)


@pytest.mark.parametrize("deadline", [0.05, 0.1, 0.25, 1.0])
def test_four_times_the_load_that_fits_is_answered_or_refused_in_time(deadline: float) -> None:
    """Nobody waits beyond the deadline by more than 50 ms, nobody for twice the deadline, and what is answered is most of what could be."""
    loop, seconds = Loop(deadline), 10.0
    loop.run(arrivals(4 * FITS, seconds))
    waits = sorted(loop.answered + loop.refused)
    assert waits[int(0.999 * len(waits))] <= deadline + 0.05
    assert waits[-1] <= 2 * deadline
    left_for_decisions = 1.0 - len(loop.refused) / seconds * Loop.refusal
    assert len(loop.answered) / seconds >= 0.8 * left_for_decisions / (5 * Loop.part)


def test_nobody_is_refused_of_the_load_that_fits() -> None:
    """At four fifths of what the process can do, by the default deadline; and at once after an overload."""
    loop = Loop(0.1)
    loop.run(arrivals(FITS, 10.0))
    assert loop.refused == []
    after = Loop(0.1, admission=overloaded(0.1)[0])
    after.run([3.0 + at for at in arrivals(FITS, 10.0)])
    assert after.refused == []


def test_stores_that_stand_still_refuse_nobody() -> None:
    """Who waits for a store until the deadline doesn't wait for the process: at five hundred a second all are begun."""
    loop = Loop(0.25, store=0.05)
    loop.run(arrivals(500.0, 5.0))
    assert loop.refused == []


def test_a_pause_of_the_machine_is_no_overload() -> None:
    """Who came meanwhile has waited, and is begun if it wasn't for too long; nobody who comes afterwards is refused for it."""
    loop = Loop(0.25)
    times = arrivals(0.5 * FITS, 4.0)
    loop.run([2.08 if 2.0 < at < 2.08 else at for at in times])
    assert loop.refused == []
    paused = Admission()
    for number in range(400):
        now = 100.0 + number / 200
        waited = 0.08 - (now - 101.0) if 101.0 <= now < 101.08 else 0.0
        assert paused.admit(now, waited, 0.25)
        paused.leave()
    assert paused.bound == most(0.25)
