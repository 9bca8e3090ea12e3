"""Claims in a real Redis, told by both doors' own code in this process: what a loss, a race or a stranger leaves in them.

The log is a list here: what must happen between an append and its mark can't be timed from outside of a process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import orjson
import pytest
import redis as redis_client
from prometheus_client import CollectorRegistry

from fraud_contracts.detector import Policy
from fraud_contracts.errors import StoreError
from fraud_contracts.release import Release
from fraud_pipelines.events import Tokeniser
from fraud_serving import claims
from fraud_serving.clients.redis_link import RedisLink
from fraud_serving.decision import desk as desks
from fraud_testing import detectors, redis, serving
from fraud_testing.required import require

pytestmark = pytest.mark.integration
CONFIG = detectors.detector("unused:9092")
OF = CONFIG.identity


class Log:
    """``append`` as the decision service needs it; ``during`` is what happens meanwhile."""

    def __init__(self) -> None:
        self.appended: list[dict[str, Any]] = []
        self.during: Callable[[], None] = lambda: None

    async def append(self, topic: str, key: bytes, value: bytes) -> None:
        self.during()
        self.appended.append(orjson.loads(value))


@pytest.fixture(scope="module")
def server() -> Iterator[redis.Server]:
    require(redis.missing())
    with redis.server() as running:
        yield running


@pytest.fixture
def store(server: redis.Server) -> Any:
    client = redis_client.Redis.from_url(server.url)
    client.flushall()
    return client


@pytest.fixture
def with_desk(server: redis.Server, store: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a test's steps with a decision service's Desk, by rules alone."""
    monkeypatch.setattr(desks, "REGISTRY", CollectorRegistry())

    def run(steps: Callable[[desks.Desk, Log], Awaitable[None]], on_kafka_loss: str = "Refuse") -> None:
        async def whole() -> None:
            log, link = Log(), RedisLink(server.url)
            await link.start()
            desk = desks.Desk(CONFIG, Tokeniser.from_hex(serving.TOKEN_KEY), link, log)  # type: ignore[arg-type]
            policy = Policy.model_validate({"fallback": {"deadline": "5s", "onKafkaLoss": on_kafka_loss}})
            desk.use(Release(name="r0", policy=policy, policy_revision=1))
            try:
                await steps(desk, log)
            finally:
                await link.stop()

        asyncio.run(whole())

    return run


async def marked(desk: desks.Desk) -> None:
    """Sends the marks that wait; Redis has done them, since it answers a connection's commands in order."""
    await desk.drain(1.0)
    await desk.redis.call("PING", seconds=1.0)


def payment(event_id: str, **changes: Any) -> bytes:
    whole = {"id": event_id, "time": int(time.time() * 1000), "amount": 12.34, "card": "c1", "merchant": "m1"}
    return orjson.dumps({**whole, "category": "travel", **changes})


def test_a_mark_of_a_lost_claim_leaves_the_id_free(with_desk: Any, store: Any) -> None:
    """Redis loses a claim between the append and its mark: no key is made, a retry claims the id, the next gets its bytes."""

    async def steps(desk: desks.Desk, log: Log) -> None:
        body = payment("lost")
        log.during = store.flushall
        await desk.decide(body)
        await marked(desk)
        log.during = lambda: None
        assert store.get(OF.redis_claim("lost")) is None
        second = await desk.decide(body)
        assert await desk.decide(body) == second

    with_desk(steps)


def test_what_an_older_mark_left_is_no_claim(with_desk: Any, store: Any) -> None:
    """A lone ``1``, as older versions left after a loss of Redis: the id is decided, claimed, and answered alike again."""

    async def steps(desk: desks.Desk, log: Log) -> None:
        store.set(OF.redis_claim("stray"), b"1")
        body = payment("stray")
        first = await desk.decide(body)
        assert orjson.loads(first)["degraded"] == ["no_model", "profiles_incomplete"]
        assert await desk.decide(body) == first

    with_desk(steps)


def test_an_answer_without_kafka_leaves_another_claim_alone(with_desk: Any, store: Any) -> None:
    """Another replica's claim, made after this one's was lost, isn't overwritten; this answer says that it stands alone."""

    async def steps(desk: desks.Desk, log: Log) -> None:
        body, key = payment("other"), OF.redis_claim("other")
        await desk.decide(body)
        other = claims.pack({**log.appended[0]["decision"], "decided": 1}, appended=False)
        store.flushall()

        def lose() -> None:
            store.set(key, other, ex=500)
            raise StoreError("kafka", "away")

        log.during = lose
        answer = orjson.loads(await desk.decide(body))
        assert store.get(key) == other
        assert 0 < store.ttl(key) <= 500
        assert answer["degraded"] == ["idempotency", "kafka_unavailable", "no_model", "profiles_incomplete"]

    with_desk(steps, on_kafka_loss="Answer")


def test_an_answer_without_kafka_is_told_to_its_own_claim(with_desk: Any, store: Any) -> None:
    """A retry hears what the first caller heard; the claim keeps its time to live."""

    async def steps(desk: desks.Desk, log: Log) -> None:
        body, key = payment("own"), OF.redis_claim("own")

        def lose() -> None:
            store.expire(key, 500)
            raise StoreError("kafka", "away")

        log.during = lose
        answer = await desk.decide(body)
        assert "kafka_unavailable" in orjson.loads(answer)["degraded"]
        log.during = lambda: None
        assert 0 < store.ttl(key) <= 500
        assert await desk.decide(body) == answer
        await desk.drain(0.1)

    with_desk(steps, on_kafka_loss="Answer")


def test_a_mark_says_that_the_record_is_in_the_log(with_desk: Any, store: Any) -> None:
    """Appended once: a retry gets the answer without another append, and the claim lives a day from the append."""

    async def steps(desk: desks.Desk, log: Log) -> None:
        body, key = payment("marked"), OF.redis_claim("marked")
        log.during = lambda: store.expire(key, 500)
        answer = await desk.decide(body)
        await marked(desk)
        assert await desk.decide(body) == answer
        assert len(log.appended) == 1
        assert store.ttl(key) > 500

    with_desk(steps)
