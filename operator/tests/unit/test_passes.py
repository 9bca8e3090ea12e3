"""The queue of a detector's passes goes on, whatever a look at it meets."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from fraud_operator import passes
from fraud_operator.glances import Glance
from fraud_operator.meters import OperatorMeters
from fraud_operator.passes import Passes


@dataclass
class Outcome:
    ready: bool | None = True
    changed: bool = False
    settled: bool = True
    unwatched: bool = False
    overtaken: bool = False


def unchanged(namespace: str, name: str) -> Glance:
    return Glance(differs=False, requests=0)


def operate(
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[[str, str], Any],
    until: Callable[[Passes], Awaitable[object]],
    glance: Callable[[str, str], Glance] = unchanged,
    **more: Any,
) -> None:
    """A queue with one detector, until ``until`` is over."""
    monkeypatch.setattr(passes, "APART", 0.01)
    monkeypatch.setattr(passes, "QUIET", 0.01)

    async def main() -> None:
        queue = Passes(run, OperatorMeters(CollectorRegistry()), glance, **more)
        monkeypatch.setattr(queue.meters, "observed", lambda *_: None)
        queue.start()
        queue.ask("tests", "cards")
        async with asyncio.timeout(20):
            await until(queue)
        await queue.close()

    asyncio.run(main())


async def happens(fact: Callable[[], object]) -> None:
    while not fact():  # noqa: ASYNC110  # most facts come from other threads
        await asyncio.sleep(0.01)


def test_a_glance_that_breaks_costs_no_later_glance(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unforeseen error while a detector is glanced at is logged, and the next glance asks for a pass all the same."""
    monkeypatch.setattr(passes, "GLANCE", 0.01)
    monkeypatch.setattr(passes, "A_SECRET", 0.01)
    glances: list[str] = []
    looks: list[str] = []

    def glance(namespace: str, name: str) -> Glance:
        glances.append(name)
        if len(glances) == 1:
            raise KeyError("data")
        return Glance(differs=True, requests=1)

    def run(namespace: str, name: str) -> Any:
        looks.append(name)
        return Outcome()

    operate(monkeypatch, run, lambda _: happens(lambda: len(looks) >= 2), glance)


def test_many_detectors_are_glanced_at_no_faster_than_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a glance there is a pause for each request of it, however many detectors there are, and each has its turn."""
    monkeypatch.setattr(passes, "GLANCE", 0.01)
    monkeypatch.setattr(passes, "A_SECRET", 0.005)
    moments: list[float] = []
    glanced: set[str] = set()

    def glance(namespace: str, name: str) -> Glance:
        moments.append(time.monotonic())
        glanced.add(name)
        return Glance(differs=False, requests=4)

    async def until(queue: Passes) -> None:
        for number in range(9):
            queue.ask("tests", f"d{number}")
        await happens(lambda: len(glanced) == 10)

    operate(monkeypatch, lambda *_: Outcome(), until, glance)
    assert all(later - earlier > 0.01 for earlier, later in itertools.pairwise(moments))


def test_what_sends_events_is_looked_at_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes that change nothing come less and less often where all that is waited for sends events."""
    monkeypatch.setattr(passes, "SOON", 0.01)
    monkeypatch.setattr(passes, "SELDOM", 0.02)
    moments: list[float] = []

    def run(namespace: str, name: str) -> Any:
        moments.append(time.monotonic())
        return Outcome(settled=False)

    async def until(_: Passes) -> None:
        await happens(lambda: any(later - earlier > 0.2 for earlier, later in itertools.pairwise(moments)))

    operate(monkeypatch, run, until)


def test_what_sends_no_events_is_looked_at_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where something else is waited for passes stay frequent: thirty of them would take hours if they grew rare."""
    monkeypatch.setattr(passes, "SOON", 0.01)
    monkeypatch.setattr(passes, "SELDOM", 0.02)
    looks: list[str] = []

    def run(namespace: str, name: str) -> Any:
        looks.append(name)
        return Outcome(settled=False, unwatched=True)

    operate(monkeypatch, run, lambda _: happens(lambda: len(looks) >= 30))


def test_a_pass_that_was_overtaken_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody tells of a change that was made while its status was written, so the next pass needn't be asked for."""
    looks: list[str] = []

    def run(namespace: str, name: str) -> Any:
        looks.append(name)
        return Outcome(overtaken=len(looks) < 5)

    operate(monkeypatch, run, lambda _: happens(lambda: len(looks) == 5))


def test_nothing_begins_while_another_may_lead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass that was asked for waits until the operator leads."""
    monkeypatch.setattr(passes, "LAPSE", 0.01)
    leads, asked, looks = threading.Event(), [0], []

    def may() -> bool:
        asked[0] += 1
        return leads.is_set()

    def run(namespace: str, name: str) -> Any:
        looks.append(name)
        return Outcome()

    async def until(_: Passes) -> None:
        await happens(lambda: asked[0] > 5)
        assert looks == []
        leads.set()
        await happens(lambda: looks)

    operate(monkeypatch, run, until, leads=may)


def test_a_pass_that_hangs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has run longer than any may is named until it ends; a short one never is."""
    monkeypatch.setattr(passes, "HUNG", 0.05)
    end = threading.Event()

    def run(namespace: str, name: str) -> Any:
        end.wait()
        return Outcome()

    async def until(queue: Passes) -> None:
        await happens(queue.hung)
        assert queue.hung().startswith("the pass of tests/cards has run for ")
        end.set()
        await happens(lambda: not queue.hung())

    operate(monkeypatch, run, until)


@pytest.mark.parametrize("steps", range(4))
def test_a_queue_ends_whatever_comes_at_that_moment(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Something that happens just as the operator is ended leads to no further pass, for which the end would wait."""
    looks: list[str] = []

    def run(namespace: str, name: str) -> Any:
        looks.append(name)
        return Outcome()

    async def until(queue: Passes) -> None:
        await happens(lambda: looks)
        await asyncio.sleep(0.05)
        queue.ask("tests", "cards")
        for _ in range(steps):
            await asyncio.sleep(0)
        await queue.close()

    operate(monkeypatch, run, until)


def test_a_detector_that_was_made_again_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes while the pass runs that finds its detector gone leads to another pass."""
    looks: list[str] = []
    queues: list[Passes] = []

    def run(namespace: str, name: str) -> Any:
        looks.append(name)
        if len(looks) == 1:
            loop.call_soon_threadsafe(queues[0].ask, namespace, name)
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result()
        return Outcome(ready=None)

    async def until(queue: Passes) -> None:
        nonlocal loop
        loop = asyncio.get_running_loop()
        queues.append(queue)
        await happens(lambda: len(looks) == 2)

    loop: Any = None
    operate(monkeypatch, run, until)
