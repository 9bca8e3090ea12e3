"""Profiles from a real Kafka to a real Redis: never back in time, complete only when all are there."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import redis as client

from fraud_contracts import profile_header
from fraud_contracts.config import DetectorConfig
from fraud_contracts.names import profile_key
from fraud_contracts.profile_header import Header
from fraud_process.store_address import StoreAddress
from fraud_sinks.meters import Meters
from fraud_sinks.profile import ProfileWriter, connect
from fraud_sinks.records import Place, Record, StoreLostError
from fraud_testing import redis as servers
from fraud_testing.kafka import Broker, wait_for
from fraud_testing.redis import Server
from fraud_testing.sinks import sink

pytestmark = pytest.mark.integration
HASH8 = "00112233"


def profile(seq: int, epoch: int = 1, tail: bytes = b"") -> bytes:
    return profile_header.pack(Header(1, HASH8, epoch, seq, 2**64 - 1)) + tail


def key(number: int) -> str:
    return profile_key(HASH8[:6], "customer", f"t_{number}")


def test_a_profile_never_goes_back_in_time(store: Server, make: Callable[..., DetectorConfig]) -> None:
    """Within a batch and between batches the highest (epoch, seq) stays; equal ones follow the topic's order."""
    config = make(1)
    writer = ProfileWriter(
        connect(StoreAddress(store.login(config.identity))),
        config.identity,
        config.hash6,
        1,
        1,
        Meters("d", "profile"),
    )
    redis = client.Redis.from_url(store.url)

    def write(*profiles: bytes) -> bytes | None:
        name = key(0).encode()
        writer.write([Record("p", 0, at, 0, name, value) for at, value in enumerate(profiles)])
        return redis.get(config.identity.redis_profile(key(0)))

    assert write(profile(5), profile(7), profile(6)) == profile(7)
    assert write(profile(6)) == profile(7)
    assert write(profile(7, tail=b"again")) == profile(7, tail=b"again")
    assert write(profile(2**40)) == profile(2**40)
    assert write(profile(1, epoch=2)) == profile(1, epoch=2)
    assert write(profile(2**41, epoch=1)) == profile(1, epoch=2)
    redis.set(config.identity.redis_profile(key(0)), b"no profile")
    assert write(profile(1)) == profile(1)
    assert write(b"no profile either") == profile(1)


def test_the_mark_waits_for_every_partition(store: Server, make: Callable[..., DetectorConfig]) -> None:
    """One partition of two is not complete; a higher epoch asks for everything again."""
    config = make(2)
    redis = client.Redis.from_url(store.url)
    mark = config.identity.redis_complete(config.hash6)

    def writer(epoch: int = 1) -> ProfileWriter:
        return ProfileWriter(
            connect(StoreAddress(store.login(config.identity))),
            config.identity,
            config.hash6,
            epoch,
            2,
            Meters("d", "profile"),
        )

    places = [Place("p", 0), Place("p", 1)]
    first = writer()
    assert first.start(places) == dict.fromkeys(places, 0)
    first.caught_up(places[0], 7)
    assert redis.get(mark) is None
    second = writer()
    assert second.start(places) == {places[0]: 7, places[1]: 0}
    second.caught_up(places[1], 0)
    assert redis.get(mark) == b"1"
    assert writer().start(places) == {places[0]: 7, places[1]: 0}
    assert writer(epoch=2).start(places) == dict.fromkeys(places, 0)
    assert redis.get(mark) is None


def test_a_set_built_beside_is_complete_when_it_takes_over(
    store: Server, make: Callable[..., DetectorConfig]
) -> None:
    """Its profiles come through the sink of the set that answers: once that is complete, so are they, and its own sink goes on from there."""
    config = make(1)
    redis = client.Redis.from_url(store.url)
    mark = config.identity.redis_complete(HASH8[:6])

    def writer(hash6: str, epoch: int) -> ProfileWriter:
        address = StoreAddress(store.login(config.identity))
        return ProfileWriter(connect(address), config.identity, hash6, epoch, 1, Meters("d", "profile"))

    place, name = Place("p", 0), key(0).encode()
    answering = writer("aaaaaa", 1)
    answering.start([place])
    answering.write([Record("p", 0, 0, 0, name, profile(1, epoch=2))])
    assert redis.get(mark) is None, "its own set isn't complete yet"
    answering.caught_up(place, 1)
    answering.write([Record("p", 0, 1, 0, name, profile(2, epoch=2))])
    assert redis.get(mark) == b"2"
    answering.write([Record("p", 0, 2, 0, name, profile(3, epoch=2))])
    assert writer(HASH8[:6], 2).start([place]) == {place: 3}
    assert redis.get(mark) == b"2"


def test_a_loss_of_redis_is_noticed(store: Server, make: Callable[..., DetectorConfig]) -> None:
    """Neither before nor after completion can half of the profiles pass for all of them."""
    config = make(1)
    redis = client.Redis.from_url(store.url)
    writer = ProfileWriter(
        connect(StoreAddress(store.login(config.identity))),
        config.identity,
        config.hash6,
        1,
        1,
        Meters("d", "profile"),
    )
    place, one = Place("p", 0), Record("p", 0, 0, 0, key(0).encode(), profile(1))
    writer.start([place])
    writer.write([one])
    redis.flushall()
    with pytest.raises(StoreLostError):
        writer.write([one._replace(offset=1)])
    with pytest.raises(StoreLostError):
        writer.caught_up(place, 1)
    assert writer.start([place]) == {place: 0}
    writer.write([one])
    writer.caught_up(place, 1)
    writer.tick()
    redis.flushall()
    with pytest.raises(StoreLostError):
        writer.tick()


@pytest.mark.parametrize("what", ["mark", "progress", "written"])
@pytest.mark.parametrize("number", [True, False], ids=["no number", "another type"])
def test_an_unreadable_mark_or_progress_counts_as_lost(
    store: Server, make: Callable[..., DetectorConfig], what: str, number: bool
) -> None:
    """Noticed while running and at a start; then all is written anew."""
    config = make(1)
    redis = client.Redis.from_url(store.url)
    meters = Meters("d", "profile")
    names = {
        "mark": config.identity.redis_complete(config.hash6),
        "progress": config.identity.redis_progress(config.hash6),
        "written": config.identity.redis_written(config.hash6),
    }
    place = Place("p", 0, "id")
    writer = ProfileWriter(
        connect(StoreAddress(store.login(config.identity))), config.identity, config.hash6, 1, 1, meters
    )
    writer.start([place])
    writer.write([Record("p", 0, 0, 0, key(0).encode(), profile(1), "id")])
    if what != "written":
        writer.caught_up(place, 1)
    kept = redis.hgetall(names["progress"])
    redis.delete(names[what])
    if not number:
        redis.lpush(names[what], "x")
    elif what == "progress":
        redis.hset(names[what], mapping=dict.fromkeys(kept, "x"))
    elif what == "mark":
        redis.set(names[what], "x")
    else:
        redis.sadd(names[what], b"\xff")
    if what != "written":
        with pytest.raises(StoreLostError):
            writer.tick()
    assert writer.start([place]) == {place: 0}
    assert meters.refused._value.get() == (0 if (what, number) == ("written", True) else 1)
    writer.write([Record("p", 0, 0, 0, key(0).encode(), profile(1), "id")])
    writer.caught_up(place, 1)
    assert redis.get(names["mark"]) == b"1"


def test_what_is_no_profile_is_replaced_or_refused(
    store: Server, make: Callable[..., DetectorConfig]
) -> None:
    """A stored one of another type gives way; a record under a key that is no text is counted and left out."""
    config = make(1)
    redis = client.Redis.from_url(store.url)
    meters = Meters("d", "profile")
    writer = ProfileWriter(
        connect(StoreAddress(store.login(config.identity))), config.identity, config.hash6, 1, 1, meters
    )
    writer.start([Place("p", 0)])
    redis.lpush(config.identity.redis_profile(key(0)), "x")
    records = [(b"\xff\xfe", profile(1)), (key(0).encode(), profile(1))]
    assert writer.write([Record("p", 0, at, 0, *one) for at, one in enumerate(records)]) == 1
    assert redis.get(config.identity.redis_profile(key(0))) == profile(1)
    assert meters.refused._value.get() == 1


def test_killed_and_restarted_it_ends_with_the_newest_of_each_key(
    broker: Broker, store: Server, make: Callable[..., DetectorConfig], tmp_path: Path
) -> None:
    """kill -9 amid a backlog, a restart in place: every key ends at its newest profile."""
    config = make(2)
    topic, redis = config.identity.topic("profiles"), client.Redis.from_url(store.url)
    mark = config.identity.redis_complete(config.hash6)
    records = [(key(n % 300), profile(n, tail=b"x" * 300)) for n in range(12_000)]
    broker.produce(topic, records)
    want = {config.identity.redis_profile(name).encode(): value for name, value in records}

    def have() -> dict[bytes, bytes | None]:
        names = sorted(want)
        return dict(zip(names, redis.mget(names), strict=True))

    with sink("fraud_sinks.profile", config, tmp_path, REDIS_URL=store.login(config.identity)) as running:
        running.start()
        wait_for(lambda: redis.dbsize() > 50, 30, "the first profiles")
        running.stop(signal.SIGKILL)
        running.start()
        running.await_ready()
        assert have() == want
        assert redis.get(mark) == b"1"

        last = (key(5), profile(99_999))
        broker.produce(topic, [last])
        wait_for(lambda: redis.get(config.identity.redis_profile(key(5))) == last[1], 10, "the last profile")
        want[config.identity.redis_profile(key(5)).encode()] = last[1]
        assert running.metric("fraud_profile_freshness_seconds_count") >= 1
        assert running.stop() == 0


def test_what_redis_loses_comes_back_while_the_sink_runs(
    broker: Broker, make: Callable[..., DetectorConfig], tmp_path: Path
) -> None:
    """FLUSHALL, kill -9 with and without a file, an older file put back: the same process writes what is missing, mark last."""
    config = make(2)
    topic, mark = config.identity.topic("profiles"), config.identity.redis_complete(config.hash6)
    records = [(key(n % 400), profile(n, tail=b"x" * 300)) for n in range(4_000)]
    broker.produce(topic, records)
    want = {config.identity.redis_profile(name).encode(): value for name, value in records}
    number = 10_000

    def whole() -> bool:
        """All profiles, and the mark: read together, so that a mark without its profiles would be seen."""
        names = sorted(want)
        try:
            stored_mark, *values = redis.mget(mark, *names)
        except client.RedisError:
            return False
        equal = dict(zip(names, values, strict=True)) == want
        assert stored_mark is None or equal or number in late, "marked as complete without being so"
        return stored_mark == b"1" and equal

    late: set[int] = set()  # profiles that were produced after the mark was set may come after it
    with (
        servers.server(append_only=True) as store,
        sink("fraud_sinks.profile", config, tmp_path, REDIS_URL=store.login(config.identity)) as running,
    ):
        redis = client.Redis.from_url(store.url, socket_timeout=2)
        running.start()
        running.await_ready()
        assert whole()
        process = running.process
        older = tmp_path / "older"
        for what in ("flush", "crash", "older file", "empty file"):
            if what == "older file":
                redis.bgrewriteaof()
                wait_for(lambda: not redis.info()["aof_rewrite_in_progress"], 20, "the file")
                shutil.copytree(store.folder / "appendonlydir", older)
            number += 1
            late.add(number)
            broker.produce(topic, [(key(number % 400), profile(number))])
            want[config.identity.redis_profile(key(number % 400)).encode()] = profile(number)
            wait_for(whole, 10, f"the newest profile before {what}")
            number += 1
            if what == "flush":
                redis.flushall()
            else:
                store.stop(signal.SIGKILL)
                if what != "crash":
                    shutil.rmtree(store.folder / "appendonlydir")
                if what == "older file":
                    shutil.copytree(older, store.folder / "appendonlydir")
                    late.add(number)  # the old mark is back a moment before the lost profile is
                store.start()
            wait_for(whole, 20, f"all profiles after {what}")
            assert running.process is process
            assert process is not None
            assert process.poll() is None
        # Of the older file nothing is missing where the newest profile was still in hand: it is then simply written again.
        assert running.metric("fraud_sink_store_losses_total") in (2, 3)
        wait_for(lambda: running.get("/readyz")[0] == 200, 20, "the sink to be ready again")
        assert running.stop() == 0


def test_a_rebuild_fills_redis_and_ends(
    broker: Broker, store: Server, make: Callable[..., DetectorConfig], tmp_path: Path
) -> None:
    """--rebuild reads the whole topic whatever was committed, sets the mark and exits with 0."""
    config = make(2)
    broker.produce(config.identity.topic("profiles"), [(key(n), profile(n)) for n in range(100)])
    redis = client.Redis.from_url(store.url)
    with sink("fraud_sinks.profile", config, tmp_path, REDIS_URL=store.login(config.identity)) as running:
        for _ in range(2):
            redis.flushall()
            running.start("--rebuild")
            assert running.wait(60) == 0, running.tail()
            assert len(redis.keys(config.identity.redis_profile("*"))) == 100
            assert redis.get(config.identity.redis_complete(config.hash6)) == b"1"
