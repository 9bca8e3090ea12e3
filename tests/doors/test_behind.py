"""Behind means degraded: while the stream stands still, no answer is given beyond the policy's bound without a mark."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson
import pytest

from fraud_contracts import durations
from fraud_contracts.detector_policy import Fallback
from fraud_pipelines.simulator import Population
from fraud_testing import traffic
from fraud_testing.kafka import wait_for
from fraud_testing.platform import Platform

pytestmark = [pytest.mark.integration, pytest.mark.accept]
BOUND = durations.to_ms(Fallback().staleness) / 1000
STILL, RATE = 60.0, 20.0
STALE = "profiles_stale"


def payment(event_id: str, card: str) -> dict[str, Any]:
    now = int(time.time() * 1000)
    return {"id": event_id, "time": now, "amount": 9.5, "card": card, "merchant": "m1", "category": "food"}


def marks(platform: Platform, event_id: str) -> list[str]:
    """What the answer to one more payment of a card that nobody knows did without."""

    async def ask() -> traffic.Answer:
        async with traffic.session() as client:
            body = orjson.dumps(payment(event_id, event_id))
            return await traffic.post(client, platform.service.url + "/v1/decisions", event_id, body)

    answer = asyncio.run(ask())
    assert answer.status == 200, answer
    return list(answer.document["degraded"])


def up_to_date(platform: Platform, name: str) -> None:
    numbers = iter(range(10_000))
    wait_for(
        lambda: STALE not in marks(platform, f"{name}-{next(numbers)}"), 60, "profiles that aren't stale"
    )


def test_a_stream_that_stands_still_shows_in_each_answer_beyond_the_bound(platform: Platform) -> None:
    """For a minute, under load by both doors; and no longer once the stream has caught up."""
    up_to_date(platform, "before-still")
    sent = traffic.transactions(Population.make(11, 2_000, 200), RATE, STILL, run=9)
    begun: list[tuple[float, traffic.Answer]] = []

    async def load() -> None:
        async with traffic.session() as client:

            async def one(at: float, body: dict[str, Any]) -> None:
                await asyncio.sleep(at)
                start = time.monotonic()
                whole = orjson.dumps({**body, "time": int(time.time() * 1000)})
                answer = await traffic.post(client, platform.service.url + "/v1/decisions", body["id"], whole)
                begun.append((start, answer))

            await asyncio.gather(*(one(number / RATE, body) for number, body in enumerate(sent)))

    with platform.still_stream():
        stopped = time.monotonic()
        platform.broker.produce(
            platform.topic("transactions"), [(None, orjson.dumps(payment("unread", "unread")))]
        )
        unread = time.monotonic()
        asyncio.run(load())
    answered = [(start, answer) for start, answer in begun if answer.status == 200]
    assert len(answered) > 0.9 * len(begun)
    beyond = [answer for start, answer in answered if start > unread + BOUND]
    assert len(beyond) > RATE * (STILL - BOUND) / 2
    assert [answer.id for answer in beyond if STALE not in answer.document["degraded"]] == []
    early = [answer for start, answer in answered if start < stopped + BOUND / 2]
    assert [answer.id for answer in early if STALE in answer.document["degraded"]] == []
    up_to_date(platform, "after-still")


def test_payments_of_the_topic_count(platform: Platform) -> None:
    """One payment that came by the topic alone, and isn't applied, makes the profiles stale."""
    up_to_date(platform, "before-topic")
    with platform.still_stream():
        platform.broker.produce(
            platform.topic("transactions"), [(None, orjson.dumps(payment("alone", "alone")))]
        )
        numbers = iter(range(10_000))
        wait_for(lambda: STALE in marks(platform, f"topic-{next(numbers)}"), BOUND + 10, "the mark")
    up_to_date(platform, "after-topic")
