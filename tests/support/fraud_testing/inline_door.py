"""The decision service's own code in the test's process, by rules alone, over a real Redis.

The log is a list: what must happen between an append and its mark can't be timed from outside of a process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from prometheus_client import CollectorRegistry

from fraud_contracts.detector_policy import Policy
from fraud_contracts.errors import StoreError
from fraud_contracts.release import Release
from fraud_pipelines.events import Tokeniser
from fraud_process.instruments import Instruments
from fraud_process.store_address import StoreAddress
from fraud_serving.clients.redis_link import RedisLink
from fraud_serving.decision.profiles_age import AppliedOffsets, ProfilesAge
from fraud_serving.decision.service import DecisionService
from fraud_serving.past_decisions import Ledger
from fraud_testing import serving
from fraud_testing.batches import CONFIG, OF, no_ledger


def up_to_date() -> ProfilesAge:
    """Of profiles that have all that was ever accepted."""
    age = ProfilesAge()
    age.update(time.monotonic() + 86_400, AppliedOffsets(), {})
    return age


class Log:
    """``send`` as the decision service needs it; ``during`` is what happens meanwhile, StoreError a failure."""

    def __init__(self) -> None:
        self.appended: list[dict[str, Any]] = []
        self.during: Callable[[], None] = lambda: None

    def send(self, topic: str, key: bytes, value: bytes) -> asyncio.Future[None]:
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            self.during()
        except StoreError as error:
            sent.set_exception(error)
        else:
            self.appended.append(orjson.loads(value))
            sent.set_result(None)
        return sent


def away() -> None:
    """As ``during``: Kafka doesn't acknowledge."""
    raise StoreError("kafka", "away")


Steps = Callable[[DecisionService, Log], Awaitable[None]]


def with_service(
    address: str, steps: Steps, on_kafka_loss: str = "Refuse", ledger: Ledger | None = None
) -> None:
    """Runs a test's steps with a service whose Redis is at that address."""

    async def whole() -> None:
        log: Any = Log()
        link = RedisLink(StoreAddress(address))
        instruments = Instruments(CollectorRegistry(), detector=str(OF))
        tokeniser = Tokeniser.from_hex(serving.TOKEN_KEY)
        service = DecisionService(
            CONFIG, tokeniser, link, log, ledger or no_ledger(), up_to_date(), instruments
        )
        policy = Policy.model_validate({"fallback": {"deadline": "5s", "onKafkaLoss": on_kafka_loss}})
        service.release.take(Release(name="r0", policy=policy, policy_revision=1))
        await link.start()
        try:
            await steps(service, log)
        finally:
            await link.stop()

    asyncio.run(whole())


async def marked(service: DecisionService) -> None:
    """Sends the marks that wait; Redis has done them, since it answers a connection's commands in order."""
    await service.drain(1.0)
    await service.redis.call("PING", seconds=1.0)


def payment(event_id: str, **changes: Any) -> bytes:
    """A request's body."""
    whole = {"id": event_id, "time": int(time.time() * 1000), "amount": 12.34, "card": "c1", "merchant": "m1"}
    return orjson.dumps({**whole, "category": "travel", **changes})
