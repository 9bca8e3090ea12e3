"""How far behind a consumer group is, read from Kafka itself."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from fraud_contracts.errors import StoreError

LOG: Final = logging.getLogger(__name__)
TIMEOUT: Final = 4.0
# What a partition reports for a group that has never committed there.
_NONE: Final = -1001


@dataclass
class LagReader:
    """Keeps one idle client for each group: a new one would look up the whole cluster in every pass.

    It never joins the group: it neither subscribes nor commits.
    """

    _clients: dict[tuple[str, str], Consumer] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def _client(self, bootstrap: str, group: str) -> Consumer:
        with self._lock:
            key = (bootstrap, group)
            if key not in self._clients:
                self._clients[key] = Consumer(
                    {
                        "bootstrap.servers": bootstrap,
                        "group.id": group,
                        "enable.auto.commit": False,
                        "socket.timeout.ms": 4000,
                        "log_level": 2,
                        "logger": logging.getLogger("fraud_operator.kafka"),
                    }
                )
            return self._clients[key]

    def read(self, bootstrap: str, group: str, topic: str, partitions: int) -> tuple[int, int]:
        """(records not committed yet, records written) over all partitions; StoreError where Kafka gives no answer."""
        client = self._client(bootstrap, group)
        lag = written = 0
        try:
            committed = client.committed(
                [TopicPartition(topic, p) for p in range(partitions)], timeout=TIMEOUT
            )
            for position in committed:
                if position.error is not None:
                    raise StoreError("kafka", f"{topic}: {position.error}")
                low, high = client.get_watermark_offsets(
                    TopicPartition(topic, position.partition), timeout=TIMEOUT, cached=False
                )
                at = low if position.offset == _NONE or position.offset < low else position.offset
                lag += max(0, high - at)
                written += high - low
        except KafkaException as error:
            raise StoreError(
                "kafka", f"{bootstrap} gave no offsets of {topic} for {group}: {error.args[0]}"
            ) from error
        return lag, written
