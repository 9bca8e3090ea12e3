"""What passes between the loop and a writer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from fraud_contracts.errors import StoreError


class StoreLostError(StoreError):
    """The store lost some or all of what it had. Trying again can't help: the sink starts anew from what the store still has."""


class TopicRemadeError(StoreError):
    """A topic was deleted and made anew while it was read: offsets mean other records now. The sink starts anew."""


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
    """A store. Every method may raise StoreError; the loop then retries, and at last the process ends."""

    def start(self, places: Sequence[Place]) -> Mapping[Place, int]:
        """Called when partitions arrive: where to begin; at 0 where a place isn't among them. The group's offsets only
        show the lag: they know nothing of what the store lost, nor of a topic that was made anew."""
        ...

    def write(self, records: Sequence[Record]) -> int:
        """Makes the records durable, idempotently; returns how many rows changed in the store."""
        ...

    def caught_up(self, place: Place, following: int) -> None:
        """Called once per assignment, when everything that the partition held at its start has been written; all
        before ``following`` is."""
        ...

    def tick(self) -> None:
        """Called every few seconds between batches: upkeep, and the discovery that the store was lost."""
        ...

    def close(self) -> None: ...
