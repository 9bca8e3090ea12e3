"""Reads the newest decisions of a partition that comes to this worker, so that a record that comes again is known before it is decided.

As a rule only those whose claims may not say yet that they are published: the last batches of the worker before. How far the
claims vouch is committed with the offsets, as their metadata. Where Redis can't be relied on, all that are remembered.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from fraud_contracts.errors import Degraded
from fraud_contracts.names import Identity
from fraud_serving import stored_records
from fraud_serving.worker.client_errors import FatalError
from fraud_serving.worker.processor import BatchProcessor
from fraud_serving.worker.published_ids import KEPT, DecisionStamp, Publication
from fraud_serving.worker.transactions import Transactions
from fraud_serving.worker.visible_records import CALL_SECONDS

# At least so many offsets: whether the newest decisions have their claims tells of a loss while no worker ran.
LOOKED_AT: Final = 256
TAIL_SECONDS: Final = 60.0
_log = logging.getLogger(__name__)


class DecisionsTail:
    """``settings`` gives those of any client of the broker."""

    def __init__(
        self,
        settings: Callable[[], dict[str, Any]],
        of: Identity,
        transactions: Transactions,
        processor: BatchProcessor,
        heartbeat: Callable[[], None],
    ) -> None:
        self._settings, self._of = settings, of
        self._transactions, self._processor, self._heartbeat = transactions, processor, heartbeat
        # Partitions of which all is known that is remembered.
        self._whole: set[int] = set()

    def take_over(self, consumer: Consumer, partition: int) -> None:
        """Remembers what may be published without its claim saying so."""
        asked = [TopicPartition(self._of.topic("features"), partition)]
        committed: list[TopicPartition] = []
        self._transactions.retry(
            "committed", lambda: committed.extend(consumer.committed(asked, CALL_SECONDS)), reading=True
        )
        if committed[-1].error is not None:
            raise KafkaException(committed[-1].error)
        metadata = committed[-1].metadata or ""
        self._read(partition, int(metadata) if metadata.isdigit() else None)

    def forget(self, partition: int) -> None:
        self._whole.discard(partition)

    def complete(self, partitions: set[int]) -> bool:
        """Reads of these partitions all that is remembered; -> whether anything was left to read."""
        left = partitions - self._whole
        for partition in sorted(left):
            self._read(partition, None)
        return bool(left)

    def _read(self, partition: int, vouched: int | None) -> None:
        """``vouched``: claims of what lies before that offset say that it is published."""
        began = time.monotonic()
        place = TopicPartition(self._of.topic("decisions"), partition)
        low, high = self._transactions.visible.ends(place)
        farthest = max(low, high - 2 * KEPT)  # with markers and what was aborted
        if vouched is None or vouched > high:  # nobody says, or of a topic that was made anew
            vouched = farthest
        start = max(farthest, min(vouched, high - LOOKED_AT))
        if start == farthest:
            self._whole.add(partition)
        count = self._scan(TopicPartition(place.topic, partition, start), high) if start < high else 0
        self._processor.vouch(partition, vouched, high)
        seconds = round(time.monotonic() - began, 2)
        data = {"partition": partition, "read": count, "seconds": seconds}
        _log.info("decisions remembered", extra={"data": data})

    def _scan(self, start: TopicPartition, high: int) -> int:
        reader = Consumer(
            {
                **self._settings(),
                "group.id": self._of.group("worker.tail"),
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 100,
                "enable.partition.eof": True,
            }
        )
        count = 0
        try:
            reader.assign([start])
            until = time.monotonic() + TAIL_SECONDS
            while True:
                self._heartbeat()
                for message in reader.consume(1000, 0.1):
                    error = message.error()
                    if error is None:
                        count += 1
                        self._remember(message)
                    elif error.code() == KafkaError._PARTITION_EOF and message.offset() >= high:
                        return count
                # The end of committed records may lie before ``high`` until another worker's transaction ends.
                if time.monotonic() > until:
                    raise FatalError(f"the tail of {start.topic} [{start.partition}] can't be read")
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
        if not claimed:  # its worker may have ended before Redis was there to be told
            self._processor.unclaimed_record(message.value() or b"", decision["id"])
