"""After a loss of claims: finds out when the ledger holds all that was decided before it, and says so in Redis.

What a door had decided by then passes ``accepted``, the stream, ``features``, a worker, ``decisions`` and the ledger's sink. So each
of them is asked in turn whether it has got to where the one before it ended. A detector that had decided nothing yet has lost
nothing. Runs on a thread of its own, asks Redis every two seconds and, where nothing was lost within a day, nobody else. Where the others
say the same again, they are asked ever less often, each half minute at last.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from confluent_kafka import (
    Consumer,
    KafkaException,
    TopicPartition,
)

from fraud_contracts.config import DetectorConfig
from fraud_contracts.errors import StoreError
from fraud_contracts.lineage import SOURCES
from fraud_process.group_offsets import committed_offsets
from fraud_process.kafka import KafkaAccess
from fraud_process.topic_ids import topic_id
from fraud_process.unread_records import may_hold_record
from fraud_serving import wholeness
from fraud_serving.clients.ledger_link import LedgerLink
from fraud_serving.wholeness import Mark, Reached
from fraud_serving.worker.batch_claims import ClaimStore

PAUSE: Final = 2.0
# From one look to the next, in steps.
_LONGEST: Final = 15
# A request that had claimed its id before the loss has its record in ``accepted`` by then, or an answer that says that it hasn't.
_APPENDED_MS: Final = 5_000
_SECONDS: Final = 10
_log = logging.getLogger(__name__)
_NO_ID: Final = "AAAAAAAAAAAAAAAAAAAAAA"  # the zero UUID: a broker without ids says it of every topic
Ends = dict[int, int]
# By topic's noun and partition, of those where a group has committed anything.
Committed = dict[tuple[str, int], int]


class Extent(NamedTuple):
    """Of a partition: its first offset, the one after its last, and the first one of a time or later, -1 where there is none."""

    low: int
    high: int
    since: int


def _lineage(lineages: dict[str, int], topic_id: str) -> int | None:
    """The ledger's number of a topic; None where it has read others of that name, and not yet this one."""
    if topic_id in lineages:
        return lineages[topic_id]
    return max(lineages.values(), default=0) if topic_id == _NO_ID or not lineages else None


@dataclass
class _Loss:
    """What is known of one loss. ``used`` says that something was decided before it, ``ends`` where topics ended when it was their turn,
    ``checkpoints`` what the stream has committed since it was there, each time that it was something else.
    """

    since: int
    used: bool = False
    ends: dict[str, Ends] = field(default_factory=dict)
    checkpoints: list[Committed] = field(default_factory=list)

    @property
    def stage(self) -> tuple[bool, int, int]:
        """Another one where a look has found something out."""
        return self.used, len(self.ends), len(self.checkpoints)


class _Pauses:
    """Which steps are looks: the first, and each that follows one that found something out; else ever fewer."""

    def __init__(self) -> None:
        self._left, self._length = 0, 1

    def over(self) -> bool:
        self._left -= 1
        return self._left < 0

    def looked(self, *, found: bool) -> None:
        length = 1 if found else self._length
        self._left, self._length = length - 1, min(2 * length, _LONGEST)


class Settling:
    def __init__(self, config: DetectorConfig, store: ClaimStore, ledger: LedgerLink) -> None:
        self._config, self._of, self._store, self._ledger = config, config.identity, store, ledger
        self._access, self._tail = KafkaAccess.of(config.kafka), config.identity.group("worker.tail")
        self._loss, self._pauses = _Loss(-1), _Pauses()

    def run(self, stopped: Callable[[], bool] = lambda: False) -> None:
        told = False
        while not stopped():
            try:
                if self.step(int(time.time() * 1000)):
                    told = False
            except (StoreError, KafkaException, OSError) as error:
                if not told:
                    _log.warning(
                        "the loss of claims isn't settled yet", extra={"data": {"error": str(error)}}
                    )
                told = True
            time.sleep(PAUSE)

    def step(self, now: int) -> bool:
        """-> whether it looked, or needn't. StoreError or KafkaException where one that is asked doesn't answer."""
        [held] = self._store.mark_and_read(None, [self._of.redis_whole])
        mark = wholeness.read(held)
        if mark is None:
            _log.warning("claims may be lost", extra={"data": {"mark": self._of.redis_whole}})
            mark = wholeness.lost(None, now)
            self._store.send(wholeness.replace(self._of.redis_whole, held, mark))
            held = mark.pack()
        if mark.ledger or not mark.doubts(now):
            return True
        if mark.since != self._loss.since:
            self._loss, self._pauses = _Loss(mark.since), _Pauses()
        if not self._pauses.over():
            return False
        before = self._loss.stage
        try:
            self._look(held, now)
        finally:
            self._pauses.looked(found=self._loss.stage != before)
        return True

    def _look(self, held: bytes | None, now: int) -> None:
        loss = self._loss
        loss.used = loss.used or not self._nothing_before(loss.since)
        if not loss.used:
            self._replace(held, Mark(0))
        elif reached := self._reached(now):
            self._replace(held, Mark(loss.since, reached))

    def _replace(self, held: bytes | None, mark: Mark) -> None:
        [replaced] = self._store.send(wholeness.replace(self._of.redis_whole, held, mark))
        if replaced:
            _log.info("claims are whole", extra={"data": {"since": mark.since, "ledger": bool(mark.ledger)}})

    def _nothing_before(self, since: int) -> bool:
        """Whether nothing was decided before: inline nothing was accepted, no worker had read a record, and the ledger has none.

        ``decisions`` itself doesn't tell: workers that start leave aborted records there.
        """
        if not self._is_empty_before("accepted", since):
            return False
        if self._committed(self._of.group("worker"), ["features"]) and not self._is_empty_before(
            "features", since
        ):
            return False
        return not self._ledger.has_older(since)

    def _is_empty_before(self, noun: str, since: int) -> bool:
        extents = self._extents(noun, since).values()
        return all(one.low == 0 and (one.high == 0 or one.since == 0) for one in extents)

    def _reached(self, now: int) -> tuple[Reached, ...]:
        """How far the ledger is once it holds all; empty until then."""
        if "accepted" not in self._loss.ends:
            if now < self._loss.since + _APPENDED_MS:
                return ()
            self._note_ends("accepted")
        if "features" not in self._loss.ends:
            if not self._stream_has_written():
                return ()
            self._note_ends("features")
        if "decisions" not in self._loss.ends:
            if self._unread(self._committed(self._of.group("worker"), ["features"]), "features"):
                return ()
            self._note_ends("decisions")
        return self._ledger_is_there()

    def _stream_has_written(self) -> bool:
        """Whether the stream has written its records of all that was in ``accepted``.

        What a checkpoint has read may wait in its state for an earlier one of its key (docs/decisions/0005): half a second in the stage of
        each entity, but as long as the job is away. So one more checkpoint must follow for each stage: by then the job has run that long, or
        has begun anew with that state and let go at once what had waited. And one more, as a look may fall into the commits of one.
        """
        if not self._unread({}, "accepted"):
            return True
        committed = self._committed(self._of.features_group(self._config.stream), SOURCES)
        seen = self._loss.checkpoints
        last = seen[-1] if seen else {}
        # Where it has gone back to an older state, it reads some of it anew.
        went_back = any(committed.get(place, -1) < offset for place, offset in last.items())
        if went_back or self._unread(committed, "accepted"):
            seen.clear()
        elif committed != last:
            seen.append(committed)
        return len(seen) > len(self._config.spec.entities) + 1

    def _note_ends(self, noun: str) -> None:
        self._loss.ends[noun] = {at: one.high for at, one in self._extents(noun, self._loss.since).items()}

    def _unread(self, committed: Committed, noun: str) -> bool:
        """Whether a group hasn't read to the ends of a topic. Of a partition that no record is in it may have committed nothing."""
        extents = self._extents(noun, self._loss.since)
        return any(
            extents[at].low < end and committed.get((noun, at), -1) < end
            for at, end in self._loss.ends[noun].items()
        )

    def _ledger_is_there(self) -> tuple[Reached, ...]:
        lineage = _lineage(self._ledger.lineages(), self._topic_id())
        if lineage is None:
            return ()
        progress = self._ledger.look([]).reached
        ends = self._loss.ends["decisions"]
        reached = [Reached(lineage, at, progress.get((lineage, at), 0)) for at in sorted(ends)]
        if any(
            one.following < ends[one.partition] and self._may_lack(one, ends[one.partition])
            for one in reached
        ):
            return ()
        return tuple(reached)

    # Kafka: by clients that read for nobody.

    def _places(self, noun: str, offset: int) -> list[TopicPartition]:
        topic = self._of.topic(noun)
        return [TopicPartition(topic, at, offset) for at in range(self._config.kafka.partitions)]

    def _extents(self, noun: str, since: int) -> dict[int, Extent]:
        # Of all that is written: to who reads what is committed a topic ends where a transaction is open, whatever lies behind.
        settings = {
            "group.id": self._tail,
            "enable.auto.commit": False,
            "isolation.level": "read_uncommitted",
        }
        reader = Consumer({**self._access.settings(), **settings})
        try:
            of_time = reader.offsets_for_times(self._places(noun, since), _SECONDS)
            extents = {}
            for place in of_time:
                if place.error is not None:
                    raise KafkaException(place.error)
                low, high = reader.get_watermark_offsets(place, _SECONDS)
                extents[place.partition] = Extent(low, high, place.offset)
            return extents
        finally:
            reader.close()

    def _committed(self, group: str, nouns: Sequence[str]) -> Committed:
        topics = {self._of.topic(noun): noun for noun in nouns}
        places = [(topic, at) for topic in topics for at in range(self._config.kafka.partitions)]
        found = committed_offsets(self._access.settings(), group, places, _SECONDS)
        return {(topics[topic], partition): offset for (topic, partition), offset in found.items()}

    def _may_lack(self, reached: Reached, end: int) -> bool:
        """Whether the ledger, being there, may lack a record of before the end."""
        place = self._of.topic("decisions"), reached.partition
        return may_hold_record(self._access.settings(), self._tail, place, reached.following, end, _SECONDS)

    def _topic_id(self) -> str:
        return topic_id(self._access.settings(), self._of.topic("decisions"), _SECONDS)
