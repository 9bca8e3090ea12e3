"""What passes between the loop and a writer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from fraud_contracts.errors import StoreError


class StoreLostError(StoreError):
    """The store lost some or all of its data. Retrying can't help: the sink starts again from what the store still has."""


class TopicRecreatedError(StoreError):
    """A topic was deleted and recreated while it was read: its offsets name other records now. The sink starts again."""


class Place(NamedTuple):
    """One partition of one topic. ``topic_id`` tells a topic from a later one of the same name, whose offsets begin at 0
    again; "" where the broker has no ids (before Kafka 2.8): then the name alone must do."""

    topic: str
    partition: int
    topic_id: str = ""


class Record(NamedTuple):
    """A consumed record. ``appended`` is the broker's or producer's timestamp in ms, as the topic is set up."""

    topic: str
    partition: int
    offset: int
    appended: int
    key: bytes | None
    value: bytes | None
    topic_id: str = ""

    @property
    def place(self) -> Place:
        return Place(self.topic, self.partition, self.topic_id)


class Writer(Protocol):
    """A store. Every method may raise StoreError; the loop then calls it again, for as long as ``outage`` says."""

    def start(self, places: Sequence[Place]) -> Mapping[Place, int]:
        """Called when partitions are assigned: the offset at which each begins, 0 for a place that isn't in the answer. The
        group's offsets only show the lag: they know nothing of what the store lost, nor of a recreated topic."""
        ...

    def write(self, records: Sequence[Record]) -> int:
        """Makes the records durable, idempotently; returns how many rows changed in the store."""
        ...

    def caught_up(self, place: Place, following: int) -> None:
        """Called once per assignment, when everything up to the partition's end at assignment has been written: all records
        before the offset ``following``."""
        ...

    def tick(self) -> None:
        """Called every few seconds between batches, for upkeep and to detect that the store lost data."""
        ...

    def close(self) -> None: ...
