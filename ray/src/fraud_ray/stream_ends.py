"""How far a stream has read its sources, and when the lake holds all of that: what a training asks Kafka before it reads anything.

What lies before the cut must be in the lake, or the seeds would lack it for ever. So training waits until the worker has decided what
the stream read, and the lake holds what was decided.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from fraud_contracts.config import DetectorConfig
from fraud_contracts.lineage import HISTORY, SOURCES, Positions
from fraud_contracts.training_end import EndReason
from fraud_process.group_offsets import committed_offsets
from fraud_process.kafka import KafkaAccess
from fraud_process.unread_records import may_hold_record
from fraud_ray.cut import Cut
from fraud_ray.errors import TrainingError

# An inline decision that the stream has read may wait half a second for others of its key before its record is written.
HELD_SECONDS: Final = 5.0
PATIENCE: Final = 900.0
_STEP: Final = 1.0
T = TypeVar("T")


@dataclass
class StreamEnds:
    """``clock`` is in seconds and only rises; ``timeout``, in seconds, is of one request."""

    config: DetectorConfig
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    timeout: float = 30.0
    _admin: AdminClient = field(init=False)

    def __post_init__(self) -> None:
        self._access = KafkaAccess.of(self.config.kafka)
        self._admin = AdminClient({**self._access.settings(), "log_level": 2})

    def cut(self, now: int) -> Cut:
        """What the stream has read for good, once it has read of each partition; TrainingError where Kafka doesn't tell, or it never does.

        It is the stream whose records are decided: the lake never has what only another one, of this feature set, has read. ``now`` is UTC ms.
        """
        stream, until = self.config.decided or self.config.stream, self.clock() + PATIENCE
        group = self.config.identity.features_group(stream)
        while True:
            committed = self._committed(group, HISTORY)
            held = {noun: (self._offsets(noun, OffsetSpec.earliest()), self._ends(noun)) for noun in HISTORY}
            # A job commits nothing of a partition that holds nothing.
            unread = [
                f"{self.config.identity.topic(noun)} [{partition}]"
                for noun, (firsts, ends) in held.items()
                for partition, first in firsts.items()
                if first < ends[partition] and (noun, partition) not in committed
            ]
            if not unread:
                break
            if self.clock() > until:
                message = f"{group} has read nothing of {', '.join(unread)} in {PATIENCE:.0f} s: seeds would lack it"
                raise TrainingError(EndReason.STREAM_BEHIND, message)
            self.sleep(_STEP)
        starts_at: Positions = {
            noun: {
                # What has left the topic nobody can read any more.
                partition: max(first, committed.get((noun, partition), ends[partition]))
                for partition, first in firsts.items()
            }
            for noun, (firsts, ends) in held.items()
        }
        return Cut(starts_at, {noun: self._since(noun, now) for noun in HISTORY}, self._topics())

    def wait(self, cut: Cut) -> None:
        """Until the lake holds all before the cut; TrainingError where that takes too long, with what is behind."""
        self.sleep(HELD_SECONDS)
        until = self.clock() + PATIENCE
        of = self.config.identity
        # Features are written without transactions, so each offset is a record's.
        self._wait_for(of.group("worker"), {"features": self._ends("features")}, until, all_records=True)
        ends = {"decisions": self._ends("decisions"), "labels": cut.starts_at["labels"]}
        self._wait_for(of.group("lake-sink"), ends, until)

    def _ends(self, noun: str) -> dict[int, int]:
        return self._offsets(noun, OffsetSpec.latest())

    def _offsets(self, noun: str, which: OffsetSpec) -> dict[int, int]:
        return {partition: result.offset for partition, result in self._listed(noun, which).items()}

    def _since(self, noun: str, now: int) -> dict[int, int]:
        """By partition the time of the oldest record that is kept; ``now`` where there is none."""
        listed = self._listed(noun, OffsetSpec.for_timestamp(0))
        return {
            partition: result.timestamp if result.offset >= 0 else now for partition, result in listed.items()
        }

    def _listed(self, noun: str, which: OffsetSpec) -> dict[int, Any]:
        topic, count = self.config.identity.topic(noun), self.config.kafka.partitions
        places = [TopicPartition(topic, number) for number in range(count)]

        def ask() -> dict[int, Any]:
            asked = self._admin.list_offsets(dict.fromkeys(places, which), request_timeout=self.timeout)
            return {place.partition: asked[place].result(self.timeout) for place in places}

        return self._asked(f"no offsets of {topic}", ask)

    def _topics(self) -> dict[str, str]:
        """The ids of the sources by noun."""
        nouns = {self.config.identity.topic(noun): noun for noun in SOURCES}

        def ask() -> dict[str, str]:
            asked = self._admin.describe_topics(TopicCollection(list(nouns)), request_timeout=self.timeout)
            return {nouns[name]: str(one.result(self.timeout).topic_id) for name, one in asked.items()}

        return self._asked("the topics can't be described", ask)

    def _asked(self, what: str, ask: Callable[[], T]) -> T:
        """A broker that has just come up, or a coordinator that has just moved, refuses for a moment."""
        until = self.clock() + self.timeout
        while True:
            try:
                return ask()
            except (KafkaException, TimeoutError) as error:
                if self.clock() > until:
                    raise TrainingError(EndReason.STREAM_UNKNOWN, f"{what}: {error}") from error
            self.sleep(_STEP)

    def _committed(self, group: str, nouns: Iterable[str]) -> dict[tuple[str, int], int]:
        """By noun and partition, of those that the group has committed."""
        of, count = self.config.identity, self.config.kafka.partitions
        topics = {of.topic(noun): noun for noun in nouns}
        places = [(topic, number) for topic in topics for number in range(count)]
        found = self._asked(
            f"no offsets of {group}",
            lambda: committed_offsets(self._access.settings(), group, places, self.timeout),
        )
        return {(topics[topic], partition): offset for (topic, partition), offset in found.items()}

    def _wait_for(
        self, group: str, ends: Mapping[str, Mapping[int, int]], until: float, *, all_records: bool = False
    ) -> None:
        """Until a group has committed everything before these ends; ``all_records``: at each offset there is a record."""
        while True:
            committed = self._committed(group, ends)
            behind = {
                (noun, partition): (committed.get((noun, partition), 0), end)
                for noun, by_partition in ends.items()
                for partition, end in by_partition.items()
                if committed.get((noun, partition), 0) < end
            }
            if not any(all_records or self._records(noun, at, *span) for (noun, at), span in behind.items()):
                return
            if self.clock() > until:
                count = sum(end - at for at, end in behind.values())
                topics = ", ".join(sorted({self.config.identity.topic(noun) for noun, _ in behind}))
                message = f"{group} is {count} records of {topics} behind after {PATIENCE:.0f} s: seeds would lack them"
                raise TrainingError(EndReason.STREAM_BEHIND, message)
            self.sleep(_STEP)

    def _records(self, noun: str, partition: int, begin: int, end: int) -> bool:
        """Whether there is a record between two offsets, or may be: the ends of transactions are none, and no reader commits them."""
        topic, group = self.config.identity.topic(noun), self.config.identity.group("training")
        try:
            return may_hold_record(
                self._access.settings(), group, (topic, partition), begin, end, self.timeout
            )
        except KafkaException as error:
            raise TrainingError(
                EndReason.STREAM_UNKNOWN, f"{topic} [{partition}] can't be read: {error}"
            ) from error
