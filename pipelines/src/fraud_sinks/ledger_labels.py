"""Labels on their way to the ``labels`` topic."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from fraud_contracts.errors import StoreError
from fraud_process.kafka import KafkaAccess
from fraud_sinks.ledger_records import label

PUBLISH_SECONDS: Final = 15.0
# Without a record for so long a topic counts as not readable.
SILENCE_SECONDS: Final = 30.0


def _id(value: bytes | None) -> str:
    event_id = orjson.loads(value or b"")["id"]
    if not isinstance(event_id, str):
        raise TypeError("an id is text")
    return event_id


def _digest(value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=16).digest()


class LabelProducer:
    """Sends labels and awaits the broker's acknowledgement of each. Keys are hashed as Java clients do, which Flink expects."""

    def __init__(self, kafka: KafkaAccess, topic: str, key_entity: str) -> None:
        self._kafka, self._topic, self._key_entity = kafka, topic, key_entity
        self._producer = Producer(
            kafka.producer_settings(delivery_timeout_ms=int(PUBLISH_SECONDS * 1000), linger_ms=2)
        )

    def send(self, rows: Iterable[dict[str, Any]], published: Mapping[str, bytes] | None = None) -> None:
        """``published``: what ``last`` gave; a label that is its id's newest in the topic already isn't sent again."""
        self._kafka.renew(self._producer)
        failed: list[str] = []

        def delivered(error: Any, _: Any) -> None:
            if error is not None:
                failed.append(str(error))

        try:
            for row in rows:
                value = orjson.dumps(label(row))
                if published is not None and published.get(row["id"]) == _digest(value):
                    continue
                key = row["entities"].get(self._key_entity) or row["id"]
                self._producer.produce(self._topic, value, key.encode(), on_delivery=delivered)
            waiting = self._producer.flush(PUBLISH_SECONDS + 5)
        except (KafkaException, BufferError) as error:
            raise StoreError("kafka", f"labels: {error}") from error
        if waiting or failed:
            raise StoreError("kafka", f"labels not published: {failed[:1] or waiting}")

    def last(self) -> tuple[dict[str, bytes], int]:
        """-> (by id the digest of its newest label in the topic, how many records are no labels), read from its beginning.

        For a database that doesn't know what was published.
        """
        reader = Consumer(
            {
                **self._kafka.settings(),
                "group.id": f"{self._topic}.last",  # never committed to
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
            }
        )
        digests: dict[str, bytes] = {}
        unreadable = 0
        try:
            metadata = reader.list_topics(self._topic, timeout=10).topics.get(self._topic)
            unread = set(metadata.partitions) if metadata is not None and metadata.error is None else set()
            reader.assign([TopicPartition(self._topic, partition, 0) for partition in unread])
            until = time.monotonic() + SILENCE_SECONDS
            while unread:
                for message in reader.consume(1_000, 0.2):
                    error = message.error()
                    if error is None:
                        try:
                            digests[_id(message.value())] = _digest(message.value())
                        except (ValueError, TypeError, KeyError):
                            unreadable += 1
                        until = time.monotonic() + SILENCE_SECONDS
                    elif error.code() == KafkaError._PARTITION_EOF:
                        unread.discard(message.partition())
                if time.monotonic() > until:
                    raise StoreError("kafka", f"{self._topic} can't be read to its end")
        except KafkaException as error:
            raise StoreError("kafka", f"{self._topic}: {error}") from error
        finally:
            reader.close()
        return digests, unreadable
