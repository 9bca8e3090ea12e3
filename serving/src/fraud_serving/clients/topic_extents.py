"""Where topics begin and end, asked from an event loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from fraud_contracts.errors import StoreError
from fraud_process.kafka import RENEW_SECONDS, KafkaAccess

_SECONDS: Final = 2.0
# A client that had no answer for so long gives way to another: one may be deaf while Kafka answers others.
_SILENT_SECONDS: Final = 30.0
Place = tuple[str, int]


class TopicExtents:
    def __init__(self, kafka: KafkaAccess) -> None:
        self._kafka = kafka
        self._client: AdminClient | None = None
        self._answered = self._renewed = time.monotonic()

    async def ends(self, places: Iterable[Place]) -> dict[Place, int]:
        """The offset after the last record, by (topic, partition); StoreError where Kafka doesn't say all in time."""
        return await self._ask(places, OffsetSpec.latest())

    async def firsts(self, places: Iterable[Place]) -> dict[Place, int]:
        """The first offset that is kept, as ``ends``."""
        return await self._ask(places, OffsetSpec.earliest())

    async def _ask(self, places: Iterable[Place], spec: Any) -> dict[Place, int]:
        asked = {TopicPartition(*place): spec for place in places}
        if not asked:
            return {}
        try:
            futures: dict[TopicPartition, Future[Any]] = self._current().list_offsets(
                asked, request_timeout=_SECONDS
            )
            async with asyncio.timeout(_SECONDS + 1.0):
                offsets = await asyncio.gather(*(asyncio.wrap_future(one) for one in futures.values()))
        except (KafkaException, TimeoutError, OSError) as error:
            raise StoreError("kafka", f"no ends of topics: {error}") from error
        self._answered = time.monotonic()
        return {
            (place.topic, place.partition): found.offset
            for place, found in zip(futures, offsets, strict=True)
        }

    def _current(self) -> AdminClient:
        now = time.monotonic()
        if self._client is None or now - self._answered > _SILENT_SECONDS:
            settings = {**self._kafka.settings(), "socket.timeout.ms": int(_SECONDS * 1000), "log_level": 2}
            self._client = AdminClient({**settings, "logger": logging.getLogger("librdkafka")})
            self._answered = self._renewed = now
        elif now - self._renewed > RENEW_SECONDS:
            self._kafka.renew(self._client)
            self._renewed = now
        return self._client
