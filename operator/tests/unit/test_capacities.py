"""How often stores are asked, by whom, and what stands while they don't answer."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import replace
from typing import Any

import pytest

from fraud_contracts.errors import StoreError
from fraud_operator.capacities import AGAIN, Capacities, Question, questions
from fraud_operator.capacity import KAFKA, REDIS, WINDOW, Volume
from fraud_operator.detector import Detector
from fraud_operator.kafka_target import KafkaTarget
from fraud_operator.settings import StoreAddresses, TrialServers
from fraud_operator.store_login import LoginRefusedError
from fraud_testing.healthy import make_detector

GIB = 2**30
TARGET = KafkaTarget("b:9093")


class AtOnce(Executor):
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


class Store:
    """Answers what it is told to, and counts."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer: dict[str, Volume] | Exception = {"": Volume(GIB, 2 * GIB)}

    def ask(self) -> dict[str, Volume]:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class World:
    def __init__(self) -> None:
        self.now = 1_000.0
        self.store = Store()
        self.capacities = Capacities(clock=lambda: self.now, pool=AtOnce())
        self.question: Question | tuple[str, str] = Question(REDIS, "one", self.store.ask)

    def look(self) -> Any:
        return self.capacities.answers([self.question])


@pytest.fixture
def world() -> World:
    return World()


def test_a_store_is_asked_once_a_minute_however_many_detectors_use_it(world: World) -> None:
    """Passes come far more often."""
    for _ in range(5):
        world.look()
    assert world.store.asked == 1
    world.now += AGAIN
    world.look()
    assert world.store.asked == 2


def test_a_pass_reads_what_is_known_and_never_waits() -> None:
    """The first one says that the store is being asked."""

    class Never(AtOnce):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            return Future()

    world = World()
    world.capacities.pool = Never()
    fact = world.look()
    assert (fact.asking, fact.rooms, fact.unknown) == (True, (), ())


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({}, "it has no maxmemory"),
        (StoreError("redis", "away"), "it gives no answer"),
        (LoginRefusedError("redis", "NOPERM"), "the login may not ask"),
        (RuntimeError("a fault of ours"), "it gives no answer"),
    ],
)
def test_why_nothing_is_known_is_said(world: World, answer: Any, why: str) -> None:
    """In words that stay the same, whatever the store's own are."""
    world.store.answer = answer
    world.look()
    assert world.look().unknown == (("Redis", why),)


def test_a_store_that_falls_silent_stays_as_it_was_seen_for_an_hour(world: World) -> None:
    """Then nothing is known of it."""
    world.look()
    world.store.answer = StoreError("redis", "away")
    world.now += WINDOW
    world.look()
    assert [room.percent for room in world.look().rooms] == [50]
    world.now += AGAIN
    world.look()
    fact = world.look()
    assert (fact.rooms, fact.unknown) == ((), (("Redis", "it gives no answer"),))


def test_a_volume_that_a_store_no_longer_has_is_forgotten(world: World) -> None:
    """As a broker's that is gone."""
    world.store.answer = {"a": Volume(1, 2), "b": Volume(1, 2)}
    world.look()
    world.store.answer = {"b": Volume(1, 2)}
    world.now += AGAIN
    world.look()
    assert [room.name for room in world.look().rooms] == ["b"]


def test_growth_leads_to_a_warning(world: World) -> None:
    """Of a store that is half full, by its readings over a quarter of an hour."""
    for minute in range(16):
        world.store.answer = {"": Volume(GIB + minute * GIB // 60, 2 * GIB)}
        world.look()
        world.now += AGAIN
    [room] = world.look().rooms
    assert (room.warned, room.hours) == (True, 0)


def test_what_nobody_asks_about_is_let_go(world: World) -> None:
    """A detector that is gone was perhaps the last that used the store."""
    world.look()
    world.question = Question(REDIS, "another", world.store.ask)
    world.now += 1_000
    world.look()
    assert len(world.capacities._kept) == 1


def of(detector: Detector, target: KafkaTarget | None = TARGET) -> dict[str, str]:
    """By store why it isn't asked; "asked" where it is."""
    found = questions(detector, target)
    return dict((one.kind.title, "asked") if isinstance(one, Question) else one for one in found)


def test_the_platforms_stores_and_the_detectors_kafka_are_asked() -> None:
    """PostgreSQL only where somebody knows how large its disk is."""
    assert of(make_detector()) == {
        "Redis": "asked",
        "Kafka": "asked",
        "PostgreSQL": "nobody says how large its disk is",
    }


def test_a_store_that_the_spec_names_is_not_asked() -> None:
    """The operator doesn't log in there."""
    own = {"redis": {"secretRef": {"name": "r"}}, "postgres": {"secretRef": {"name": "p"}}}
    found = of(make_detector(stores=own))
    assert (found["Redis"], found["PostgreSQL"]) == ("the spec names its own",) * 2


def test_a_kafka_that_cannot_be_reached_yet_is_left_out() -> None:
    """KafkaReady tells of it."""
    assert "Kafka" not in of(make_detector(), None)


@pytest.mark.parametrize(
    ("dsn", "volume", "known"),
    [
        ("postgresql://u:p@r-postgres.fp.svc:5432/fraud", "8Gi", True),
        ("postgresql://u:p@r-postgres.fp.svc:5432/fraud", "", False),
        ("postgresql://u:p@db.example:5432/fraud", "8Gi", False),
        ("no address: at all", "8Gi", False),
    ],
)
def test_the_trials_postgresql_is_asked_where_it_has_a_volume(dsn: str, volume: str, known: bool) -> None:
    """A PostgreSQL of one's own isn't taken for it, though the trial's is enabled, too."""
    servers = TrialServers(secret="s", hosts={"POSTGRES": ("r-postgres.fp.svc",)}, volume=volume)
    detector = make_detector()
    platform = detector.platform.model_copy(
        update={"servers": servers, "stores": StoreAddresses(redis_url="redis://r", postgres_dsn=dsn)}
    )
    assert (of(replace(detector, platform=platform))["PostgreSQL"] == "asked") is known


@pytest.mark.parametrize(
    ("text", "size"),
    [("8Gi", 8 * GIB), ("1.5Ti", 3 * 2**39), ("500G", 500 * 10**9), ("", None), ("8 gigs", None)],
)
def test_a_volumes_size_is_read_as_kubernetes_writes_it(text: str, size: int | None) -> None:
    """What can't be read counts as unknown."""
    assert TrialServers(volume=text).volume_bytes == size


def test_detectors_of_one_kafka_share_its_answers(world: World) -> None:
    """The key is address and login."""
    first = Question(KAFKA, KafkaTarget("b:9093"), world.store.ask)
    second = Question(KAFKA, KafkaTarget("b:9093"), world.store.ask)
    assert first == second
    world.capacities.answers([first])
    world.capacities.answers([second])
    assert world.store.asked == 1
