"""What the loop promises without a broker: a store that is away is waited for, Kafka for a while, and there is an end where a retry can't help."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from fraud_contracts.errors import StoreError
from fraud_process.kafka import KafkaAccess
from fraud_sinks.loop import PATIENCE_SECONDS, Loop, Reading
from fraud_sinks.meters import Meters
from fraud_sinks.outage import ATTEMPTS, LONGEST_PAUSE, Outage
from fraud_sinks.records import Place, Record, StoreLostError, TopicRecreatedError
from fraud_sinks.topics import TopicIds


class Nowhere:
    """A writer that is never called here."""

    def start(self, places: Sequence[Place]) -> Mapping[Place, int]:
        return {}

    def write(self, records: Sequence[Record]) -> int:
        return len(records)

    def caught_up(self, place: Place, following: int) -> None: ...

    def tick(self) -> None: ...

    def close(self) -> None: ...


def make() -> tuple[Loop, list[float]]:
    pauses: list[float] = []
    loop = Loop(
        Reading(KafkaAccess("nowhere:1"), ("t",), "g"), Nowhere(), Meters("d", "s"), pause=pauses.append
    )
    return loop, pauses


def failing(times: int, error: StoreError) -> tuple[Callable[[], str], list[int]]:
    calls: list[int] = []

    def call() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return "done"

    return call, calls


def test_a_broker_that_comes_back_is_waited_for() -> None:
    """Pauses double up to a bound, so a restart of a broker, a minute and more, is bridged."""
    loop, pauses = make()
    call, _ = failing(ATTEMPTS - 1, StoreError("kafka", "down"))
    assert loop._with_retries(call) == "done"
    assert pauses == sorted(pauses)
    assert max(pauses) <= LONGEST_PAUSE
    assert 100 < sum(pauses) < 150


def test_a_broker_that_stays_away_ends_the_process() -> None:
    """After the last attempt the error goes up: a new client may find what this one doesn't."""
    loop, _ = make()
    call, calls = failing(100, StoreError("kafka", "down"))
    with pytest.raises(StoreError):
        loop._with_retries(call)
    assert len(calls) == ATTEMPTS


@pytest.mark.parametrize("error", [StoreLostError("redis", "empty"), TopicRecreatedError("kafka", "anew")])
def test_lost_data_are_not_retried(error: StoreError) -> None:
    """Trying again can't bring them back; starting anew does."""
    with pytest.raises(type(error)):
        Outage(endless=True).failed(error)


@pytest.mark.parametrize(("store", "endless"), [("kafka", True), ("lake", False)])
def test_an_end_comes_to_waiting_for_kafka_and_to_a_rebuild(store: str, endless: bool) -> None:
    """Both end after two minutes: the process is started anew, or somebody looks at what he has started."""
    outage = Outage(endless)
    with pytest.raises(StoreError):
        for _ in range(ATTEMPTS):
            outage.failed(StoreError(store, "down"))
    assert outage.attempts == ATTEMPTS


def test_a_store_is_waited_for_without_end() -> None:
    """After hours it is still asked every few seconds, and an end of the outage takes all of it back."""
    now = [0.0]
    outage = Outage(endless=True, clock=lambda: now[0])
    for _ in range(5_000):
        outage.failed(StoreError("postgres", "down"))
        assert not outage.is_due
        now[0] += outage.pause
        assert outage.is_due
    assert (outage.pause, round(outage.seconds / 3600)) == (LONGEST_PAUSE, 7)
    outage.over()
    assert (outage.is_due, outage.seconds, outage.pause) == (True, 0.0, 0.0)


class Away(Nowhere):
    """A store that fails while ``away``; ``written`` are the offsets that it has."""

    def __init__(self) -> None:
        self.away, self.written, self.ticks = False, list[int](), 0

    def write(self, records: Sequence[Record]) -> int:
        self._answer()
        self.written += [record.offset for record in records]
        return len(records)

    def tick(self) -> None:
        self._answer()
        self.ticks += 1

    def _answer(self) -> None:
        if self.away:
            raise StoreError("lake", "down")


class Member:
    """A consumer with one partition: whether it is paused, and what it has committed."""

    def __init__(self) -> None:
        self.paused, self.committed = False, list[int]()

    def assignment(self) -> list[TopicPartition]:
        return [TopicPartition("t", 0)]

    def pause(self, _: Sequence[TopicPartition]) -> None:
        self.paused = True

    def resume(self, _: Sequence[TopicPartition]) -> None:
        self.paused = False

    def commit(self, offsets: Sequence[TopicPartition], asynchronous: bool) -> None:
        self.committed += [one.offset for one in offsets]


@pytest.fixture
def waiting() -> tuple[Loop, Away, Member, list[float]]:
    """A loop whose store has just gone away with a batch in hand; the last is its clock."""
    store, member, now = Away(), Member(), [0.0]
    loop = Loop(Reading(KafkaAccess("nowhere:1"), ("t",), "g", linger=0), store, Meters("d", "s"))
    loop._outage = Outage(endless=True, clock=lambda: now[0])
    loop._ids = TopicIds(None)  # type: ignore[arg-type]  # it asks nobody here
    loop._ready.set()
    loop._pending, store.away = [Record("t", 0, 7, 0, b"k", b"v")], True
    loop._work(member, False)  # type: ignore[arg-type]  # a fake of Consumer
    return loop, store, member, now


def test_while_its_store_is_away_a_sink_reads_nothing(
    waiting: tuple[Loop, Away, Member, list[float]],
) -> None:
    """What it has in hand is written once the store is back, then committed, and reading goes on."""
    loop, store, member, now = waiting
    assert member.paused and store.written == []
    for _ in range(1_000):
        now[0] += LONGEST_PAUSE
        loop._work(member, False)  # type: ignore[arg-type]  # a fake of Consumer
    assert member.paused and store.written == []
    store.away = False
    now[0] += LONGEST_PAUSE
    loop._work(member, False)  # type: ignore[arg-type]  # a fake of Consumer
    assert (store.written, member.committed, member.paused, store.ticks) == ([7], [8], False, 1)


def test_a_sink_whose_store_is_away_for_long_is_alive_and_not_ready(
    waiting: tuple[Loop, Away, Member, list[float]],
) -> None:
    """A short outage is nobody's matter; of a long one Kubernetes knows, and starts nothing anew."""
    loop, _, _, now = waiting
    assert loop.ready()
    now[0] += PATIENCE_SECONDS
    assert loop.alive() and not loop.ready()


def test_a_batch_that_cant_be_written_is_left_to_the_next_owner(
    waiting: tuple[Loop, Away, Member, list[float]],
) -> None:
    """A revocation waits for no store: nothing was committed, so whoever owns the partition then reads it again."""
    loop, store, member, now = waiting
    loop._on_revoke(member, [TopicPartition("t", 0)])  # type: ignore[arg-type]  # a fake of Consumer
    store.away = False
    now[0] += LONGEST_PAUSE
    loop._work(member, False)  # type: ignore[arg-type]  # a fake of Consumer
    assert (store.written, member.committed) == ([], [])


def test_a_stop_cuts_the_retries_short() -> None:
    """SIGTERM during an outage must not be answered after half a minute."""
    loop, _ = make()
    loop.stop()
    call, calls = failing(100, StoreError("kafka", "down"))
    with pytest.raises(StoreError):
        loop._with_retries(call)
    assert len(calls) == 1


def test_it_is_not_ready_before_it_has_caught_up() -> None:
    """A sink that has read nothing yet is alive and not ready."""
    loop, _ = make()
    assert loop.alive()
    assert not loop.ready()


class Coordinator:
    """A consumer whose group has no coordinator for the first ``away`` commits."""

    def __init__(self, away: int) -> None:
        self.away = away
        self.committed: list[int] = []

    def commit(self, offsets: Sequence[TopicPartition], asynchronous: bool) -> None:
        if self.away:
            self.away -= 1
            raise KafkaException(KafkaError(KafkaError._WAIT_COORD))
        self.committed += [one.offset for one in offsets]


def test_a_commit_waits_for_no_coordinator() -> None:
    """A client that isn't polled never joins its group again, so the loop goes on, and the next batch's commit counts."""
    loop, pauses = make()
    consumer = Coordinator(1)
    for offset in (7, 8):
        loop._pending = [Record("t", 0, offset, 0, b"k", b"v")]
        loop._flush(consumer)  # type: ignore[arg-type]  # a fake of Consumer
    assert (pauses, consumer.committed) == ([], [9])
