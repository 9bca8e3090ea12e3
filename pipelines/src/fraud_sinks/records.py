"""What passes between the loop and a writer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from fraud_contracts.errors import StoreError


class StoreLostError(StoreError):
    """The store lost some or all of what it had. Trying again can't help: the sink starts anew from what the store still has."""


class Place(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


class Record(NamedTuple):
    """A consumed record. ``appended`` is the broker's or producer's timestamp in ms, as the topic is set up."""

    topic: str
    partition: int
    offset: int
    appended: int
    key: bytes | None
    value: bytes | None

    @property
    def place(self) -> Place:
        return Place(self.topic, self.partition)


class Writer(Protocol):
    """A store. Every method may raise StoreError; the loop then retries, and at last the process ends."""

    def start(self, places: Sequence[Place]) -> Mapping[Place, int]:
        """Called when partitions arrive: where to begin, for those whose store knows better than the group's offsets."""
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
