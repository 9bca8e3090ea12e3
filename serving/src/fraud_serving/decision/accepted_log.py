"""The durable record of what was decided inline: one append to ``accepted`` each, and the policy where it isn't acknowledged in time.

An append goes on, whatever its caller was told, until Kafka's client gives it up: who repeats the request meanwhile waits for the same one.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Final

import orjson

from fraud_contracts import metrics
from fraud_contracts.detector_policy import OnKafkaLoss
from fraud_contracts.errors import Degraded
from fraud_contracts.records import Decision
from fraud_process.instruments import Instruments
from fraud_serving.clients.kafka_log import KafkaLog
from fraud_serving.decision.errors import NotRecordedError
from fraud_serving.decision.request_claims import RequestClaims
from fraud_serving.decision.request_clock import RECORDED, RequestClock

_LATE_APPENDS: Final = 10_000
_PAUSES: Final = (0.5, 10.0)  # seconds between the tries of a late append, at first and at most
_log = logging.getLogger(__name__)


class AcceptedLog:
    """``key_entity`` is the entity whose token is the record's key."""

    def __init__(
        self, log: KafkaLog, topic: str, key_entity: str, claims: RequestClaims, instruments: Instruments
    ) -> None:
        self._log, self._topic, self._key_entity = log, topic, key_entity
        self._claims, self._instruments = claims, instruments
        self._late: set[asyncio.Task[None]] = set()
        # Appends that are under way, by the decision: its id, and when it was made.
        self._sent: dict[tuple[str, int], asyncio.Future[None]] = {}

    async def record(self, decision: Decision, on_loss: OnKafkaLoss, clock: RequestClock) -> Decision:
        """The decision as its caller hears it; NotRecordedError where Kafka has no record of it in time and the policy then refuses.

        Else it is answered with a mark, and appended as soon as may be.
        """
        sent = self._append(decision)
        refuses = on_loss is OnKafkaLoss.REFUSE or len(self._late) >= _LATE_APPENDS
        await asyncio.wait([sent], timeout=clock.left(1.0 if refuses else RECORDED))
        if sent.done() and sent.exception() is None:
            return decision
        if refuses:
            raise NotRecordedError
        self._instruments(metrics.DEGRADED, door="inline", degraded=str(Degraded.KAFKA_UNAVAILABLE)).inc()
        marked = await self._claims.mark_kafka_loss(decision, clock.left(at_least=1.0 - RECORDED))
        task = asyncio.create_task(self._append_late(sent, marked))
        self._late.add(task)
        task.add_done_callback(self._late.discard)
        return marked

    def _append(self, decision: Decision) -> asyncio.Future[None]:
        """The decision's append: a new one, where none is under way."""
        place = decision["id"], decision["decided"]
        sent = self._sent.get(place)
        if sent is None:
            event = decision["event"]
            key = event["entities"][self._key_entity] or ""
            record = orjson.dumps({"event": event, "hash": decision["hash"], "decision": decision})
            sent = self._sent[place] = self._log.send(self._topic, key.encode(), record)
            sent.add_done_callback(partial(self._ended, decision))
        return sent

    def _ended(self, decision: Decision, sent: asyncio.Future[None]) -> None:
        del self._sent[decision["id"], decision["decided"]]
        error = sent.exception()
        if error is None:
            self._claims.mark_appended(decision)
        else:
            _log.warning("not appended", extra={"data": {"error": str(error)}})

    async def _append_late(self, sent: asyncio.Future[None], decision: Decision) -> None:
        """Goes on until the record is in the log; a crash before loses it unless the caller repeats the request."""
        pause, longest = _PAUSES
        while True:
            await asyncio.wait([sent])
            if sent.exception() is None:
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)
            sent = self._append(decision)

    async def drain(self, seconds: float) -> None:
        """Waits for appends under way, as long as it helps."""
        waited_for = {*self._late, *self._sent.values()}
        if waited_for:
            await asyncio.wait(waited_for, timeout=seconds)
