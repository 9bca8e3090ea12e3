"""When a profile in Redis goes, and what is kept beside it: a key that comes back after it was forgotten is written anew."""

from __future__ import annotations

import itertools
import struct
import time
from collections.abc import Callable

import pytest
import redis as client

from fraud_contracts import lifetimes, profile_header
from fraud_contracts.config import DetectorConfig
from fraud_contracts.names import profile_key
from fraud_contracts.profile_header import Header
from fraud_contracts.stream_progress import StreamProgress, progress_key
from fraud_process.store_address import StoreAddress
from fraud_sinks.meters import Meters
from fraud_sinks.profile import ProfileWriter, connect
from fraud_sinks.profile_order import ProfileAge, replaces
from fraud_sinks.profile_scripts import MARKS_SECONDS
from fraud_sinks.records import Place, Record
from fraud_testing.redis import Server

pytestmark = pytest.mark.integration
HOUR, DAY = 3_600_000, 86_400_000
REACH = 37 * DAY + HOUR
KEPT = lifetimes.profile_kept(REACH)
OWN, OTHER = "00112233", "aabbccdd"


def profile(seq: int, newest: int = 0, epoch: int = 1, set_hash8: str = OWN) -> bytes:
    """With the beginning of the engine's own part: the newest event's time, and how many came too late."""
    return profile_header.pack(Header(2, set_hash8, epoch, seq, 7)) + struct.pack("<qI", newest, 0)


def key(set_hash8: str = OWN) -> str:
    return profile_key(set_hash8[:6], "customer", "t_1")


class Sink:
    """A writer of one partition, and Redis beside it."""

    def __init__(self, store: Server, config: DetectorConfig, **more: bool) -> None:
        self.of, self.redis = config.identity, client.Redis.from_url(store.url)
        self.writer = ProfileWriter(
            connect(StoreAddress(store.login(self.of))),
            self.of,
            OWN[:6],
            1,
            1,
            Meters("d", "profile"),
            reach=REACH,
            **more,
        )
        self._offset = 0

    def write(self, value: bytes, appended: int, name: str = "") -> None:
        name = name or key()
        self.writer.write([Record("p", 0, self._offset, appended, name.encode(), value)])
        self._offset += 1

    def held(self, name: str = "") -> bytes | None:
        return self.redis.get(self.of.redis_profile(name or key()))  # type: ignore[return-value]  # a sync client

    def goes(self, name: str = "") -> int:
        """UTC ms; -1 where it never goes."""
        return int(self.redis.pexpiretime(self.of.redis_profile(name or key())))  # type: ignore[arg-type]  # a sync client


@pytest.fixture
def sink(store: Server, make: Callable[..., DetectorConfig]) -> Sink:
    return Sink(store, make(1))


def now() -> int:
    return int(time.time() * 1000)


def test_a_profile_goes_so_long_after_its_record(sink: Sink) -> None:
    """However late it is read. A record without a time, or of a clock that is ahead, counts as of now."""
    appended = now() - 3 * DAY
    sink.write(profile(1), appended)
    assert sink.goes() == appended + KEPT
    for odd in (0, -1, now() + 400 * DAY):
        before = now()
        sink.write(profile(1), odd)
        assert before + KEPT <= sink.goes() <= now() + KEPT


def test_a_record_that_is_older_leaves_no_profile(sink: Sink) -> None:
    """Nor what an earlier version wrote of it, which had no end."""
    sink.redis.set(sink.of.redis_profile(key()), profile(4))
    assert sink.goes() == -1
    sink.write(profile(4), now() - KEPT - DAY)
    assert sink.held() is None


@pytest.mark.parametrize(("later", "written"), [(REACH, True), (REACH - 1, False)])
def test_a_key_that_was_forgotten_begins_anew(sink: Sink, later: int, written: bool) -> None:
    """Its seq is lower then. Only an event that depends on none before tells it from what a stream that was restored writes again."""
    first = now() - 50 * DAY
    sink.redis.set(sink.of.redis_profile(key()), profile(40, first))
    again = profile(1, first + later)
    sink.write(again, now())
    assert sink.held() == (again if written else profile(40, first))


def test_what_was_before_takes_nothing_back(sink: Sink) -> None:
    """A rebuild reads it once more: in one batch with what came later, or in one of its own."""
    first = now() - 50 * DAY
    before, again = profile(40, first), profile(1, first + REACH)
    name = key().encode()
    batch = [Record("p", 0, 0, first, name, before), Record("p", 0, 1, now(), name, again)]
    for records in (batch, batch[:1], batch):
        sink.writer.write(records)
        assert sink.held() == again


@pytest.mark.parametrize("reach", [REACH, 0])
def test_redis_and_the_sink_compare_alike(sink: Sink, reach: int) -> None:
    """Which of two profiles stays: one after the other, or in one batch."""
    sink.writer._reaches[OWN[:6]] = reach
    first = now() - 50 * DAY
    profiles = [
        profile(seq, newest, epoch)
        for seq, newest, epoch in itertools.product(
            (1, 2, 2**40), (0, first, first + REACH - 1, first + REACH), (1, 2)
        )
    ]
    for one, other in itertools.product(profiles, repeat=2):
        sink.redis.delete(sink.of.redis_profile(key()))
        sink.write(one, now())
        sink.write(other, now())
        expected = other if replaces(ProfileAge.of(other), ProfileAge.of(one), reach) else one
        assert sink.held() == expected


def test_a_label_alone_begins_nothing_anew(sink: Sink) -> None:
    """It says nothing of when the key's newest event was."""
    before = profile(40, now())
    sink.write(before, now())
    sink.write(profile(1, 0), now())
    assert sink.held() == before


def test_profiles_of_a_set_beside_are_kept_as_its_stream_says(sink: Sink, store: Server) -> None:
    """Until it has said so they outlast every window; the next process knows it from Redis."""
    of_other, reach, begun = key(OTHER), 10 * DAY, now()
    sink.write(profile(1, set_hash8=OTHER), begun, of_other)
    assert sink.goes(of_other) > begun + 800 * DAY
    told = StreamProgress(
        epoch=1, stage=0, stages=1, subtask=0, parallelism=1, applied={"accepted": {0: 1}}, reach=reach
    )
    sink.write(told.to_json(), begun, progress_key(OTHER[:6], 0, 0, 1, 0))
    sink.write(profile(2, set_hash8=OTHER), begun, of_other)
    assert sink.goes(of_other) == begun + lifetimes.profile_kept(reach)
    successor = ProfileWriter(
        connect(StoreAddress(store.login(sink.of))),
        sink.of,
        OWN[:6],
        1,
        1,
        Meters("d", "profile"),
        reach=REACH,
    )
    successor.start([Place("p", 0)])
    successor.write([Record("p", 0, 9, begun, of_other.encode(), profile(3, set_hash8=OTHER))])
    assert sink.goes(of_other) == begun + lifetimes.profile_kept(reach)


def test_what_is_kept_beside_profiles_lasts_as_long_as_a_sink_looks_after_it(sink: Sink) -> None:
    place, of, set6 = Place("p", 0), sink.of, OWN[:6]
    sink.writer.start([place])
    told = StreamProgress(epoch=1, stage=0, stages=1, subtask=0, parallelism=1, applied={}, reach=REACH)
    sink.write(told.to_json(), now(), progress_key(set6, 0, 0, 1, 0))
    sink.writer.caught_up(place, 1)
    names = [of.redis_complete(set6), of.redis_progress(set6), of.redis_applied(set6)]
    for name in names:
        assert 0 < sink.redis.ttl(name) <= MARKS_SECONDS
        sink.redis.expire(name, 100)
    sink.writer.tick()
    sink.write(told.to_json(), now(), progress_key(set6, 0, 0, 1, 0))
    assert all(sink.redis.ttl(name) > 100 for name in names)
    assert [name for name in sink.redis.keys("*") if sink.redis.ttl(name) < 0] == []
