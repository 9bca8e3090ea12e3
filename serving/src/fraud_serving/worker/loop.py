"""Kafka side of the worker: a batch, what is decided of it, one transaction with the offsets; exactly once for committed readers.

A fatal error, or being fenced, ends the process; its successor has the same ordinal, hence the same transactional id.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from fraud_contracts.config import DetectorConfig
from fraud_contracts.errors import Degraded
from fraud_contracts.records import Source
from fraud_process.kafka import KEEPS_BROKERS, RENEW_SECONDS, KafkaAccess
from fraud_process.silent_clients import ConsumerWatch
from fraud_serving import stored_records
from fraud_serving.worker.batch import Incoming, Outgoing, read_incoming
from fraud_serving.worker.processor import BatchProcessor
from fraud_serving.worker.published_ids import KEPT, DecisionStamp, Publication
from fraud_serving.worker.transactions import FatalError, Transactions, past_use

BATCH: Final = 64
# Transactions are at least so far apart unless a batch is full: below it, latency gains nothing and the broker pays.
PACE: Final = 0.020
TAIL_SECONDS: Final = 60.0
_log = logging.getLogger(__name__)


class WorkerLoop:
    def __init__(
        self, config: DetectorConfig, ordinal: int, processor: BatchProcessor, heartbeat: Callable[[], None]
    ) -> None:
        self._config, self._processor, self._heartbeat = config, processor, heartbeat
        self._of = config.identity
        self._id = self._of.transactional_id(ordinal)  # the static member's, too
        self._features, self._decisions = self._of.topic("features"), self._of.topic("decisions")
        self._assigned: set[int] = set()
        self.stopping = False
        self._kafka = KafkaAccess.of(config.kafka)
        self._transactions = Transactions(
            self._settings, self._of, ordinal, config.kafka.partitions, heartbeat
        )
        self._consumer: Consumer | None = None
        self._watch = ConsumerWatch(self._settings, self._of.group("worker"))
        self._last = 0.0
        self._renewed = time.monotonic()

    def _settings(self) -> dict[str, Any]:
        """Those of every client here."""
        return {
            **self._kafka.settings(),
            "retry.backoff.ms": 10,  # 100, the default, is what a commit's successor would wait while markers are written
            "reconnect.backoff.max.ms": 1000,
            **KEEPS_BROKERS,  # also send_offsets_to_transaction wouldn't come back
            "log_level": 3,
            "logger": logging.getLogger("librdkafka"),
        }

    def _consumer_settings(self) -> dict[str, Any]:
        return {
            **self._settings(),
            "group.id": self._of.group("worker"),
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 100,
        }

    def run(self) -> None:
        """Until ``stopping``; FatalError where only a new process helps."""
        # Before subscribing: the broker then has ended what our predecessor left open.
        self._transactions.start()
        self._processor.publishes_to(self._transactions.topic_id(self._decisions))
        consumer = Consumer(
            {**self._consumer_settings(), "group.instance.id": self._id, "session.timeout.ms": 45_000}
        )
        self._consumer = consumer
        try:
            consumer.subscribe(
                [self._features],
                on_assign=self._on_assign,
                on_revoke=self._on_revoke,
                on_lost=self._on_revoke,
            )
            while not self.stopping:
                self._heartbeat()
                self._renew(consumer)
                batch = self._take(consumer)
                if batch:
                    self._watch.heard()
                    self._commit(consumer, batch)
                else:
                    self._idle(consumer)
        except KafkaException as error:
            raise FatalError(str(error)) from error
        # Only after a clean end: where something is broken, closing may wait for it for ever (seen after a killed broker),
        # and a static member needs no farewell.
        consumer.close()

    def _idle(self, consumer: Consumer) -> None:
        self._transactions.idle(consumer.consumer_group_metadata())
        self._processor.idle()
        self._heartbeat()
        # Without a partition it may have lost all of them: others, or their successors, move.
        partitions = self._assigned or range(self._config.kafka.partitions)
        waiting = self._watch.waiting((self._features, one) for one in partitions)
        if waiting:
            raise FatalError(waiting)

    def _renew(self, consumer: Consumer) -> None:
        if time.monotonic() - self._renewed > RENEW_SECONDS:
            self._renewed = time.monotonic()
            self._kafka.renew(consumer, self._transactions.producer)

    def _take(self, consumer: Consumer) -> list[Message]:
        """Blocks for a first record, waits out the pace, takes what is there."""
        messages = consumer.consume(1, 0.2)
        if not messages:
            return []
        rest = self._last + PACE - time.monotonic()
        if rest > 0:
            time.sleep(rest)
        messages += consumer.consume(BATCH - 1, 0)
        self._last = time.monotonic()
        good: list[Message] = []
        for message in messages:
            error = message.error()
            if error is None:
                # A rebalance between the two calls may have given a partition away.
                if message.partition() in self._assigned:
                    good.append(message)
            elif past_use(error):
                raise FatalError(str(error))
            else:
                _log.warning("consumer error", extra={"data": {"error": str(error)}})
        return good

    def _commit(self, consumer: Consumer, batch: list[Message]) -> None:
        incoming: list[Incoming] = []
        unreadable: list[Outgoing] = []
        for message in batch:
            try:
                incoming.append(
                    read_incoming(message.partition(), message.key() or b"", message.value() or b"")
                )
            except ValueError as error:
                # Only the stream writes here, so this is a fault of ours; one record must not stop all that follow.
                source: Source = {
                    "topic": self._features,
                    "partition": message.partition(),
                    "offset": message.offset(),
                }
                unreadable.append(
                    self._processor.unreadable(message.value() or b"", source, message.timestamp()[1], error)
                )
        self._heartbeat()
        result = self._processor.process(incoming)
        result.outgoing += unreadable
        after: dict[int, int] = {}
        for message in batch:
            after[message.partition()] = max(message.offset() + 1, after.get(message.partition(), 0))
        offsets = [TopicPartition(self._features, partition, offset) for partition, offset in after.items()]
        group = consumer.consumer_group_metadata()
        self._transactions.publish(result.outgoing, offsets, group)
        self._processor.committed(result)

    def _on_assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            start = time.monotonic()
            self._read_tail(partition.partition)
            tail: dict[str, Any] = {
                "partition": partition.partition,
                "known": len(self._processor.published_ids),
                "seconds": round(time.monotonic() - start, 2),
            }
            _log.info("partition assigned", extra={"data": tail})
            self._assigned.add(partition.partition)

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            self._assigned.discard(partition.partition)
            self._processor.forget(partition.partition)

    def _read_tail(self, partition: int) -> None:
        """Remembers the newest committed decisions of a partition, so that repeats are known before the first poll."""
        reader = Consumer(
            {
                **self._consumer_settings(),
                "group.id": self._of.group("worker.tail"),
                "enable.partition.eof": True,
            }
        )
        try:
            place = TopicPartition(self._decisions, partition)
            low, high = self._transactions.watermarks(place, "read_committed")
            if high <= low:
                return
            reader.assign([TopicPartition(self._decisions, partition, max(low, high - 2 * KEPT))])
            until = time.monotonic() + TAIL_SECONDS
            while True:
                self._heartbeat()
                for message in reader.consume(1000, 0.1):
                    error = message.error()
                    if error is None:
                        self._remember(message)
                    elif error.code() == KafkaError._PARTITION_EOF and message.offset() >= high:
                        return
                # The end of committed records may lie before ``high`` until another worker's transaction ends.
                if time.monotonic() > until:
                    raise FatalError(f"the tail of {self._decisions} [{partition}] can't be read")
        finally:
            reader.close()

    def _remember(self, message: Message) -> None:
        try:
            decision = stored_records.read_published(message.value())
        except ValueError as error:
            at = {"partition": message.partition(), "offset": message.offset()}
            self._processor.instruments.unreadable("decision", **at, error=str(error))
            return
        stamp = DecisionStamp(decision["hash"], decision["decided"])
        claimed = Degraded.IDEMPOTENCY not in decision.get("degraded", ())
        one = Publication(decision["id"], stamp, decision.get("action", ""), message.offset())
        self._processor.remember(message.partition(), [one], claimed)
