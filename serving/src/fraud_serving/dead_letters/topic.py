"""The topic of dead letters as a command reads it, and the memory of what was redriven."""

from __future__ import annotations

import argparse
import base64
import time
import zlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource

from fraud_contracts.config import DetectorConfig
from fraud_contracts.records import DeadLetter
from fraud_process.kafka import KafkaAccess
from fraud_process.topic_ids import topic_id
from fraud_serving import stored_records

MAX_METADATA: Final = 4096  # the broker's offset.metadata.max.bytes, where nobody changed it
PATIENCE: Final = 30.0
RETENTION: Final = "offsets.retention.minutes"


class DeadLetterError(Exception):
    """What keeps the command from being done, for the person who gave it."""


class Position(NamedTuple):
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Position:
        partition, _, offset = text.partition(":")
        if not (partition.isascii() and partition.isdigit() and offset.isascii() and offset.isdigit()):
            raise argparse.ArgumentTypeError(f"{text!r} is no position: write PARTITION:OFFSET, as in 0:42")
        return cls(int(partition), int(offset))


def pack(base: int, offsets: set[int]) -> str:
    """Offsets from ``base`` on as text for a commit's metadata; long runs and sparse sets both stay short."""
    bits = 0
    for offset in offsets:
        if offset >= base:
            bits |= 1 << (offset - base)
    raw = bits.to_bytes((bits.bit_length() + 7) // 8, "little")
    return base64.b64encode(zlib.compress(raw, 9)).decode()


def unpack(base: int, text: str) -> set[int]:
    """The inverse of ``pack``; ValueError where the metadata isn't ours."""
    if not text:
        return set()
    try:
        raw = zlib.decompress(base64.b64decode(text, validate=True))
    except (ValueError, zlib.error) as error:
        raise ValueError(
            "the redrive group's commit holds metadata that this command didn't write"
        ) from error
    return {base + 8 * i + bit for i, byte in enumerate(raw) for bit in range(8) if byte >> bit & 1}


def read_letter(value: bytes | None) -> DeadLetter | None:
    """The letter in a record; None for bytes that are none, which must not hide the others."""
    try:
        return stored_records.read_dead_letter(value)
    except ValueError:
        return None


class DeadLetterTopic:
    """The topic as this command reads it, and the group that remembers what was redriven."""

    def __init__(self, config: DetectorConfig) -> None:
        self.of = config.identity
        self.name = self.of.topic("dead-letters")
        self.kafka = KafkaAccess.of(config.kafka)
        self._settings: dict[str, Any] = {**self.kafka.settings(), "log_level": 3}
        self.consumer = Consumer(
            {
                **self._settings,
                "group.id": self.of.group("redrive"),
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 50,  # the end of each partition is told so much later
            }
        )
        listing = self.consumer.list_topics(self.name, 10)
        if listing.topics[self.name].error is not None:
            raise DeadLetterError(f"{self.name}: {listing.topics[self.name].error.str()}")
        self.partitions = sorted(listing.topics[self.name].partitions)
        self._broker = str(next(iter(listing.brokers)))
        # Where the broker has no ids the name must do.
        self._topic_id = topic_id(self._settings, self.name, PATIENCE)

    def letters(self) -> Iterator[tuple[Position, DeadLetter | None]]:
        """All letters of now, partition by partition."""
        for partition in self.partitions:
            low, high = self.consumer.get_watermark_offsets(TopicPartition(self.name, partition), 10)
            for message in self._from(self.name, Position(partition, low)):
                if message.offset() >= high:
                    break
                yield Position(partition, message.offset()), read_letter(message.value())

    def all(self, topic: str) -> Iterator[Message]:
        """The committed records of a topic as it is now, partition by partition."""
        listing = self.consumer.list_topics(topic, 10).topics[topic]
        if listing.error is not None:
            raise DeadLetterError(f"{topic}: {listing.error.str()}")
        for partition in sorted(listing.partitions):
            low, high = self.consumer.get_watermark_offsets(TopicPartition(topic, partition), 10)
            for message in self._from(topic, Position(partition, low)):
                if message.offset() >= high:
                    break
                yield message

    @cached_property
    def remembered(self) -> dict[int, set[int]]:
        """``memory``, asked for once."""
        return self.memory()

    def record(self, topic: str, at: Position) -> Message | None:
        """The record at a place; None where it is gone, or where never was one."""
        if at.partition not in self.consumer.list_topics(topic, 10).topics[topic].partitions:
            return None
        for message in self._from(topic, at):
            return message if message.offset() == at.offset else None
        return None

    def letter(self, at: Position) -> DeadLetter:
        message = self.record(self.name, at) if at.partition in self.partitions else None
        if message is None:
            raise DeadLetterError(f"there is no letter at {at}: it has expired, or never was")
        letter = read_letter(message.value())
        if letter is None:
            raise DeadLetterError(f"the record at {at} is no dead letter")
        return letter

    def _from(self, topic: str, at: Position) -> Iterator[Message]:
        """Records from a place to the end of what is committed now."""
        self.consumer.assign([TopicPartition(topic, at.partition, at.offset)])
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            message = self.consumer.poll(1.0)
            if message is None:
                continue
            error = message.error()
            if error is None:
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:
                return
            elif not error.retriable() and error.code() not in (
                KafkaError._TRANSPORT,
                KafkaError._ALL_BROKERS_DOWN,
            ):
                raise KafkaException(error)
            else:
                continue
            until = time.monotonic() + PATIENCE
        raise DeadLetterError(f"nothing was read of {topic} [{at.partition}] for {PATIENCE:.0f} s")

    def memory(self) -> dict[int, set[int]]:
        """The redriven offsets by partition. What was remembered of an earlier topic of this name is of other letters;
        without a topic's id, as it was written before, it is of this one."""
        asked = [TopicPartition(self.name, partition) for partition in self.partitions]
        places = self.consumer.committed(asked, PATIENCE)
        for place in places:
            if place.error is not None:
                raise KafkaException(place.error)
        memory: dict[int, set[int]] = {}
        for place in places:
            of, _, text = (place.metadata or "").rpartition(":")
            ours = place.offset >= 0 and of in ("", self._topic_id)
            memory[place.partition] = unpack(place.offset, text) if ours else set()
        return memory

    def packed(self, memory: Mapping[int, set[int]], partitions: set[int]) -> list[TopicPartition]:
        """What to commit for these partitions. Expired letters are forgotten; DeadLetterError where the rest is too much."""
        places = []
        for partition in sorted(partitions):
            base, _ = self.consumer.get_watermark_offsets(TopicPartition(self.name, partition), 10)
            text = f"{self._topic_id}:{pack(base, memory[partition])}"
            if len(text) > MAX_METADATA:
                raise DeadLetterError(
                    f"the group can't remember more redriven letters of partition {partition}: "
                    "let older ones expire; until then a letter sent could not be told from one that wasn't"
                )
            places.append(TopicPartition(self.name, partition, base, text))
        return places

    def remember(self, places: list[TopicPartition]) -> None:
        for place in self.consumer.commit(offsets=places, asynchronous=False):
            if place.error is not None:
                raise KafkaException(place.error)

    def memory_ms(self) -> int:
        """How long the broker keeps a commit of a group without members."""
        resource = ConfigResource(ConfigResource.Type.BROKER, self._broker)
        admin = AdminClient(self._settings)  # kept by a name until the answer is there
        answer = admin.describe_configs([resource], request_timeout=10)[resource].result(PATIENCE)
        return int(answer[RETENTION].value) * 60_000
