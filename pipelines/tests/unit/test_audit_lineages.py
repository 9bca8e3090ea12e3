"""The audit over several lives of a stream: each vector is made again from its own lineage's seeds and events."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_contracts.detector import parse_spec
from fraud_contracts.names import profile_key
from fraud_pipelines.audit import audit
from fraud_pipelines.features import FeatureSet, compile_detector
from fraud_pipelines.replay import replay
from fraud_testing import histories

EVENT = {"id": {"field": "id"}, "time": {"field": "t"}, "amount": {"field": "a"}}
ENTITIES = [
    {"name": "customer", "field": "c"},
    {"name": "counterparty", "field": "m", "labelDelay": "1h"},
]
BASE = {"event": EVENT, "entities": ENTITIES}
A = compile_detector(parse_spec(BASE))
START, MINUTE = 1_700_000_000_000, 60_000
PARTITIONS = 3


B = compile_detector(parse_spec({**BASE, "entities": [ENTITIES[0], {**ENTITIES[1], "labelDelay": "2h"}]}))


def event(number: int, dice: random.Random) -> dict[str, Any]:
    """Its place in the topic is ``number``; its time may be some minutes earlier than that of the one before it."""
    return {
        "id": f"e{number}",
        "time": START + (number - dice.choice((0, 0, 0, 1, 2))) * MINUTE + number,
        "amount": 100 + dice.randrange(1000),
        "currency": None,
        "entities": {"customer": f"c{number % 2}", "counterparty": f"m{number % 3}"},
        "fields": {},
    }


def mixed(numbers: Iterable[int], dice: random.Random) -> list[int]:
    """As sources read them: each partition in its order, partitions in any, none far ahead."""
    queues = [[one for one in numbers if one % PARTITIONS == rest] for rest in range(PARTITIONS)]
    out: list[int] = []
    while any(queues):
        head = min(queue[0] for queue in queues if queue)
        queue = dice.choice([one for one in queues if one and one[0] <= head + 5])
        out.append(queue.pop(0))
    return out


@dataclass
class World:
    """Topics and the jobs that read them, of one after the other lineage."""

    dice: random.Random
    count: int
    topics: int = 1
    events: list[dict[str, Any]] = field(init=False)
    records: list[dict[str, Any]] = field(default_factory=list)
    seeds: dict[str, list[bytes]] = field(default_factory=dict)
    labels: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.events = [event(number, self.dice) for number in range(self.count)]

    def report(self, number: int, known: int, fraud: bool = True) -> None:
        """A label of the event ``number``, which the topic has when the event ``known`` comes."""
        body = self.events[number]
        label = {"fraud": fraud, "source": "chargeback", "claimed": 0, "known": self.events[known]["time"]}
        parts = {name: body[name] for name in ("id", "time", "entities")}
        self.labels.append({**parts, **label, "at": [known, 0, len(self.labels)]})

    def label(self, engine: FeatureSet, states: dict[str, bytes], number: int, epoch: int) -> None:
        """Applies the labels that come with an event."""
        for one in self.labels:
            if one["at"][0] == number:
                key = profile_key(engine.hash6, "counterparty", one["entities"]["counterparty"])
                states[key] = engine.stage("counterparty").label(states.get(key), one, epoch)

    def train(self, engine: FeatureSet, end: int) -> dict[str, bytes]:
        """Seeds of all before ``end``, by time."""
        labels = [one for one in self.labels if one["at"][0] < end]
        history = replay(engine, sorted(self.events[:end], key=lambda one: one["time"]), labels)
        for _ in history:
            pass
        seeds = dict(history.profiles(1))
        for key, profile in seeds.items():
            self.seeds.setdefault(key, []).append(profile)
        return seeds

    def run(
        self,
        engine: FeatureSet,
        epoch: int,
        states: Mapping[str, bytes],
        numbers: Iterable[int],
        emits_from: int,
    ) -> dict[str, bytes]:
        """A job that goes on from these states and writes records from an offset on; its states when it ends."""
        states, run = dict(states), f"{epoch}-{len(self.records)}"
        for number in mixed(numbers, self.dice):
            body = self.events[number]
            self.label(engine, states, number, epoch)
            keys = {name: profile_key(engine.hash6, name, token) for name, token in body["entities"].items()}
            present = {name: states[key] for name, key in keys.items() if key in states}
            vector, new, saw = engine.observe(present, body, epoch)
            states.update({keys[name]: state for name, state in new.items()})
            if number >= emits_from:
                self.emit(engine, body, vector, saw, number, run)
        return states

    def emit(self, engine: FeatureSet, body: Any, vector: Any, saw: Any, number: int, run: str) -> None:
        place = len(self.records)
        self.records.append(
            {
                "event": body,
                "set": engine.hash,
                "vector": [None if value != value else value for value in vector],
                "saw": {name: [epoch, seq, f"{digest:016x}"] for name, (epoch, seq, digest) in saw.items()},
                "repeat": False,
                "run": run,
                "source": {
                    "topic": f"t{number // 6 % self.topics}",
                    "partition": number % PARTITIONS,
                    "offset": number,
                },
                "at": [START + place, 0, place],
            }
        )

    def decisions(self) -> list[dict[str, Any]]:
        """The first emission of each id, as the worker decides it."""
        first: dict[str, dict[str, Any]] = {}
        for one in self.records:
            first.setdefault(one["event"]["id"], one)
        parts = ("event", "set", "vector", "saw", "source")
        return [
            {"id": name, "door": "stream", **{part: one[part] for part in parts}}
            for name, one in first.items()
        ]

    def audited(self, *engines: FeatureSet) -> dict[str, Any]:
        return audit(engines or [A], self.seeds, self.decisions(), self.records, self.labels)


def clean(result: Mapping[str, Any]) -> None:
    assert (result["differing"], result["unreproducible"], result["why"]) == (0, 0, {})
    assert result["equal"] == result["compared"] > 0


def lives(world: World, ends: tuple[int, int, int, int, int]) -> None:
    """Without seeds; with seeds of a training at ``starts_at``; another set; back from its own state."""
    starts_at, first, second, other, last = ends
    world.run(A, 1, {}, range(first), 0)
    seeds = world.train(A, starts_at)
    # Written again: what the first may have held back.
    states = world.run(A, 2, restarted(seeds, 2), range(starts_at, second), max(0, first - 20))
    world.run(B, 3, {}, range(other), second)
    world.run(A, 2, states, range(second, last), other)


def restarted(seeds: Mapping[str, bytes], epoch: int) -> dict[str, bytes]:
    """Seeds as a job of this generation takes them."""
    states = {}
    for key, profile in seeds.items():
        state = A.stage(key.split(":")[1]).open(profile)
        state.epoch = epoch
        states[key] = state.dump()
    return states


@given(
    st.lists(st.integers(1, 120), min_size=5, max_size=5).map(
        lambda steps: tuple(itertools.accumulate(steps))
    ),
    st.integers(0, 2**32),
)
@histories.many()
def test_every_decision_of_every_lineage_is_made_again(
    ends: tuple[int, int, int, int, int], seed: int
) -> None:
    """Whatever each life's length, and whatever order partitions come in: none differs, none is lost."""
    world = World(random.Random(seed), ends[-1])
    lives(world, ends)
    result = world.audited(A, B)
    clean(result)
    assert result["emitted_twice"] >= 0 == result["other_feature_set"]


def test_hundreds_of_events_taken_in_silence_are_found() -> None:
    """Ten times as many as the solver chooses from."""
    world = World(random.Random(7), 1900)
    lives(world, (300, 800, 900, 1700, 1900))
    clean(world.audited())


def test_labels_that_came_in_silence_are_found() -> None:
    """Between two states in evidence lie events and labels; a corrected one counts with what it takes back."""
    world = World(random.Random(12), 700)
    for number, known in (
        (5, 40),
        (50, 90),
        (91, 150),
        (210, 260),
        (220, 300),
        (410, 430),
        (420, 470),
        (505, 640),
    ):
        world.report(number, known)
    world.report(50, 240, fraud=False)
    lives(world, (100, 250, 400, 550, 700))
    clean(world.audited())
    clean(world.audited(B))


def test_seeds_of_other_trainings_are_no_lineages() -> None:
    """Whoever wrote them: a state is made of those that its digest holds, and of no others."""
    world = World(random.Random(8), 400)
    for end in (50, 120, 390):
        world.train(A, end)
    lives(world, (100, 200, 250, 330, 400))
    clean(world.audited())


def test_the_events_that_a_topic_made_anew_has_lost_are_not_looked_for() -> None:
    """A job without state finds those of the other topic alone, many more than the solver chooses from."""
    world = World(random.Random(10), 460, topics=2)
    world.run(A, 1, {}, range(400), 0)
    kept = [number for number in range(400) if not number // 6 % 2]
    world.run(A, 2, {}, [*kept, *range(400, 460)], 400)
    clean(world.audited())


def test_a_topic_made_anew_counts_nothing_as_emitted_twice() -> None:
    """Other payments have the same offsets in it."""
    world = World(random.Random(9), 60)
    world.run(A, 1, {}, range(30), 0)
    first = len(world.records)
    world.run(A, 2, {}, range(30, 60), 0)
    for number, one in enumerate(world.records[first:]):
        one["source"]["offset"], one["source"]["partition"] = number, number % PARTITIONS
    result = world.audited()
    clean(result)
    assert (result["emitted_twice"], result["first_emission"]) == (0, {"kept": 60})


def test_an_event_that_lacks_a_declared_field_is_not_borrowed() -> None:
    """Of another set's record nobody knows what the field held: those vectors are lost, and none is made up."""
    fields = [{"name": "kind", "type": "string"}]
    declares = compile_detector(parse_spec({**BASE, "event": {**EVENT, "fields": fields}}))
    world = World(random.Random(10), 300)
    for body in world.events[:100] + world.events[200:]:
        body["fields"] = {"kind": None}
    states = world.run(declares, 1, {}, range(100), 0)
    world.run(B, 2, {}, range(200), 100)
    world.run(declares, 1, states, range(100, 300), 200)
    result = world.audited(declares)
    assert result["differing"] == 0 and result["unreproducible"] > 0


def answered_inline(
    world: World, engine: FeatureSet, states: Mapping[str, bytes], number: int, parity: str
) -> list[dict[str, Any]]:
    """The decisions, of which one was answered by these profiles before the stream emitted it."""
    body = world.events[number]
    present = {
        name: states[profile_key(engine.hash6, name, token)] for name, token in body["entities"].items()
    }
    vector, _, saw = engine.observe(present, body)
    decisions = world.decisions()
    [mine] = (one for one in decisions if one["id"] == body["id"])
    streamed = {part: mine[part] for part in ("set", "vector", "saw")}
    shown = {name: [at, seq, f"{digest:016x}"] for name, (at, seq, digest) in saw.items()}
    mine |= {"door": "inline", "vector": [None if v != v else v for v in vector], "saw": shown}
    mine |= {"set": engine.hash, "streamed": streamed, "parity": parity}
    return decisions


@pytest.mark.parametrize("epoch", [1, 2])
def test_an_inline_vector_of_an_older_lineages_profile_is_made_again(epoch: int) -> None:
    """The service saw what Redis held: a profile of the lineage before, while the new one was being built in silence."""
    world = World(random.Random(11), 200)
    states = world.run(A, 1, {}, range(150), 0)
    seeds = world.train(A, 60)
    seen = states if epoch == 1 else world.run(A, 2, restarted(seeds, 2), range(60, 150), 150)
    world.run(A, 2, restarted(seeds, 2), range(60, 200), 140)
    clean(audit([A], world.seeds, answered_inline(world, A, seen, 151, "stale"), world.records))


def test_each_vector_is_compared_by_the_set_that_it_is_of() -> None:
    """An answer by one set, of a payment that the job of the next one emitted."""
    world = World(random.Random(13), 200)
    states = world.run(A, 1, {}, range(150), 0)
    world.run(B, 2, {}, range(200), 150)
    decisions = answered_inline(world, A, states, 151, "none")
    result = audit([A, B], world.seeds, decisions, world.records)
    clean(result)
    assert (result["compared"], result["first_emission"]) == (201, {"kept": 200})
    assert audit([A], world.seeds, decisions, world.records)["other_feature_set"] == 50
