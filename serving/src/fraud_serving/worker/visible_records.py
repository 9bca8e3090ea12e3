"""What committed readers have of a partition, once no open transaction hides any; and of the records that a transaction was to publish,
where its outcome is unknown."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from fraud_contracts.names import Identity
from fraud_serving.worker.batch import Outgoing

CALL_SECONDS: Final = 10
PATIENCE: Final = 20.0
# So far back from a partition's end lies whatever two batches and the tries to send them have left.
LOOK_BACK: Final = 2_000


def same(noun: str, value: bytes | None) -> object:
    """What tells that two records of a topic are the same one: of a decision, or its alert, the id, since another worker's may
    have other bytes; of a dead letter all of it, since an id may have several."""
    try:
        return orjson.loads(value or b"")["id"] or value if noun != "dead-letters" else value
    except (ValueError, TypeError, KeyError):
        return value


class VisibleRecords:
    """``retry`` repeats a call that only reads, as ``Transactions.retry`` does; ``heartbeat`` is called while it waits."""

    def __init__(
        self,
        settings: Callable[[], dict[str, Any]],
        of: Identity,
        partitions: int,
        heartbeat: Callable[[], None],
        retry: Callable[[str, Callable[[], Any]], None],
    ) -> None:
        self._settings, self._of, self._partitions = settings, of, partitions
        self._heartbeat, self._retry = heartbeat, retry

    def lacking(self, out: Sequence[Outgoing]) -> list[Outgoing]:
        """The records of ``out`` that committed readers don't have."""
        every = range(self._partitions)
        places = {
            (one.noun, at) for one in out for at in (every if one.partition is None else [one.partition])
        }
        # By noun: a decision and its alert are the same bytes.
        visible: dict[str, set[object]] = defaultdict(set)
        for noun, partition in places:
            visible[noun] |= {same(noun, value) for value in self._newest(self._of.topic(noun), partition)}
        return [one for one in out if same(one.noun, one.value) not in visible[one.noun]]

    def _newest(self, topic: str, partition: int) -> set[bytes]:
        """The newest records of a partition, once no open transaction hides any."""
        low, high = self.ends(TopicPartition(topic, partition))
        start = TopicPartition(topic, partition, max(low, high - LOOK_BACK))
        return {message.value() or b"" for message in self.read(start, high, PATIENCE)}

    def read(self, start: TopicPartition, high: int, seconds: float) -> Iterator[Message]:
        """The committed records of a partition from ``start`` to ``high``, which lies before its end; none where there are none between.

        KafkaException where they aren't read within ``seconds``: the broker is away, or a transaction is open there.
        """
        if start.offset >= high:
            return
        reader = Consumer(
            {
                **self._settings(),
                "group.id": self._of.group("worker.tail"),
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 100,
                "enable.partition.eof": True,
            }
        )
        try:
            reader.assign([start])
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                self._heartbeat()
                for message in reader.consume(1000, 0.1):
                    error = message.error()
                    if error is None:
                        yield message
                    elif error.code() == KafkaError._PARTITION_EOF and message.offset() >= high:
                        return
        finally:
            reader.close()
        late = f"{start.topic} [{start.partition}] wasn't read to its end in {seconds:.0f} s"
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, late, retriable=True))

    def ends(self, place: TopicPartition) -> tuple[int, int]:
        """First and next offset of a partition, with what transactions that are still open have written."""
        reader = Consumer(
            {
                **self._settings(),
                "group.id": self._of.group("worker.tail"),
                "isolation.level": "read_uncommitted",
            }
        )
        ends: list[tuple[int, int]] = []
        try:
            self._retry("watermarks", lambda: ends.append(reader.get_watermark_offsets(place, CALL_SECONDS)))
        finally:
            reader.close()
        return ends[-1]
