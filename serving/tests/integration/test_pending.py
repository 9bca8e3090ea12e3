"""Payments that a profile lacks are counted with it, as many as are kept; where there are more, the answer says so."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import redis as redis_py

from fraud_serving.decision.profile_reader import PENDING_KEPT
from fraud_serving.decision.service import DecisionService
from fraud_testing import redis
from fraud_testing.batches import OF
from fraud_testing.inline_door import Log, payment, with_service

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(redis.missing()), reason=str(redis.missing())),
]
STALE = "profiles_stale"


def pending_of(store: Any, entity: str) -> bytes:
    [key] = [key for key in store.keys(f"{OF}:pending:*") if f":{entity}:".encode() in key]
    return bytes(key)


def test_a_key_with_more_payments_than_are_kept_is_stale_and_no_other_is() -> None:
    with redis.server() as server:
        store = redis_py.Redis.from_url(server.url)
        store.set(OF.redis_whole, "0")  # else the profiles of the first answer may have been lost

        async def steps(service: DecisionService, _: Log) -> None:
            async def marks(event_id: str, card: str) -> list[str]:
                body = payment(event_id, card=card, merchant=f"of-{event_id}")
                return list(orjson.loads(await service.decide(body))["degraded"])

            assert STALE not in await marks("first", "busy")
            key = pending_of(store, "customer")
            [(entry, score)] = store.zrange(key, 0, -1, withscores=True)
            for lacking, stale in ((PENDING_KEPT - 2, False), (PENDING_KEPT, True)):
                event = orjson.loads(entry)
                more = {
                    orjson.dumps({**event, "id": f"more-{n}", "time": event["time"] + n}): score + n
                    for n in range(1, lacking)
                }
                store.zadd(key, more)
                assert (STALE in await marks(f"after-{lacking}", "busy")) is stale
                assert STALE not in await marks(f"other-{lacking}", "idle")
            assert STALE in await marks("last", "busy")

        with_service(server.url, steps)
