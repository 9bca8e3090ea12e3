"""The durable record of what was decided inline: one append to ``accepted`` each, and the policy where it isn't acknowledged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final

import orjson

from fraud_contracts import metrics
from fraud_contracts.detector_policy import OnKafkaLoss
from fraud_contracts.errors import Degraded, StoreError
from fraud_contracts.records import Decision
from fraud_process.instruments import Instruments
from fraud_serving.clients.kafka_log import KafkaLog
from fraud_serving.decision.errors import NotRecordedError
from fraud_serving.decision.request_claims import RequestClaims

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

    async def record(self, decision: Decision, on_loss: OnKafkaLoss) -> Decision:
        """The decision as its caller hears it; NotRecordedError where Kafka is away and the policy then refuses.

        Else it is answered with a mark, and appended as soon as may be.
        """
        try:
            await self._append(decision)
            return decision
        except StoreError as error:
            _log.warning("not appended", extra={"data": {"error": error.message}})
            if on_loss is OnKafkaLoss.REFUSE or len(self._late) >= _LATE_APPENDS:
                raise NotRecordedError from error
        self._instruments(metrics.DEGRADED, door="inline", degraded=str(Degraded.KAFKA_UNAVAILABLE)).inc()
        marked = await self._claims.mark_kafka_loss(decision)
        self._in_background(self._append_late(marked))
        return marked

    async def _append(self, decision: Decision) -> None:
        event = decision["event"]
        key = event["entities"][self._key_entity] or ""
        record = orjson.dumps({"event": event, "hash": decision["hash"], "decision": decision})
        await self._log.append(self._topic, key.encode(), record)
        self._claims.mark_appended(decision)

    async def _append_late(self, decision: Decision) -> None:
        """Goes on until the record is in the log; a crash before loses it unless the caller repeats the request."""
        pause, longest = _PAUSES
        while True:
            await asyncio.sleep(pause)
            try:
                await self._append(decision)
                return
            except StoreError:
                pause = min(pause * 2, longest)

    def _in_background(self, append: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(append)
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def drain(self, seconds: float) -> None:
        """Waits for late appends, as long as it helps."""
        if self._late:
            await asyncio.wait(set(self._late), timeout=seconds)
