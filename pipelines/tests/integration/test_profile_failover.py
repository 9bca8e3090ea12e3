"""A Redis master that is killed together with the Sentinel beside it, under the profile sink: real servers, the replica promoted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest
import redis as client

from fraud_contracts import profile_header
from fraud_contracts.config import DetectorConfig
from fraud_contracts.names import profile_key
from fraud_contracts.profile_header import Header
from fraud_process.redis_store import connected
from fraud_testing import sentinel
from fraud_testing.kafka import Broker, free_port, wait_for
from fraud_testing.required import require
from fraud_testing.sinks import sink

pytestmark = [pytest.mark.integration, pytest.mark.accept]
HASH8 = "00112233"


@pytest.fixture
def group() -> Iterator[sentinel.Group]:
    require(sentinel.missing())
    with sentinel.group(sentinels=3) as running:
        yield running


def test_the_sink_writes_again_what_the_new_master_lacks(
    group: sentinel.Group, broker: Broker, make: Callable[..., DetectorConfig], tmp_path: Path
) -> None:
    """The replica was cut off before the last profiles: the same process finds it, and in the end each key's newest is there."""
    config = make(2)
    topic, identity = config.identity.topic("profiles"), config.identity
    names = [profile_key(HASH8[:6], "customer", f"t_{n}") for n in range(200)]
    want: dict[str, bytes] = {}
    redis: Any = connected(group.url, None, 2.0)

    def produce(seq: int) -> None:
        value = profile_header.pack(Header(1, HASH8, 1, seq, 2**64 - 1))
        broker.produce(topic, [(name, value) for name in names])
        want.update({identity.redis_profile(name): value for name in names})

    def whole() -> bool:
        try:
            stored = dict(zip(want, redis.mget(list(want)), strict=True))
            return stored == want and redis.get(identity.redis_complete(config.hash6)) == b"1"
        except client.RedisError:
            return False

    produce(1)
    with sink("fraud_sinks.profile", config, tmp_path, REDIS_URL=group.login(identity)) as running:
        running.start()
        running.await_ready()
        process = running.process
        wait_for(whole, 20, "the first profiles")
        master, replica = group.servers
        wait_for(group.replicated, 20, "the replica")
        replica.command("REPLICAOF", "127.0.0.1", str(free_port()))
        produce(2)
        wait_for(whole, 20, "profiles that the replica lacks")
        group.sentinels[0].stop(SIGKILL)
        master.stop(SIGKILL)
        produce(3)
        wait_for(group.master, sentinel.MOVED_SECONDS, "a new master")
        wait_for(whole, 40, "all profiles at the new master")
        assert running.process is process
        assert running.metric("fraud_sink_store_losses_total") == 1
        assert running.stop() == 0
