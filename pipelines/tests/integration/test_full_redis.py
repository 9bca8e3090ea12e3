"""A Redis without room: the sink waits for it in its process, and goes on where it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import redis as client

from fraud_contracts import profile_header
from fraud_contracts.config import DetectorConfig
from fraud_contracts.errors import StoreFullError
from fraud_contracts.names import profile_key
from fraud_contracts.profile_header import Header
from fraud_process.store_address import StoreAddress
from fraud_sinks.meters import Meters
from fraud_sinks.profile import ProfileWriter, connect
from fraud_sinks.records import Place, Record
from fraud_testing.kafka import Broker, wait_for
from fraud_testing.redis import Server
from fraud_testing.sinks import sink

pytestmark = pytest.mark.integration


def profile(seq: int) -> bytes:
    return profile_header.pack(Header(2, "00112233", 1, seq, 7))


def key(number: int) -> str:
    return profile_key("001122", "customer", f"t_{number}")


def test_a_full_redis_is_told_from_one_that_is_away(
    store: Server, make: Callable[..., DetectorConfig]
) -> None:
    """And nothing of a batch is half written."""
    config = make(1)
    address = StoreAddress(store.login(config.identity))
    writer = ProfileWriter(connect(address), config.identity, config.hash6, 1, 1, Meters("d", "profile"))
    writer.start([Place("p", 0)])
    records = [Record("p", 0, n, 0, key(n).encode(), profile(1)) for n in range(3)]
    store.fill()
    with pytest.raises(StoreFullError):
        writer.write(records)
    writer.tick()
    assert client.Redis.from_url(store.url).dbsize() == 0
    store.make_room()
    assert writer.write(records) == 3


def test_the_sink_waits_for_room_in_its_process(
    broker: Broker, store: Server, make: Callable[..., DetectorConfig], tmp_path: Path
) -> None:
    """It is alive meanwhile and stays ready, since it had caught up before."""
    config = make(1)
    topic, redis = config.identity.topic("profiles"), client.Redis.from_url(store.url)
    with sink("fraud_sinks.profile", config, tmp_path, REDIS_URL=store.login(config.identity)) as running:
        running.start()
        running.await_ready()
        store.fill()
        broker.produce(topic, [(key(1), profile(1))])
        wait_for(lambda: running.metric("fraud_sink_retries_total") > 3, 30, "some tries")
        assert running.get("/healthz")[0] == 200
        assert redis.get(config.identity.redis_profile(key(1))) is None
        store.make_room()
        wait_for(lambda: redis.get(config.identity.redis_profile(key(1))) == profile(1), 20, "the profile")
        assert running.metric("fraud_sink_store_losses_total") == 0
        assert running.stop() == 0
