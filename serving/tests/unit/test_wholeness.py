"""The mark that says since when claims are whole, and how a process finds out that it lies. A Redis that is a dict."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from fraud_contracts.names import Identity
from fraud_process.instruments import Instruments
from fraud_serving import wholeness
from fraud_serving.claims import Command
from fraud_serving.wholeness import DAY_MS, SKEW_MS, Mark, Reached, Wholeness

OF = Identity("bank", "cards")
NOW = 1_795_000_000_000
HOUR = 3_600_000


class Redis:
    """What its scripts would do; ``data`` may be put back to an earlier state."""

    def __init__(self, mark: bytes | None = b"0") -> None:
        self.data: dict[Any, bytes] = {} if mark is None else {OF.redis_whole: mark}

    def mark(self) -> Mark | None:
        return wholeness.read(self.data.get(OF.redis_whole))

    def do(self, command: Command) -> bytes:
        key, first, second, *before = command[3:]
        now = self.data.get(key, b"")
        if isinstance(second, bytes):
            if now == first:
                self.data[key] = second
        elif int(before[0]) <= wholeness._count(now) < int(first):
            self.data[key] = str(first).encode()
        return now


class Process:
    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.registry = CollectorRegistry()
        self.whole = Wholeness(OF, Instruments(self.registry, detector=str(OF)))

    def read(self, now: int = NOW) -> Mark | None:
        """Reads and tells of a loss; -> the doubt there is then."""
        before = self.whole.confirmed_before(now)
        loss = self.whole.heard([self.redis.data.get(key) for key in self.whole.keys], before, now)
        if loss is not None:
            self.redis.do(loss)
        return self.whole.doubt(now)

    def claim(self, now: int = NOW) -> None:
        witness = self.whole.bear_witness(now)
        self.whole.confirmed(witness, self.redis.do(witness.command), now)

    def unreadable(self) -> float:
        labels = {"detector": str(OF), "what": "whole"}
        return self.registry.get_sample_value("fraud_unreadable_total", labels) or 0.0


@pytest.fixture
def redis() -> Redis:
    return Redis()


def test_a_mark_is_read_as_it_was_packed() -> None:
    """With and without how far the ledger had got."""
    for mark in (Mark(0), Mark(NOW), Mark(NOW, (Reached(0, 0, 17), Reached(2, 11, 0)))):
        assert wholeness.read(mark.pack()) == mark


@pytest.mark.parametrize(
    "value", [None, b"", b"x", b"-1", b"1.5", b"9" * 5000, b"1 2/3", b"1 a/b/c", b"1  0/0/1", b"\xff", b"1\n"]
)
def test_other_bytes_are_no_mark(value: bytes | None) -> None:
    """Whatever lies under the key says nothing, and ends nothing."""
    assert wholeness.read(value) is None


def test_where_no_claim_was_lost_there_is_no_doubt(redis: Redis) -> None:
    """The mark stays as it is, however often claims are made."""
    one = Process(redis)
    for _ in range(3):
        assert one.read() is None
        one.claim()
    assert redis.mark() == Mark(0)


def test_an_emptied_redis_lost_its_claims_just_now() -> None:
    """By whoever reads first; all others hear it from the mark, for a day."""
    redis = Redis(mark=None)
    one, other = Process(redis), Process(redis)
    assert one.read() == Mark(NOW)
    assert other.read(NOW + 5) == Mark(NOW) == redis.mark()
    assert other.read(NOW + DAY_MS) is None


def test_an_earlier_state_of_redis_is_noticed_by_whoever_claimed_since(redis: Redis) -> None:
    """Its witness is lower than what Redis had confirmed; a process that lost nothing hears of it."""
    one, other = Process(redis), Process(redis)
    one.claim()
    other.claim()
    earlier = dict(redis.data)
    one.claim()
    redis.data = earlier
    assert other.read(NOW + 1) is None
    assert one.read(NOW + 2) == Mark(NOW + 2)
    assert other.read(NOW + 3) == Mark(NOW + 2)
    assert one.read(NOW + 4) == Mark(NOW + 2)


def test_a_claim_made_after_the_loss_hides_it_not(redis: Redis) -> None:
    """A request that had read before: what Redis had until its claim tells it."""
    one = Process(redis)
    one.claim()
    earlier = dict(redis.data)
    one.claim()
    redis.data = earlier
    one.claim()
    assert one.read(NOW + 1) == Mark(NOW + 1)
    assert one.read(NOW + 2) == Mark(NOW + 1)


def test_a_loss_is_told_until_redis_has_heard_it(redis: Redis) -> None:
    """What told it may have been lost: the same mark is as wrong the next time, though claims were made meanwhile."""
    one = Process(redis)
    one.claim()
    del redis.data[one.whole.witness_key]
    before = one.whole.confirmed_before(NOW)
    unheard = one.whole.heard([redis.data.get(key) for key in one.whole.keys], before, NOW)
    assert unheard is not None
    assert one.whole.doubt(NOW) == Mark(NOW)
    one.claim()
    assert redis.mark() == Mark(0)
    assert one.read(NOW + 7) == Mark(NOW + 7) == redis.mark()


def test_a_loss_that_follows_another_is_a_later_one(redis: Redis) -> None:
    """Within one millisecond, too; what the ledger held then says nothing of the time between."""
    redis.data[OF.redis_whole] = Mark(NOW, (Reached(0, 0, 5),)).pack()
    one = Process(redis)
    assert one.read() == Mark(NOW, (Reached(0, 0, 5),))
    one.claim()
    del redis.data[one.whole.witness_key]
    assert one.read() == Mark(NOW + 1)


def test_two_that_notice_tell_it_once_each_at_most(redis: Redis) -> None:
    """The second finds another mark than it read, and leaves it."""
    one, other = Process(redis), Process(redis)
    for process in (one, other):
        process.read()
    loss, late = one.whole.lost(NOW + 1), other.whole.lost(NOW + 2)
    redis.do(loss)
    redis.do(late)
    assert redis.mark() == Mark(NOW + 1)
    assert other.read(NOW + 3) == Mark(NOW + 1)


@pytest.mark.parametrize("value", [b"x", b"1 x", b"9" * 5000])
def test_an_unreadable_mark_is_a_loss_and_counted(value: bytes) -> None:
    """It gives way to one that can be read."""
    redis = Redis(mark=value)
    one = Process(redis)
    assert one.read() == Mark(NOW) == redis.mark()
    assert one.unreadable() == 1
    assert one.read() == Mark(NOW)
    assert one.unreadable() == 1


@pytest.mark.parametrize("value", [b"x", b"-3", b"9" * 5000, b"1.5"])
def test_a_witness_that_is_no_number_is_a_loss(redis: Redis, value: bytes) -> None:
    """As one that isn't there."""
    one = Process(redis)
    one.claim()
    redis.data[one.whole.witness_key] = value
    assert one.read() == Mark(NOW)


def test_a_clock_that_steps_back_lengthens_the_doubt_by_as_much(redis: Redis) -> None:
    """A mark of an hour ahead is believed: a day and an hour of doubt at most."""
    redis.data[OF.redis_whole] = Mark(NOW + SKEW_MS).pack()
    one = Process(redis)
    assert one.read() == Mark(NOW + SKEW_MS)
    assert one.read(NOW + SKEW_MS + DAY_MS) is None


def test_a_mark_of_a_wrong_clock_gives_way(redis: Redis) -> None:
    """One of next year would have the ledger asked until then."""
    redis.data[OF.redis_whole] = Mark(NOW + 365 * DAY_MS).pack()
    one = Process(redis)
    assert one.read() == Mark(NOW) == redis.mark()


def test_a_witness_of_more_than_a_day_ago_is_not_missed(redis: Redis) -> None:
    """Its claims are over, and Redis lets it go."""
    one = Process(redis)
    one.claim()
    del redis.data[one.whole.witness_key]
    assert one.read(NOW + DAY_MS) is None


def test_a_read_that_was_under_way_misses_no_claim_that_came_after_it(redis: Redis) -> None:
    """What counts is what was confirmed when the read was sent."""
    one = Process(redis)
    before, held = one.whole.confirmed_before(NOW), [redis.data.get(key) for key in one.whole.keys]
    one.claim()
    assert one.whole.heard(held, before, NOW) is None
    assert one.whole.doubt(NOW) is None
