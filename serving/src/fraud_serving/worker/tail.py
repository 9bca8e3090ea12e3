"""Reads the newest decisions of a partition that comes to this worker, so that a record that comes again is known before it is decided.

As a rule only those whose claims may not say yet that they are published: the last batches of the worker before. How far the
claims vouch is committed with the offsets, as their metadata. Where Redis can't be relied on, all that are remembered.
"""

from __future__ import annotations

import logging
import time
from typing import Final

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

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
    def __init__(
        self,
        of: Identity,
        transactions: Transactions,
        processor: BatchProcessor,
    ) -> None:
        self._of, self._transactions, self._processor = of, transactions, processor
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
        count = self._scan(TopicPartition(place.topic, partition, start), high)
        self._processor.vouch(partition, vouched, high)
        seconds = round(time.monotonic() - began, 2)
        data = {"partition": partition, "read": count, "seconds": seconds}
        _log.info("decisions remembered", extra={"data": data})

    def _scan(self, start: TopicPartition, high: int) -> int:
        count = 0
        try:
            for message in self._transactions.visible.read(start, high, TAIL_SECONDS):
                count += 1
                self._remember(message)
        except KafkaException as error:
            raise FatalError(f"the tail of {start.topic} [{start.partition}] can't be read") from error
        return count

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
