"""A Redis without room for anything more: both doors decide in time and say what they did without; with room again all is as before."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import redis as redis_py

from fraud_serving.decision.service import DecisionService
from fraud_testing import batches, redis
from fraud_testing.batches import CONFIG, OF
from fraud_testing.feature_stream import Stream
from fraud_testing.inline_door import Log, payment, with_service
from fraud_testing.kafka import wait_for

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(redis.missing()), reason=str(redis.missing())),
]
FULL = {"idempotency", "profiles_stale"}


def whole(server: redis.Server) -> None:
    """No claim was ever lost, and all profiles are there."""
    store = redis_py.Redis.from_url(server.url)
    store.set(OF.redis_whole, "0")
    store.set(OF.redis_complete(CONFIG.hash6), "1")


def test_the_inline_door_reads_on_and_says_what_it_could_not_leave() -> None:
    """Its vector has what Redis held before, and lacks the payments that were made while it was full: no mark says otherwise."""
    with redis.server() as server:
        whole(server)

        async def steps(service: DecisionService, log: Log) -> None:
            name = service.features.names.index("customer_count_1h")

            async def pay(event_id: str) -> tuple[set[str], float]:
                begin = time.monotonic()
                answer = orjson.loads(await service.decide(payment(event_id)))
                assert time.monotonic() - begin < 1.0
                return set(answer["degraded"]) - {"no_model"}, log.appended[-1]["decision"]["vector"][name]

            assert await pay("before") == (set(), 1)
            server.fill()
            for number in range(3):
                assert await pay(f"full-{number}") == (FULL, 2)
            server.make_room()
            assert await pay("after") == (set(), 2)
            assert await pay("last") == (set(), 3)

        with_service(server.url, steps)


def test_an_id_that_was_claimed_before_has_its_answer_while_redis_is_full() -> None:
    with redis.server() as server:
        whole(server)

        async def steps(service: DecisionService, _: Log) -> None:
            body = payment("one")
            first = await service.decide(body)
            server.fill()
            assert await service.decide(body) == first

        with_service(server.url, steps)


def test_the_worker_decides_without_claims_and_makes_up_for_them(server: redis.Server, store: Any) -> None:
    """As where Redis is away; once there is room, the ids have their claims."""
    stream = Stream(SimpleNamespace(config=CONFIG, digest="sha256:0"))  # type: ignore[arg-type]  # no servers
    worker = batches.processor(server)
    worker.committed(worker.process(batches.read(stream.record("before"))))
    server.fill()
    for number in range(3):
        result = worker.process(batches.read(stream.record(f"full-{number}")))
        assert ["idempotency" in one["degraded"] for one in batches.decided(result)] == [True]
        worker.committed(result)
    server.make_room()

    def claimed() -> bool:
        worker.idle()
        return all(store.exists(OF.redis_claim(f"full-{number}")) for number in range(3))

    wait_for(claimed, 20, "the claims that Redis had no room for")
    result = worker.process(batches.read(stream.record("after")))
    assert ["idempotency" in one["degraded"] for one in batches.decided(result)] == [False]
    assert store.exists(OF.redis_claim("after"))
