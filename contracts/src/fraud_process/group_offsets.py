"""How far a consumer group has read for good, asked by who isn't in it.

Not by the admin client: its question ends the process where the coordinator has just moved, as after a broker's restart
(librdkafka 2.16, https://github.com/confluentinc/librdkafka/issues/5040).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

# A coordinator that has moved, or reads its state, answers a moment later.
_MOVING: Final = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
)
_PAUSE: Final = 0.1


def committed_offsets(
    settings: Mapping[str, Any], group: str, places: Iterable[tuple[str, int]], seconds: float
) -> dict[tuple[str, int], int]:
    """By (topic, partition), of those that the group has committed; KafkaException where Kafka gives no answer in time.

    ``settings`` are those of any client. It joins no group: it neither subscribes nor commits.
    """
    asked = [TopicPartition(topic, partition) for topic, partition in places]
    until = time.monotonic() + seconds
    consumer = Consumer(
        {"log_level": 2, **settings, "group.id": group, "enable.auto.commit": False},
        logger=logging.getLogger("fraud_process.kafka"),
    )
    try:
        while True:
            try:
                found = consumer.committed(asked, timeout=max(_PAUSE, until - time.monotonic()))
                break
            except KafkaException as error:
                if error.args[0].code() not in _MOVING or time.monotonic() > until:
                    raise
                time.sleep(_PAUSE)
        for place in found:
            if place.error is not None:
                raise KafkaException(place.error)
        return {(place.topic, place.partition): place.offset for place in found if place.offset >= 0}
    finally:
        consumer.close()
