"""One consumer loop for every sink: gather a batch, write it, then commit its offsets.

After a crash the records that were not committed are read again, so a writer must be idempotent; one that records offsets
in its store returns them from ``start`` and is exact by itself. A store that fails is retried with backoff for some two
minutes, as long as a database takes to restart; then the process ends with an error, and Kubernetes restarts it, which also
re-reads the configuration. One that is full is waited for: it answers, and another process would be told the same. A store that
lost data (StoreLostError) ends this loop; ``run`` starts another in the same process.

Membership is static (``group.instance.id``), so a container that restarts in its Pod gets its partitions back at once;
the session is short, because a *replaced* Pod has another name and must wait for the old session to end.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from fraud_contracts.errors import StoreError, StoreFullError
from fraud_process.kafka import KEEPS_BROKERS, KafkaAccess
from fraud_process.silent_clients import ConsumerWatch
from fraud_sinks.kafka_errors import NO_COORDINATOR, NOT_OWNER, PASSING
from fraud_sinks.meters import Meters
from fraud_sinks.records import Place, Record, StoreLostError, Writer
from fraud_sinks.topics import TopicIds

log = logging.getLogger(__name__)
T = TypeVar("T")

SESSION_MS: Final = 6_000
ATTEMPTS: Final = 28  # about two minutes of pauses
FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 5.0
POLL_SECONDS: Final = 0.2
TICK_SECONDS: Final = 5.0
KAFKA_SECONDS: Final = 10
DEAD_SECONDS: Final = 300.0  # also max.poll.interval.ms: the broker gives the partitions away then


@dataclass(frozen=True)
class Reading:
    """What to read and how: a batch is full at ``batch`` records or ``linger`` seconds after its first one."""

    kafka: KafkaAccess
    topics: tuple[str, ...]
    group: str
    instance: str | None = None
    batch: int = 500
    linger: float = 0.005
    rebuild: bool = False
    tick: float = TICK_SECONDS


@dataclass
class _Progress:
    """How far one partition is. ``end`` is where it ended at assignment; EOF also counts as reaching it, since
    transaction markers at the end are offsets that no record has."""

    following: int
    written: int
    end: int
    at_end: int = -1
    caught_up: bool = False


@dataclass
class Loop:
    """Runs one writer. ``stop`` may be called from a signal handler; the batch in hand is finished and committed."""

    reading: Reading
    writer: Writer
    meters: Meters
    pause: Callable[[float], Any] | None = None
    _progress: dict[Place, _Progress] = field(default_factory=dict)
    _pending: list[Record] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._beat = time.monotonic()
        self._failure: Exception | None = None
        self._first = 0.0
        self._watch = ConsumerWatch(self.reading.kafka.settings, self.reading.group)
        # All that it ever had: a client that fails may also have lost them.
        self._read: set[tuple[str, int]] = set()

    def stop(self) -> None:
        self._stop.set()

    def ready(self) -> bool:
        """It has caught up once; a later lag is the lag metric's matter, not a reason to take the Pod out."""
        return self._ready.is_set()

    def alive(self) -> bool:
        return time.monotonic() - self._beat < DEAD_SECONDS

    def run(self) -> None:
        """Until stopped, or, in a rebuild, until all partitions have caught up. Raises StoreError when a store stays away."""
        consumer, admin = Consumer(self._settings()), AdminClient(self.reading.kafka.settings())
        self._ids = TopicIds(admin)
        try:
            self._await_topics(consumer)
            if self.reading.rebuild:
                self._assign_all(consumer)
            else:
                consumer.subscribe(
                    list(self.reading.topics),
                    on_assign=self._on_assign,
                    on_revoke=self._on_revoke,
                    on_lost=self._on_lost,
                )
            ticked = time.monotonic()
            while not self._finished():
                self._gather(consumer)
                self._raise_failure()
                self._watch_silence()
                if self._due():
                    self._flush(consumer)
                self._announce()
                self._beat = time.monotonic()
                if self._beat - ticked >= self.reading.tick:
                    ticked = self._beat
                    self.reading.kafka.renew(consumer, admin)
                    self._ids.check()
                    self._with_retries(self.writer.tick)
                    self._measure(consumer)
            self._flush(consumer)
            self._announce()
            self._measure(consumer)
        except BaseException:
            self._pending = []  # closing revokes, which writes what is in hand: not after that very write failed
            raise
        finally:
            consumer.close()
            self.writer.close()

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {
            **self.reading.kafka.settings(),
            "group.id": self.reading.group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "session.timeout.ms": SESSION_MS,
            "heartbeat.interval.ms": SESSION_MS // 4,
            "max.poll.interval.ms": int(DEAD_SECONDS * 1000),
            # The default waits up to 500 ms for one byte, which is fine; but a new record must not wait for more.
            "fetch.wait.max.ms": 100,
            "topic.metadata.refresh.interval.ms": 60_000,
            **KEEPS_BROKERS,
        }
        if self.reading.instance and not self.reading.rebuild:
            settings["group.instance.id"] = f"{self.reading.group}.{self.reading.instance}"
        return settings

    def _await_topics(self, consumer: Consumer) -> None:
        """The operator creates the topics, perhaps after this Pod starts; after minutes without them StoreError says so."""

        def present() -> None:
            try:
                topics = consumer.list_topics(timeout=10).topics
            except KafkaException as error:
                raise StoreError("kafka", str(error)) from error
            absent = [topic for topic in self.reading.topics if topic not in topics]
            if absent:
                raise StoreError("kafka", f"no topic {', '.join(absent)} yet")

        self._with_retries(present)

    def _finished(self) -> bool:
        if self._stop.is_set():
            return True
        return self.reading.rebuild and not self._pending and self.ready()

    # Assignment -----------------------------------------------------------------------------------------------------

    def _assign_all(self, consumer: Consumer) -> None:
        topics = self._ask_broker(lambda: consumer.list_topics(timeout=KAFKA_SECONDS)).topics
        partitions = [
            TopicPartition(name, p) for name in self.reading.topics for p in topics[name].partitions
        ]
        self._begin(consumer, partitions)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        try:
            self._begin(consumer, partitions)
        except (StoreError, KafkaException) as error:
            self._failure = error  # raised by the loop: an exception must not cross librdkafka's callback

    def _begin(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        ids = self._ask_broker(lambda: self._ids.ask({p.topic for p in partitions}))
        places = [Place(p.topic, p.partition, ids[p.topic]) for p in partitions]
        stored_starts = self._with_retries(lambda: self.writer.start(places))
        starts = []
        for place in places:
            low, high = self._ask_broker(
                partial(consumer.get_watermark_offsets, TopicPartition(*place[:2]), KAFKA_SECONDS)
            )
            begin = 0 if self.reading.rebuild else stored_starts.get(place, 0)
            where = {**place._asdict(), "wanted": begin, "low": low, "high": high}
            if 0 < begin < low:
                log.error("records were deleted before this sink had read them", extra={"data": where})
            if begin > high:
                # The same topic: its end was lost with a broker. Or the broker has no ids, and it was made anew.
                self.meters.reread("the topic ends before what was read of it", where)
                begin = low
            begin = max(begin, low)
            self._progress[place] = _Progress(begin, begin, high)
            self._read.add(place[:2])
            starts.append(TopicPartition(*place[:2], begin))
        consumer.assign(starts)
        log.info(
            "assigned", extra={"data": {"partitions": {f"{p.topic}/{p.partition}": p.offset for p in starts}}}
        )

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """An orderly revocation: the batch in hand is written and committed while we still own the partitions."""
        try:
            self._flush(consumer)
        except (StoreError, KafkaException) as error:
            self._failure = error
        self._forget(partitions)

    def _on_lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        """Another member may own the partitions already, so what is in hand of them is dropped and not written."""
        self._forget(partitions)

    def _forget(self, partitions: list[TopicPartition]) -> None:
        places = {self._ids.place(p.topic, p.partition) for p in partitions}
        self._pending = [record for record in self._pending if record.place not in places]
        for place in places:
            self._progress.pop(place, None)

    # Batches --------------------------------------------------------------------------------------------------------

    def _gather(self, consumer: Consumer) -> None:
        """Takes the records that have arrived. ``consume`` waits its whole timeout unless it reaches the count, so the first
        record is awaited alone, and the others for the rest of the linger."""
        if self._pending:
            remaining = max(0.0, self._first + self.reading.linger - time.monotonic())
            messages = consumer.consume(self.reading.batch - len(self._pending), min(POLL_SECONDS, remaining))
        else:
            messages = consumer.consume(1, POLL_SECONDS)
        for message in messages:
            if message.error() is not None:
                self._judge(message)
            else:
                self._take(message)

    def _take(self, message: Any) -> None:
        place = self._ids.place(message.topic(), message.partition())
        progress = self._progress.get(place)
        # A rebalance inside one consume() can hand over records of a partition that is gone or was rewound.
        if progress is None or message.offset() < progress.following:
            return
        progress.following = message.offset() + 1
        if not self._pending:
            self._first = time.monotonic()
        self._pending.append(
            Record(
                message.topic(),
                message.partition(),
                message.offset(),
                message.timestamp()[1],
                message.key(),
                message.value(),
                place.topic_id,
            )
        )

    def _judge(self, message: Any) -> None:
        error = message.error()
        if error.code() == KafkaError._PARTITION_EOF:
            progress = self._progress.get(self._ids.place(message.topic(), message.partition()))
            if progress is not None:
                progress.at_end = message.offset()
        elif error.fatal() or not (error.retriable() or error.code() in PASSING):
            raise StoreError("kafka", error.str())  # fatal errors, such as being fenced, come as messages too
        else:
            log.warning("kafka", extra={"data": {"error": error.str()}})

    def _watch_silence(self) -> None:
        if self._pending:
            self._watch.heard()
        elif waiting := "" if self.reading.rebuild else self._watch.waiting(self._read):
            raise StoreError("kafka", waiting)

    def _due(self) -> bool:
        if not self._pending:
            return False
        full = len(self._pending) >= self.reading.batch
        return full or time.monotonic() - self._first >= self.reading.linger

    def _flush(self, consumer: Consumer) -> None:
        if not self._pending:
            return
        batch = self._pending
        self.meters.rows.inc(self._with_retries(lambda: self.writer.write(batch)))
        self._pending = []
        ends: dict[Place, int] = {}
        for record in batch:
            ends[record.place] = record.offset + 1
        for place, offset in ends.items():
            if place in self._progress:
                self._progress[place].written = offset
        if not self.reading.rebuild:
            self._commit(consumer, [TopicPartition(*place[:2], offset) for place, offset in ends.items()])

    def _commit(self, consumer: Consumer, offsets: list[TopicPartition]) -> None:
        def commit() -> None:
            try:
                consumer.commit(offsets=offsets, asynchronous=False)
            except KafkaException as error:
                cause = error.args[0]
                if cause.code() not in (*NOT_OWNER, *NO_COORDINATOR):
                    raise StoreError("kafka", f"committing offsets: {cause.str()}") from error
                log.warning("offsets not committed", extra={"data": {"error": cause.str()}})

        self._with_retries(commit)

    def _announce(self) -> None:
        """Tells the writer which partitions have been written up to their end at assignment."""
        for place, progress in self._progress.items():
            if progress.caught_up or progress.written < progress.following:
                continue
            if progress.written >= progress.end or progress.at_end >= progress.written:
                self._with_retries(partial(self.writer.caught_up, place, progress.written))
                progress.caught_up = True
        if not self._ready.is_set() and self._progress and all(p.caught_up for p in self._progress.values()):
            log.info("caught up", extra={"data": {"partitions": len(self._progress)}})
            self._ready.set()

    # Upkeep ---------------------------------------------------------------------------------------------------------

    def _measure(self, consumer: Consumer) -> None:
        lag = 0
        for place, progress in self._progress.items():
            _, high = consumer.get_watermark_offsets(TopicPartition(*place[:2]), cached=True)
            # At the end of a partition only transaction markers may lie between the last record and the watermark.
            end_reached = progress.at_end if progress.written >= progress.following else -1
            lag += max(0, high - max(progress.written, end_reached))
        self.meters.lag.set(lag)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _ask_broker(self, call: Callable[[], T]) -> T:
        """The broker's answer; the question is repeated while the broker can't be reached."""

        def ask() -> T:
            try:
                return call()
            except KafkaException as error:
                raise StoreError("kafka", str(error)) from error

        return self._with_retries(ask)

    def _with_retries(self, call: Callable[[], T]) -> T:
        """The call's result; repeated with longer and longer pauses while it raises StoreError."""
        pause, attempt = FIRST_PAUSE, 0
        while True:
            try:
                return call()
            except StoreError as error:
                attempt += not isinstance(error, StoreFullError)
                if attempt == ATTEMPTS or self._stop.is_set() or isinstance(error, StoreLostError):
                    raise
                self.meters.retries.inc()
                log.warning(
                    "retrying", extra={"data": {"error": str(error), "attempt": attempt, "pause": pause}}
                )
            self._beat = time.monotonic()
            (self.pause or self._stop.wait)(pause)
            pause = min(LONGEST_PAUSE, pause * 2)
