"""An event decided inline waits for those that its decision saw first, whatever order two partitions bring them in."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from fraud_contracts.lineage import NO_STATE, Beginning
from fraud_flink.elements import EventElement, LabelElement, Packed, SeedElement, unpack
from fraud_flink.functions import (
    BEFORE_SEED,
    PROFILES,
    SEEDING_MS,
    STATE,
    WAIT_MS,
    WAITING_MAX,
    EntityFunction,
)
from fraud_flink.intake import Intake
from fraud_pipelines.dead_letter_cipher import DeadLetterCipher
from fraud_pipelines.events import Tokeniser
from fraud_pipelines.features import compile_detector
from fraud_testing import detectors

NOW = 1_795_000_000_000
CONFIG = detectors.detector("unused:9092")
INTAKE = Intake(
    CONFIG, Tokeniser(b"0" * 32), DeadLetterCipher("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
)
ENGINE = compile_detector(CONFIG.spec)


class State:
    """One key's value state."""

    def __init__(self) -> None:
        self.held: bytes | None = None

    def value(self) -> bytes | None:
        return self.held

    def update(self, value: bytes) -> None:
        self.held = value

    def clear(self) -> None:
        self.held = None


class ListState:
    """One key's list state."""

    def __init__(self) -> None:
        self.held: list[Any] = []

    def get(self) -> Iterator[Any]:
        return iter(list(self.held))

    def add(self, value: Any) -> None:
        self.held.append(value)

    def clear(self) -> None:
        self.held = []


class Context:
    """Flink's contexts, for one key whose clock the test turns."""

    def __init__(self) -> None:
        self.now, self.timers, self.states = NOW, list[int](), dict[str, State]()
        self.lists = dict[str, ListState]()

    def get_list_state(self, descriptor: Any) -> ListState:
        return self.lists.setdefault(descriptor.name, ListState())

    def get_state(self, descriptor: Any) -> State:
        return self.states.setdefault(descriptor.name, State())

    def get_current_key(self) -> str:
        return "tm1"

    def timer_service(self) -> Context:
        return self

    def current_processing_time(self) -> int:
        return self.now

    def register_processing_time_timer(self, at: int) -> None:
        self.timers.append(at)


@pytest.fixture
def context() -> Context:
    return Context()


Begin = Callable[..., EntityFunction]


@pytest.fixture
def begin(context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Begin:
    """Another attempt of a job with this beginning, started at that time."""
    monkeypatch.setenv("FRAUD_CONFIG", str(detectors.write(CONFIG, tmp_path)))

    def new(beginning: Beginning = NO_STATE, started: int = NOW) -> EntityFunction:
        monkeypatch.setattr("time.time", lambda: started / 1000)
        function = EntityFunction(1, last=True, beginning=beginning)
        function.open(context)  # type: ignore[arg-type]  # a fake of RuntimeContext
        return function

    return new


@pytest.fixture
def stage(begin: Begin) -> EntityFunction:
    return begin()


SEEDED = Beginning(seeds="abcdef01")


def elements(count: int) -> list[Packed]:
    """Events of one merchant as the inline door decided them: each saw all before it."""
    packed: list[Packed] = []
    state: bytes | None = None
    for i in range(count):
        event = one_event(i)
        state_before = ENGINE.stage("counterparty").open(state, CONFIG.epoch)
        epoch, seq, digest = state_before.saw
        state_before.observe(event)
        state = state_before.dump()
        saw = {"customer": [1, 0, "0" * 16], "counterparty": [epoch, seq, f"{digest:016x}"]}
        record = {"event": event, "hash": "h", "decision": {"id": event["id"], "saw": saw}}
        source: Any = {"topic": "t", "partition": 0, "offset": i}
        element = INTAKE.accepted(orjson.dumps(record), source, NOW)
        assert isinstance(element, EventElement)
        element.values["customer"] = [0.0] * ENGINE.stages[0].width
        packed.append(element.packed())
    return packed


def one_event(i: int) -> Any:
    return {
        "id": f"e{i}",
        "time": NOW + i,
        "amount": 100,
        "currency": "EUR",
        "entities": {"customer": f"c{i}", "counterparty": "m1"},
        "fields": {"category": None},
    }


def features(out: Iterator[Any]) -> list[dict[str, Any]]:
    """The feature records among what a call gave."""
    rows = [one for one in out if not (isinstance(one, tuple) and one[0] is PROFILES)]
    return [orjson.loads(row["v"]) for row in rows]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_any_order_comes_out_as_the_decisions_saw_it(
    stage: EntityFunction, context: Context, order: tuple[int, ...]
) -> None:
    """Each record has exactly what its decision saw, once all are there, and none is lost or doubled."""
    packed = elements(4)
    out = [one for i in order for one in features(stage.process_element(packed[i], context))]
    assert [one["event"]["id"] for one in out] == ["e0", "e1", "e2", "e3"]
    for one in out:
        assert one["saw"]["counterparty"] == one["decision"]["saw"]["counterparty"]
    assert context.states["waiting-v1"].held is None
    assert [one for at in context.timers for one in features(stage.on_timer(at, context))] == []


def test_it_waits_no_longer_than_it_must(stage: EntityFunction, context: Context) -> None:
    """What never comes is not waited for beyond the timer; then all go on, the one that saw least first."""
    packed = elements(4)
    assert features(stage.process_element(packed[3], context)) == []
    context.now += 10
    assert features(stage.process_element(packed[2], context)) == []
    assert context.timers[0] == NOW + WAIT_MS
    out = features(stage.on_timer(context.timers[0], context))
    assert [one["event"]["id"] for one in out] == ["e2", "e3"]
    assert features(stage.process_element(packed[0], context))[0]["event"]["id"] == "e0"


def test_a_restart_keeps_what_waits(stage: EntityFunction, begin: Begin, context: Context) -> None:
    """The waiting are in the key's state: another attempt's timer finds them."""
    packed = elements(2)
    assert features(stage.process_element(packed[1], context)) == []
    again = begin()
    assert [one["event"]["id"] for one in features(again.on_timer(context.timers[0], context))] == ["e1"]


def test_what_waits_and_cannot_be_read_does_not_stop_the_stream(
    stage: EntityFunction, context: Context, caplog: pytest.LogCaptureFixture
) -> None:
    """Bytes of a key that are no list of events are dropped with an error: read again after each restart, they would end it."""
    packed = elements(3)
    context.states["waiting-v1"].held = b"rubbish"
    assert features(stage.process_element(packed[1], context)) == []
    assert "can't be read" in caplog.text
    out = features(stage.process_element(packed[0], context))
    assert [one["event"]["id"] for one in out] == ["e0", "e1"]
    context.states["waiting-v1"].held = b"rubbish"
    assert features(stage.on_timer(context.timers[0], context)) == []
    assert context.states["waiting-v1"].held is None


def test_no_more_wait_than_the_bound(stage: EntityFunction, context: Context) -> None:
    """A key whose state was lost doesn't gather its traffic: beyond the bound events go on at once."""
    packed = elements(WAITING_MAX + 2)
    out = [one for element in packed[1:] for one in features(stage.process_element(element, context))]
    assert out[0]["event"]["id"] == f"e{WAITING_MAX + 1}"
    assert len(out) == WAITING_MAX + 1


def test_a_stream_event_never_waits(stage: EntityFunction, context: Context) -> None:
    """Only a decision says what it saw."""
    element = unpack(elements(2)[1])
    assert isinstance(element, EventElement)
    element.decision = None
    assert len(features(stage.process_element(element.packed(), context))) == 1


def test_what_was_written_before_is_not_written_again(context: Context, begin: Begin) -> None:
    """A job that emits from an offset takes the records before it into its state and writes no feature record of them."""
    function = begin(Beginning(emits_from={"accepted": {0: 2}, "transactions": {0: 9}}))
    topic = CONFIG.identity.topic("accepted")
    out = []
    for packed in elements(4):
        element = unpack(packed)
        assert isinstance(element, EventElement)
        element.source["topic"] = topic
        out += features(function.process_element(element.packed(), context))
    assert [one["event"]["id"] for one in out] == ["e2", "e3"]
    assert [one["saw"]["counterparty"][1] for one in out] == [2, 3]


def test_a_silent_job_writes_profiles_only(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another job's feature records are decided, it takes all into its state and its profiles, wherever it would write from."""
    monkeypatch.setenv("FRAUD_CONFIG", str(detectors.write(CONFIG, tmp_path)))
    silent = Beginning(emits_from={"accepted": {0: 2}}, silent=True)
    function = EntityFunction(1, last=True, beginning=silent)
    function.open(context)  # type: ignore[arg-type]  # a fake of RuntimeContext
    for packed in elements(4):
        out = list(function.process_element(packed, context))
        assert features(iter(out)) == [] and len(out) == 1


@pytest.mark.parametrize("before", range(5))
def test_a_seed_may_come_after_what_follows_it(context: Context, begin: Begin, before: int) -> None:
    """Seeds and inputs are read at the same time: whichever come first, a key ends in the one state, and later keeps nothing."""
    function = begin(SEEDED)
    state = ENGINE.stages[1].open(None, CONFIG.epoch)
    for i in range(300):
        state.observe({**one_event(i), "time": NOW - 1_000_000 + i, "id": f"old-{i}"})
    seed = state.dump()
    label: Any = {
        "id": "old-7",
        "time": NOW - 1_000_000 + 7,
        "fraud": True,
        "known": NOW,
        "entities": {"counterparty": "m1"},
    }
    follows = [*elements(4)[:3], LabelElement("counterparty", label).packed(), elements(4)[3]]
    for packed in follows:
        element = unpack(packed)
        if isinstance(element, EventElement):
            state.observe(element.event)
        elif isinstance(element, LabelElement):
            state.label(label)
    ours = SeedElement("counterparty", "m1", seed).packed()
    for packed in [*follows[:before], ours, *follows[before:], ours]:
        element = unpack(packed)
        if isinstance(element, EventElement):
            element.decision = None
        list(function.process_element(element.packed(), context))
    assert context.states[STATE].held == state.dump()
    assert context.lists[BEFORE_SEED].held == []


def test_what_waits_for_a_seed_that_never_comes_goes(context: Context, begin: Begin) -> None:
    """A key that no seed is of keeps what came to it for as long as seeds are read, and no longer."""
    function = begin(SEEDED)
    list(function.process_element(elements(1)[0], context))
    assert len(context.lists[BEFORE_SEED].held) == 1
    context.now += SEEDING_MS
    assert context.timers == [context.now]
    list(function.on_timer(context.now, context))
    assert context.lists[BEFORE_SEED].held == []
    list(function.process_element(elements(2)[1], context))
    assert context.lists[BEFORE_SEED].held == []


def test_what_waits_for_a_seed_goes_after_a_restart_too(context: Context, begin: Begin) -> None:
    """The time is the key's own: another attempt, which waits longer for others, keeps nothing of it beyond that."""
    for started in (NOW, NOW + SEEDING_MS - 1):
        function = begin(SEEDED, started)
        if started == NOW:
            list(function.process_element(elements(1)[0], context))
    context.now = NOW + SEEDING_MS
    list(function.on_timer(context.now, context))
    list(function.process_element(elements(2)[1], context))
    assert context.lists[BEFORE_SEED].held == []


def test_an_event_that_was_held_back_is_there_for_the_seed_too(context: Context, begin: Begin) -> None:
    """One that waited for others of its key comes after the seed, wherever it was applied."""
    function = begin(SEEDED)
    state = ENGINE.stages[1].open(None, CONFIG.epoch)
    state.observe({**one_event(0), "time": NOW - 1_000_000, "id": "old"})
    seed = SeedElement("counterparty", "m1", state.dump()).packed()
    first, second = elements(2)
    for packed in (second, first, seed):
        list(function.process_element(packed, context))
    state.observe(one_event(0))
    state.observe(one_event(1))
    assert context.states[STATE].held == state.dump()


def test_a_busy_key_goes_on_without_its_seed(
    context: Context, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its state holds no more than the bound, and a seed that would lack what came refuses itself."""
    monkeypatch.setattr("fraud_flink.functions.BEFORE_SEED_MAX", 2)
    function = begin(SEEDED)
    for packed in elements(4):
        list(function.process_element(packed, context))
    assert context.lists[BEFORE_SEED].held == []
    before = context.states[STATE].held
    seed = ENGINE.stages[1].open(None, CONFIG.epoch)
    seed.observe({**one_event(0), "id": "old"})
    list(function.process_element(SeedElement("counterparty", "m1", seed.dump()).packed(), context))
    assert context.states[STATE].held == before
