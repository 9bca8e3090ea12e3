"""An append that Kafka acknowledges late: what its caller hears at the deadline, and what becomes of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from fraud_contracts.detector_policy import OnKafkaLoss
from fraud_contracts.errors import Degraded, StoreError
from fraud_process.instruments import Instruments
from fraud_serving.decision.accepted_log import AcceptedLog
from fraud_serving.decision.errors import NotRecordedError
from fraud_serving.decision.request_clock import RequestClock
from fraud_serving.ruling import with_mark
from fraud_testing.batches import OF

DECISION: Any = {
    "id": "pay",
    "decided": 5,
    "hash": "h",
    "event": {"entities": {"customer": "t"}},
    "degraded": [],
}
DEADLINE = 0.05


class Kafka:
    """Acknowledges, or fails, when the test says so."""

    def __init__(self) -> None:
        self.sent: list[asyncio.Future[None]] = []

    def send(self, topic: str, key: bytes, value: bytes) -> asyncio.Future[None]:
        self.sent.append(asyncio.get_running_loop().create_future())
        return self.sent[-1]


class Claims:
    """Which decisions were said to be appended, and what time there was to say that one isn't."""

    def __init__(self) -> None:
        self.appended: list[Any] = []
        self.seconds: list[float] = []

    def mark_appended(self, decision: Any) -> None:
        self.appended.append(decision)

    async def mark_kafka_loss(self, decision: Any, seconds: float) -> Any:
        self.seconds.append(seconds)
        return with_mark(decision, Degraded.KAFKA_UNAVAILABLE)


Steps = Callable[[AcceptedLog, Kafka, Claims], Awaitable[None]]


def with_log(steps: Steps) -> None:
    async def whole() -> None:
        kafka, claims = Kafka(), Claims()
        fakes: Any = kafka, claims
        instruments = Instruments(CollectorRegistry(), detector=str(OF))
        await steps(AcceptedLog(fakes[0], "accepted", "customer", fakes[1], instruments), kafka, claims)

    asyncio.run(whole())


def clock() -> RequestClock:
    return RequestClock(time.perf_counter(), DEADLINE)


def test_a_late_append_is_refused_at_the_deadline_and_goes_on() -> None:
    """503 as soon as the time is over; the acknowledgement that comes then marks the claim, so that a repeat is answered at once."""

    async def steps(log: AcceptedLog, kafka: Kafka, claims: Claims) -> None:
        began = time.perf_counter()
        with pytest.raises(NotRecordedError):
            await log.record(DECISION, OnKafkaLoss.REFUSE, clock())
        assert time.perf_counter() - began >= DEADLINE
        assert claims.appended == []
        kafka.sent[0].set_result(None)
        await log.drain(1.0)
        assert claims.appended == [DECISION]

    with_log(steps)


def test_a_repeat_waits_for_the_append_that_is_under_way() -> None:
    """Kafka gets the record once, however often its caller repeats the request meanwhile."""

    async def steps(log: AcceptedLog, kafka: Kafka, claims: Claims) -> None:
        for _ in range(3):
            with pytest.raises(NotRecordedError):
                await log.record(DECISION, OnKafkaLoss.REFUSE, clock())
        repeat = asyncio.create_task(
            log.record(DECISION, OnKafkaLoss.REFUSE, RequestClock(time.perf_counter(), 5.0))
        )
        await asyncio.sleep(0)
        kafka.sent[0].set_result(None)
        assert await repeat == DECISION
        assert len(kafka.sent) == 1

    with_log(steps)


def test_an_append_that_failed_is_made_anew_by_a_repeat() -> None:
    """What Kafka's client has given up isn't waited for."""

    async def steps(log: AcceptedLog, kafka: Kafka, claims: Claims) -> None:
        for number in range(2):
            asking = asyncio.create_task(log.record(DECISION, OnKafkaLoss.REFUSE, clock()))
            await asyncio.sleep(0)
            kafka.sent[number].set_exception(StoreError("kafka", "away"))
            with pytest.raises(NotRecordedError):
                await asking
        assert len(kafka.sent) == 2

    with_log(steps)


def test_answered_without_its_record_there_is_time_left_to_mark_the_claim() -> None:
    """onKafkaLoss Answer: marked before the deadline is over; an acknowledgement after that is enough, nothing is sent twice."""

    async def steps(log: AcceptedLog, kafka: Kafka, claims: Claims) -> None:
        answered = await log.record(DECISION, OnKafkaLoss.ANSWER, clock())
        assert answered["degraded"] == ["kafka_unavailable"]
        assert claims.seconds[0] > 0
        kafka.sent[0].set_result(None)
        await log.drain(1.0)
        assert len(kafka.sent) == 1
        assert claims.appended == [DECISION]

    with_log(steps)


def test_without_any_time_left_it_is_appended_all_the_same() -> None:
    """The decision stands, and others may have seen its event: only its caller isn't waited for."""

    async def steps(log: AcceptedLog, kafka: Kafka, claims: Claims) -> None:
        with pytest.raises(NotRecordedError):
            await log.record(DECISION, OnKafkaLoss.REFUSE, RequestClock(time.perf_counter() - 1.0, DEADLINE))
        kafka.sent[0].set_result(None)
        await log.drain(1.0)
        assert claims.appended == [DECISION]

    with_log(steps)
