"""Watches how far the stream is: asks Redis what is applied and Kafka what was accepted, twice a second, beside the requests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any, Final

from fraud_contracts import metrics
from fraud_contracts.background import watched
from fraud_contracts.config import DetectorConfig
from fraud_contracts.errors import StoreError
from fraud_contracts.lineage import INPUTS, by_place
from fraud_contracts.stream_progress import Applied, in_all
from fraud_process.instruments import Instruments
from fraud_process.kafka import KafkaAccess
from fraud_serving.clients.redis_link import RedisLink, wrong_type
from fraud_serving.clients.topic_extents import TopicExtents
from fraud_serving.decision.profiles_age import AppliedOffsets, Extent, ProfilesAge

_PAUSE: Final = 0.5
_SECONDS: Final = 1.0
_log = logging.getLogger(__name__)


class StreamWatch:
    """Keeps a ``ProfilesAge`` up to date. A store that is away leaves it as it is: time goes on."""

    def __init__(
        self, age: ProfilesAge, redis: RedisLink, config: DetectorConfig, instruments: Instruments
    ) -> None:
        self._age, self._redis, self._instruments = age, redis, instruments
        self._extents = TopicExtents(KafkaAccess.of(config.kafka))
        self._key, self._epoch = config.identity.redis_applied(config.hash6), config.epoch
        self._partitions = range(config.kafka.partitions)
        self._nouns = {config.identity.topic(noun): noun for noun in INPUTS}
        self._applied = AppliedOffsets()
        self._trouble = ""
        self._known = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = watched(asyncio.create_task(self._watch(), name="stream watch"))

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def first_known(self, seconds: float) -> None:
        """Waits until it is known that the profiles are not behind, or ``seconds`` are over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._known.wait()

    async def _watch(self) -> None:
        while True:
            try:
                await self.look()
                self._trouble = ""
            except StoreError as error:
                if not self._trouble:
                    _log.warning("can't tell how far the stream is", extra={"data": {"error": str(error)}})
                self._trouble = str(error)
            if self._age.known:
                self._known.set()
            self._instruments(metrics.PROFILES_AGE).set(self._age.seconds(time.monotonic()))
            await asyncio.sleep(_PAUSE)

    async def look(self) -> None:
        """Asks once; StoreError where one of them doesn't answer."""
        at = time.monotonic()
        [held] = await self._redis.each([("HGETALL", self._key)], _SECONDS)
        applied = self._read([] if wrong_type(held) else held)
        if any(applied.offsets.get(place, -1) < offset for place, offset in self._applied.offsets.items()):
            self._age.forget(at)  # Redis was emptied, or put back
        self._applied = applied
        ends = await self._extents.ends(
            (topic, number) for topic in self._nouns for number in self._partitions
        )
        unread = [
            place for place, end in ends.items() if end and self._place(place) not in self._applied.offsets
        ]
        firsts = await self._extents.firsts(unread)
        extents = {self._place(place): Extent(end, firsts.get(place, 0)) for place, end in ends.items()}
        self._age.update(at, self._applied, extents)

    def _place(self, place: tuple[str, int]) -> tuple[str, int]:
        return self._nouns[place[0]], place[1]

    def _read(self, held: list[Any]) -> AppliedOffsets:
        """Of all partitions of the profiles; what isn't of this lineage says nothing."""
        documents: dict[bytes, Applied] = {}
        for field, value in zip(held[::2], held[1::2], strict=True):
            try:
                documents[field] = Applied.model_validate_json(value)
            except ValueError as error:
                self._instruments.unreadable("applied", error=str(error)[:200])
        parts = [documents.get(str(number).encode()) for number in self._partitions]
        ours = [part for part in parts if part is not None and part.epoch == self._epoch]
        if len(ours) < len(parts):
            return AppliedOffsets()
        offsets = in_all([by_place(part.applied) for part in ours])
        return AppliedOffsets(offsets, tuple(part.beat for part in ours))
