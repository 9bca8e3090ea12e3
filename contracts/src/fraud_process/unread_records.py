"""Whether a partition may hold a record between two offsets that a reader will yet get.

An offset is no record's everywhere: the ends of transactions take one each, and aborted records are nobody's. Readers get
neither, so a group that has read all may never commit the end of a topic that is written in transactions.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

_PAUSE: Final = 0.2


def committed_reader(settings: Mapping[str, Any], group: str) -> Consumer:
    """A client that is assigned what it reads, sees what is committed and each end, and itself commits nothing."""
    return Consumer(
        {
            "log_level": 2,
            **settings,
            "group.id": group,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
        },
        logger=logging.getLogger("fraud_process.kafka"),
    )


def may_hold_record(
    settings: Mapping[str, Any], group: str, place: tuple[str, int], begin: int, end: int, seconds: float
) -> bool:
    """Of a (topic, partition); KafkaException where Kafka doesn't tell in time.

    ``end`` is to be the high watermark, which a client that reads only what is committed isn't told. While a transaction is
    open that began before it, there may be one: its own, or one that was committed behind its first, as readers see neither yet.
    ``settings`` are those of any client; ``group`` is joined by nobody, and nothing is committed.
    """
    consumer = committed_reader(settings, group)
    until = time.monotonic() + seconds
    error = KafkaError(KafkaError._TIMED_OUT, "the end wasn't found in time")
    try:
        consumer.assign([TopicPartition(*place, begin)])
        while time.monotonic() < until:
            for message in consumer.consume(100, _PAUSE):
                failed = message.error()
                # The end that such a reader sees is the first record of an open transaction, where there is one.
                if failed is None or failed.code() == KafkaError._PARTITION_EOF:
                    return bool(message.offset() < end)
                error = failed  # a broker that is away may come back
        raise KafkaException(error)
    finally:
        consumer.close()
