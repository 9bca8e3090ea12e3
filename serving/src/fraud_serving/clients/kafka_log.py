"""Durable appends from an event loop: one librdkafka producer, its callbacks handed over in bursts.

linger is 0 because each millisecond of it would be added to every decision. The polling thread never touches the loop
but through one ``call_soon_threadsafe`` per burst.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import time
from typing import Any, Final

from confluent_kafka import KafkaException, Producer

from fraud_contracts.background import thread
from fraud_contracts.errors import StoreError
from fraud_process.kafka import RENEW_SECONDS, KafkaAccess
from fraud_process.silent_clients import is_forsaken

# So long nothing is acknowledged before somebody asks why.
_FAILING_SECONDS: Final = 30.0


class ForsakenError(Exception):
    """Kafka answers others, and this process's producer no more: only another process helps."""


class KafkaLog:
    """``append`` returns when all in-sync replicas have the record; StoreError where that isn't known within ``delivery_timeout``, in seconds."""

    def __init__(self, kafka: KafkaAccess, delivery_timeout: float) -> None:
        self._kafka, self._timeout = kafka, delivery_timeout
        self._producer = Producer(
            {
                **kafka.producer_settings(),
                "linger.ms": 0,
                "delivery.timeout.ms": int(delivery_timeout * 1000),
                "request.timeout.ms": min(1000, int(delivery_timeout * 1000)),
                "reconnect.backoff.max.ms": 1000,
                "retry.backoff.ms": 10,
                "topic.metadata.refresh.interval.ms": 60_000,
                "log_level": 3,
                "logger": logging.getLogger("librdkafka"),
            }
        )
        self._loop = asyncio.get_running_loop()
        self._done: collections.deque[tuple[asyncio.Future[None], Any]] = collections.deque()
        self._scheduled = False
        # Since when no append has succeeded, as time.monotonic; set and read on the polling thread.
        self._failing: float | None = None
        self._open = True
        self._thread = thread("kafka-poll", self._poll)

    def _poll(self) -> None:
        # It raises after a fatal error, such as the loss of our state on the broker: no append would succeed any more. The process ends with it.
        renewed = time.monotonic()
        while self._open:
            self._producer.poll(0.1)
            if time.monotonic() - renewed > RENEW_SECONDS:
                renewed = time.monotonic()
                self._kafka.renew(self._producer)
            if self._failing is not None and time.monotonic() - self._failing > _FAILING_SECONDS:
                self._failing = None
                if is_forsaken(self._producer, self._kafka.settings()):
                    raise ForsakenError("Kafka answers a new client and not this process's producer")

    def _hand_over(self) -> None:
        self._scheduled = False
        while self._done:
            future, error = self._done.popleft()
            if not future.done():
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(StoreError("kafka", str(error)))

    async def append(self, topic: str, key: bytes, value: bytes) -> None:
        await self.send(topic, key, value)

    def send(self, topic: str, key: bytes, value: bytes) -> asyncio.Future[None]:
        """Done, or failed, as ``append`` is, whether or not somebody waits so long."""
        future: asyncio.Future[None] = self._loop.create_future()

        def delivered(error: Any, _: Any) -> None:  # on the polling thread
            self._done.append((future, error))
            if error is None:
                self._failing = None
            elif self._failing is None:
                self._failing = time.monotonic()
            if not self._scheduled:
                self._scheduled = True
                self._loop.call_soon_threadsafe(self._hand_over)

        try:
            self._producer.produce(topic, value, key, on_delivery=delivered)
        except (BufferError, KafkaException) as error:
            future.set_exception(StoreError("kafka", f"not taken: {error}"))
            return future
        # librdkafka reports its own timeout; this one is for a callback that never comes.
        late = self._loop.call_later(self._timeout + 1.0, _give_up, future)
        future.add_done_callback(lambda _: late.cancel())
        return future

    async def has_topic(self, topic: str, seconds: float = 5.0) -> bool:
        """Whether the broker answers and has the topic; it also fetches what the first append needs."""

        def ask() -> bool:
            try:
                listing = self._producer.list_topics(topic, seconds).topics.get(topic)
            except KafkaException:
                return False
            return listing is not None and listing.error is None

        return await self._loop.run_in_executor(None, ask)

    async def stop(self, seconds: float = 5.0) -> None:
        """Waits for what is under way."""
        await self._loop.run_in_executor(None, self._producer.flush, seconds)
        self._open = False
        await self._loop.run_in_executor(None, self._thread.join, 1.0)


def _give_up(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(StoreError("kafka", "no acknowledgement in time"))
