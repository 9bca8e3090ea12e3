"""What the loop promises without a broker: bounded retries, and an end where a retry can't help."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from fraud_contracts.errors import StoreError, StoreFullError
from fraud_process.kafka import KafkaAccess
from fraud_sinks.loop import ATTEMPTS, LONGEST_PAUSE, Loop, Reading
from fraud_sinks.meters import Meters
from fraud_sinks.records import Place, Record, StoreLostError


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


def test_a_store_that_comes_back_is_waited_for() -> None:
    """Pauses double up to a bound, so a restart of a database, a minute and more, is bridged."""
    loop, pauses = make()
    call, _ = failing(ATTEMPTS - 1, StoreError("redis", "down"))
    assert loop._with_retries(call) == "done"
    assert pauses == sorted(pauses)
    assert max(pauses) <= LONGEST_PAUSE
    assert 100 < sum(pauses) < 150


def test_a_store_that_stays_away_ends_the_loop() -> None:
    """After the last attempt the error goes up, and with it the process."""
    loop, _ = make()
    call, calls = failing(100, StoreError("redis", "down"))
    with pytest.raises(StoreError):
        loop._with_retries(call)
    assert len(calls) == ATTEMPTS


def test_a_store_that_is_full_is_waited_for_as_long_as_it_takes() -> None:
    """It answers, and another process would be told the same. That one goes on living is seen."""
    loop, pauses = make()
    call, _ = failing(10 * ATTEMPTS, StoreFullError("redis", "no room"))
    assert loop._with_retries(call) == "done"
    assert max(pauses) <= LONGEST_PAUSE
    assert loop.alive()


def test_lost_data_are_not_retried() -> None:
    """Trying again can't bring them back; starting anew does."""
    loop, pauses = make()
    call, calls = failing(100, StoreLostError("redis", "empty"))
    with pytest.raises(StoreLostError):
        loop._with_retries(call)
    assert (len(calls), pauses) == (1, [])


def test_a_stop_cuts_the_retries_short() -> None:
    """SIGTERM during an outage must not be answered after half a minute."""
    loop, _ = make()
    loop.stop()
    call, calls = failing(100, StoreError("redis", "down"))
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
