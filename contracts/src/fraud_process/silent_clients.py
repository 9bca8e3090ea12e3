"""Notices clients of Kafka that have fallen silent while Kafka answers others.

librdkafka's may do so for ever, with no error, when a broker comes back: they take an answer that names no broker for the truth and
forget those they knew (https://github.com/confluentinc/librdkafka/issues/5301), or keep to a coordinator that they no longer connect
to (issue 5511). Seen with 2.16 after a broker's restart: a consumer that fetched nothing and was in no group any more; by which of these
isn't known. The process lives on and looks well; only a new one helps.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from confluent_kafka import OFFSET_STORED, KafkaError, KafkaException, Producer, TopicPartition

from fraud_process.unread_records import committed_reader

# So long nothing has come before a look, and again before the next one; who is behind for another reason moves meanwhile.
QUIET_SECONDS: Final = 30.0
_SECONDS: Final = 5.0

_log = logging.getLogger(__name__)


def is_forsaken(producer: Producer, settings: Mapping[str, Any]) -> bool:
    """Whether Kafka gives no answer to this producer and one to a new client of these settings. Takes ten seconds at most."""
    return not _is_answered(producer) and _is_answered(Producer({"log_level": 2, **settings}))


def _is_answered(producer: Producer) -> bool:
    try:
        return bool(producer.list_topics(timeout=_SECONDS).brokers)
    except KafkaException:
        return False


class ConsumerWatch:
    """Notices that a consumer gets nothing though records wait for it.

    The consumer is in ``group`` and commits what it has consumed; ``settings`` gives those of any client, with its login of now.
    """

    def __init__(
        self,
        settings: Callable[[], Mapping[str, Any]],
        group: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._group, self._clock = settings, group, clock
        self._since = clock()
        self._waiting: tuple[str, int, int] | None = None

    def heard(self) -> None:
        """The consumer has got something."""
        self._since, self._waiting = self._clock(), None

    def waiting(self, partitions: Iterable[tuple[str, int]]) -> str:
        """Which record has waited for two looks, empty where none has. ``partitions``, (topic, number), are the consumer's.

        To be called while nothing comes; each QUIET_SECONDS it asks Kafka with a client of its own, five seconds at most.
        """
        if self._clock() - self._since < QUIET_SECONDS:
            return ""
        before, self._waiting = self._waiting, self._first([TopicPartition(*one) for one in partitions])
        self._since = self._clock()
        if self._waiting is None or self._waiting != before:
            return ""
        topic, partition, offset = self._waiting
        return f"{topic} [{partition}] has a record at {offset}, which this process's consumer doesn't get"

    def _first(self, partitions: list[TopicPartition]) -> tuple[str, int, int] | None:
        """The first record after what the group has committed; None where there is none, or Kafka gives no answer."""
        if not partitions:
            return None
        reader = committed_reader(self._settings(), self._group)
        try:
            reader.assign([TopicPartition(one.topic, one.partition, OFFSET_STORED) for one in partitions])
            until, ended = time.monotonic() + _SECONDS, set[tuple[str | None, int | None]]()
            while len(ended) < len(partitions) and time.monotonic() < until:
                for message in reader.consume(1, 0.2):
                    topic, partition, offset = message.topic(), message.partition(), message.offset()
                    error = message.error()
                    if error is None and topic is not None and partition is not None and offset is not None:
                        return topic, partition, offset
                    if error is not None and error.code() == KafkaError._PARTITION_EOF:
                        ended.add((topic, partition))
        except KafkaException as error:
            _log.warning("no answer", extra={"data": {"group": self._group, "error": str(error)}})
        finally:
            reader.close()
        return None
