"""Kafka side of the worker: a batch, what is decided of it, one transaction with the offsets; exactly once for committed readers.

A fatal error, or being fenced, ends the process; others, or its successor, go on from what it has committed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaException, Message, TopicPartition

from fraud_contracts.config import DetectorConfig
from fraud_contracts.records import Source
from fraud_process.kafka import KEEPS_BROKERS, RENEW_SECONDS, KafkaAccess
from fraud_process.silent_clients import ConsumerWatch
from fraud_process.topic_ids import topic_id
from fraud_serving.worker.batch import BatchResult, Incoming, Outgoing, read_incoming
from fraud_serving.worker.client_errors import FatalError, StaleMembershipError
from fraud_serving.worker.intake import Intake
from fraud_serving.worker.processor import BatchProcessor
from fraud_serving.worker.tail import DecisionsTail
from fraud_serving.worker.transactions import Transactions
from fraud_serving.worker.visible_records import CALL_SECONDS

_log = logging.getLogger(__name__)


class WorkerLoop:
    def __init__(
        self, config: DetectorConfig, processor: BatchProcessor, heartbeat: Callable[[], None]
    ) -> None:
        self._config, self._processor, self._heartbeat = config, processor, heartbeat
        self._of = config.identity
        self._features = self._of.topic("features")
        self.stopping = False
        self._kafka = KafkaAccess.of(config.kafka)
        self._transactions = Transactions(self._settings, self._of, config.kafka.partitions, heartbeat)
        self._tail = DecisionsTail(self._of, self._transactions, processor)
        self._watch = ConsumerWatch(self._settings, self._of.group("worker"))
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
        intake = Intake(self._consumer_settings(), self._features)
        try:
            while not self.stopping:
                self._turn(intake)
            self._processor.idle()
        except KafkaException as error:
            raise FatalError(str(error)) from error
        finally:
            intake.leave()

    def _turn(self, intake: Intake) -> None:
        self._heartbeat()
        self._renew(intake)
        batch = intake.take()
        self._take_over(intake)
        try:
            if batch:
                self._watch.heard()
                self._commit(intake, batch)
            else:
                self._idle(intake)
        except StaleMembershipError as error:
            _log.info("the group has moved on", extra={"data": {"error": str(error)}})
            intake.put_back(batch)

    def _take_over(self, intake: Intake) -> None:
        """Before anything of a partition that came is decided, what its worker left open is ended, and what that published is known."""
        gone, new = intake.changes()
        if not gone and not new:
            return
        for partition in gone:
            self._processor.forget(partition)
            self._tail.forget(partition)
        self._transactions.hold(intake.assigned, new)
        self._processor.publishes_to(self._decisions_id())
        for partition in sorted(new):
            self._tail.take_over(intake.consumer, partition)
        _log.info(
            "partitions moved",
            extra={"data": {"gone": sorted(gone), "come": sorted(new), "own": sorted(intake.assigned)}},
        )

    def _decisions_id(self) -> str:
        """Empty where the broker doesn't say: then claims don't say where their decisions lie."""
        topic = self._of.topic("decisions")
        self._heartbeat()
        try:
            return topic_id(self._settings(), topic, CALL_SECONDS)
        except KafkaException as error:
            _log.warning("no id of a topic", extra={"data": {"topic": topic, "error": str(error.args[0])}})
            return ""

    def _idle(self, intake: Intake) -> None:
        if intake.token is not None:
            self._transactions.idle(intake.token)
        self._processor.idle()
        self._heartbeat()
        # Without a partition it may have lost all of them: others, or their successors, move.
        partitions = intake.assigned or range(self._config.kafka.partitions)
        waiting = self._watch.waiting((self._features, one) for one in partitions)
        if waiting:
            raise FatalError(waiting)

    def _renew(self, intake: Intake) -> None:
        if time.monotonic() - self._renewed > RENEW_SECONDS:
            self._renewed = time.monotonic()
            self._kafka.renew(intake.consumer, *self._transactions.producers())

    def _commit(self, intake: Intake, batch: list[Message]) -> None:
        readable: list[Message] = []
        incoming: list[Incoming] = []
        unreadable: list[Outgoing] = []
        for message in batch:
            try:
                incoming.append(_read(message))
                readable.append(message)
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
        result = self._decide(intake, incoming, readable)
        result.outgoing += unreadable
        after: dict[int, int] = {}
        for message in batch:
            after[message.partition()] = max(message.offset() + 1, after.get(message.partition(), 0))
        offsets = [self._place(partition, offset) for partition, offset in after.items()]
        ends = self._transactions.publish(result.outgoing, offsets, intake.token)
        self._processor.committed(result, ends)

    def _decide(self, intake: Intake, incoming: list[Incoming], readable: list[Message]) -> BatchResult:
        result = self._processor.process(incoming)
        # What claims don't tell now the log does; nothing of the first try is published or remembered.
        if self._processor.blind and self._tail.complete(intake.assigned):
            result = self._processor.process([_read(message) for message in readable])
        return result

    def _place(self, partition: int, offset: int) -> TopicPartition:
        """How far is read for good; with it how far a successor needn't look into ``decisions``."""
        vouched = self._processor.vouched(partition)
        return TopicPartition(self._features, partition, offset, "" if vouched is None else str(vouched))


def _read(message: Message) -> Incoming:
    return read_incoming(message.partition(), message.key() or b"", message.value() or b"")
