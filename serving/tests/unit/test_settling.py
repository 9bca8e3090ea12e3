"""When a worker says that the ledger holds all that was decided before a loss. Kafka, Redis and the ledger are what a test says."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from fraud_contracts.errors import StoreError
from fraud_serving import wholeness
from fraud_serving.clients.ledger_link import Look
from fraud_serving.wholeness import DAY_MS, Mark, Reached
from fraud_serving.worker import settling
from fraud_serving.worker.settling import Committed, Extent, Settling
from fraud_testing import detectors

NOW = 1_795_000_000_000
CONFIG = detectors.detector("unused:9092", partitions=2)
OF = CONFIG.identity
STAGES = len(CONFIG.spec.entities)
STREAM, WORKER = OF.features_group(CONFIG.stream), OF.group("worker")


def test_topics_that_the_ledger_has_not_read_have_no_number() -> None:
    """One made anew is another one than those it knows; without any, and without ids, it is the newest or the first."""
    assert settling._lineage({"x": 0, "y": 1}, "x") == 0
    assert settling._lineage({"x": 0, "y": 1}, "z") is None
    assert settling._lineage({"x": 0, "y": 1}, settling._NO_ID) == 1
    assert settling._lineage({}, "z") == 0


@dataclass
class World:
    """``first`` and ``ends`` are of topics, ``after`` the first offset of the loss or later; ``committed`` is by group. Both partitions are alike.

    ``labels`` is what the stream has committed of them.
    """

    mark: bytes | None = Mark(NOW).pack()
    first: dict[str, int] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)
    committed: dict[str, int] = field(default_factory=dict)
    older: bool = False
    reached: int = 0
    topics: dict[str, int] = field(default_factory=lambda: {"id": 0})
    only_marks: bool = False
    away: bool = False
    labels: int = 0
    asked: int = 0

    # The ledger.
    def has_older(self, before: int) -> bool:
        if self.away:
            raise StoreError("postgres", "away")
        return self.older

    def lineages(self) -> dict[str, int]:
        return self.topics

    def look(self, ids: Any) -> Look:
        return Look({}, {(0, 0): self.reached, (0, 1): self.reached})

    # Redis.
    def mark_and_read(self, mark: Any, keys: list[str]) -> list[bytes | None]:
        return [self.mark]

    def send(self, command: Any) -> list[int]:
        held, new = command[4:]
        if held != (self.mark or b""):
            return [0]
        self.mark = new
        return [1]


class OfWorld(Settling):
    """Asks a world."""

    def __init__(self, world: World) -> None:
        super().__init__(CONFIG, world, world)  # type: ignore[arg-type]  # what of both it calls
        self.world = world

    def _extents(self, noun: str, since: int) -> dict[int, Extent]:
        world = self.world
        world.asked += 1
        return dict.fromkeys(
            (0, 1), Extent(world.first.get(noun, 0), world.ends.get(noun, 0), world.after.get(noun, 0))
        )

    def _committed(self, group: str, nouns: Sequence[str]) -> Committed:
        committed = {"labels": self.world.labels} if "labels" in nouns else {}
        if group in self.world.committed:
            committed |= {noun: self.world.committed[group] for noun in nouns if noun != "labels"}
        return {(noun, at): offset for noun, offset in committed.items() for at in (0, 1)}

    def _topic_id(self) -> str:
        return "id"

    def _may_lack(self, reached: Reached, end: int) -> bool:
        return not self.world.only_marks


def used(**changes: Any) -> World:
    """A detector that had decided payments before the loss, all of which have got to the ledger."""
    world = World(
        ends={"accepted": 10, "features": 20, "decisions": 30},
        committed={STREAM: 10, WORKER: 20},
        older=True,
        reached=30,
    )
    for name, value in changes.items():
        setattr(world, name, value)
    return world


def look(one: OfWorld, checkpoints: int = 8, after: int = 10_000) -> Mark | None:
    """So many checkpoints of the stream, with looks after each."""
    for _ in range(checkpoints):
        one.world.labels += 1
        for _ in range(settling._LONGEST):
            one.step(NOW + after)
    return wholeness.read(one.world.mark)


def settled(world: World, after: int = 10_000) -> Mark | None:
    return look(OfWorld(world), after=after)


def test_a_detector_that_has_decided_nothing_has_lost_nothing() -> None:
    """At once, also where there is no mark yet."""
    for world in (World(), World(mark=None)):
        OfWorld(world).step(NOW)
        assert wholeness.read(world.mark) == Mark(0)


def test_what_waits_for_its_first_worker_was_decided_by_none() -> None:
    """Payments on the topic before any worker has run."""
    assert settled(World(ends={"features": 5}, after={"features": -1}), after=0) == Mark(0)


def test_what_came_after_the_loss_was_not_lost() -> None:
    """A door was quicker than the worker that settles: the first record is of after the mark."""
    world = World(ends={"accepted": 5, "features": 5}, committed={WORKER: 5})
    assert settled(world, after=0) == Mark(0)


BEFORE: dict[str, dict[str, Any]] = {
    "accepted": {"ends": {"accepted": 1}, "after": {"accepted": -1}},
    "accepted, and gone": {"first": {"accepted": 5}, "ends": {"accepted": 5}},
    "decided by a worker": {"ends": {"features": 1}, "after": {"features": -1}, "committed": {WORKER: 1}},
    "in the ledger": {"older": True},
}


@pytest.mark.parametrize("world", BEFORE.values(), ids=BEFORE)
def test_a_detector_that_has_decided_something_may_have_lost_it(world: dict[str, Any]) -> None:
    """By any of the traces that a decision leaves."""
    assert settled(World(**world), after=0) == Mark(NOW)


def test_the_ledger_holds_all_once_everybody_has_got_there() -> None:
    """Its own progress then says how far it must be to be believed."""
    assert settled(used()) == Mark(NOW, (Reached(0, 0, 30), Reached(0, 1, 30)))


@pytest.mark.parametrize(
    "behind",
    [
        {"committed": {STREAM: 9, WORKER: 20}},
        {"committed": {WORKER: 20}},
        {"committed": {STREAM: 10, WORKER: 19}},
        {"reached": 29},
        {"topics": {"another": 0}},
    ],
    ids=["the stream", "a new stream", "the worker", "the sink", "the sink, of a new topic"],
)
def test_nobody_may_be_behind(behind: dict[str, Any]) -> None:
    """Each has to get to where the one before it ended."""
    assert settled(used(**behind)) == Mark(NOW)


def test_what_waits_in_the_streams_state_is_waited_for() -> None:
    """The job is away with inline decisions that a checkpoint holds, and writes their records when it is back, a stage at each start."""
    world = used()
    one = OfWorld(world)
    for _ in range(30):
        one.step(NOW + 10_000)
    assert look(one, STAGES) == Mark(NOW)
    world.ends["features"] = 21
    assert look(one, 2) == Mark(NOW)
    world.committed[WORKER] = 21
    assert look(one, 1) != Mark(NOW)


@pytest.mark.parametrize(
    "goes", [{"labels": 0}, {"committed": {STREAM: 9, WORKER: 20}}], ids=["labels", "accepted"]
)
def test_a_stream_that_goes_back_is_waited_for_anew(goes: dict[str, Any]) -> None:
    """Its newest state couldn't be read: what it has read lately it reads again, and may let it wait again."""
    one = OfWorld(used(labels=5))
    look(one, 1)
    assert look(one, STAGES) == Mark(NOW)
    for name, value in goes.items():
        setattr(one.world, name, value)
    assert look(one, 1) == Mark(NOW)
    one.world.committed[STREAM] = 10
    assert look(one, STAGES) == Mark(NOW)
    assert look(one, 2) != Mark(NOW)


def test_without_inline_decisions_the_stream_is_not_waited_for() -> None:
    """What a worker decided it had read from ``features``; the streaming job may be away."""
    world = used(ends={"features": 20, "decisions": 30}, committed={WORKER: 20})
    assert look(OfWorld(world), 1) != Mark(NOW)


def test_marks_of_transactions_at_the_end_are_no_records() -> None:
    """The sink never gets past them."""
    assert settled(used(reached=29, only_marks=True)) == Mark(NOW, (Reached(0, 0, 29), Reached(0, 1, 29)))


def test_records_that_are_being_appended_are_waited_for() -> None:
    """A request that had its claim just before the loss."""
    assert settled(used(), after=4_999) == Mark(NOW)


def test_ends_are_of_once() -> None:
    """What comes in meanwhile isn't waited for: it has a claim."""
    world = used(committed={STREAM: 10, WORKER: 19})
    one = OfWorld(world)
    look(one)
    world.ends, world.committed[WORKER] = dict.fromkeys(world.ends, 1000), 20
    world.ends["decisions"] = 30
    assert look(one) != Mark(NOW)


def test_another_loss_begins_anew() -> None:
    """The ends of before the first one say nothing of what was decided since."""
    world = used()
    one = OfWorld(world)
    look(one, 1)
    world.mark = Mark(NOW + 9_000).pack()
    assert look(one) == Mark(NOW + 9_000)


def test_a_loss_that_is_settled_or_long_ago_asks_nobody() -> None:
    """The ledger would say that it is away."""
    for mark, now in ((Mark(0), NOW), (Mark(NOW, (Reached(0, 0, 1),)), NOW), (Mark(NOW), NOW + DAY_MS)):
        world = World(mark=mark.pack(), away=True)
        OfWorld(world).step(now)
        assert world.mark == mark.pack()


def test_a_ledger_that_is_away_is_asked_again() -> None:
    """The mark stays as it is."""
    world = World(away=True)
    with pytest.raises(StoreError):
        OfWorld(world).step(NOW)
    assert wholeness.read(world.mark) == Mark(NOW)


def looks(one: OfWorld, steps: int) -> list[int]:
    """Which of so many steps were looks."""
    asked = []
    for step in range(steps):
        before = one.world.asked
        with suppress(StoreError):
            one.step(NOW + 10_000)
        if one.world.asked > before:
            asked.append(step)
    return asked


@pytest.mark.parametrize(
    "world", [{"away": True}, {"ends": {"accepted": 1}, "older": True}], ids=["away", "behind"]
)
def test_what_says_the_same_again_is_asked_less_often(world: dict[str, Any]) -> None:
    """Each half minute at last, whether it doesn't answer or says that it isn't there yet; Redis is asked at each step."""
    one = OfWorld(World(**world))
    looks(one, 1)
    asked = looks(one, 100)
    pauses = [later - earlier for earlier, later in pairwise(asked)]
    assert pauses[:3] == [2, 4, 8] and set(pauses[3:]) == {15}
    one.world.mark = Mark(NOW + 1).pack()
    assert looks(one, 1) == [0]


def test_a_look_that_finds_something_out_is_followed_by_another_at_once() -> None:
    """The stream has got there meanwhile, and the others may have, too."""
    one = OfWorld(used(committed={STREAM: 9, WORKER: 20}))
    looks(one, 100)
    one.world.committed[STREAM] = 10
    first, second, *_ = looks(one, settling._LONGEST + 2)
    assert second == first + 1
