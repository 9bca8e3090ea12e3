"""The worker's producer: one transaction with the offsets at a time, and recovery where its outcome is
unknown.

A killed broker leaves two things behind that no retry ends (docs/decisions/0003): calls of the client that don't come
back, and transactions that the broker holds for complete though their partitions never got the marker, so that committed
readers and the group's offsets wait behind them for ever. So each call has a time limit of ours, each new producer first
aborts whatever an earlier one with its id may have left, and what committed readers don't see afterwards is sent again.

An id belongs to a partition of ``features``, not to a process: a worker uses that of its lowest one, and begins with the ids of
all that come to it. So whoever gets a partition also ends at once what a dead worker had left open under it.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

import orjson
from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from fraud_contracts.names import Identity
from fraud_process.group_offsets import committed_offsets
from fraud_process.kafka import COMPRESSION, PARTITIONER
from fraud_serving.worker.batch import Outgoing
from fraud_serving.worker.client_errors import FatalError, StaleMembershipError, is_stale, past_use

TRANSACTION_MS: Final = 10_000
CALL_SECONDS: Final = 10
PATIENCE: Final = 20.0
MAX_ABANDONED: Final = 20
# So far back from a partition's end lies whatever two batches and the tries to send them have left.
LOOK_BACK: Final = 2_000
DOUBTED_SECONDS: Final = 10.0
NOUNS: Final = ("decisions", "alerts", "dead-letters")
_log = logging.getLogger(__name__)
T = TypeVar("T")


def _same_id(value: bytes | None) -> object:
    """What tells that two records are of one payment: its id; bytes that have none are themselves."""
    try:
        return orjson.loads(value or b"")["id"] or value
    except (ValueError, TypeError, KeyError):
        return value


def _delivered(one: Outgoing, error: KafkaError | None, message: Message) -> None:
    offset = message.offset()
    if error is None and offset is not None:
        one.offset = offset


class Transactions:
    """``settings`` gives those of any client of the broker, with its login of now; ``heartbeat`` is called before each Kafka call."""

    def __init__(
        self,
        settings: Callable[[], dict[str, Any]],
        of: Identity,
        partitions: int,
        heartbeat: Callable[[], None],
    ) -> None:
        self._settings, self._of, self._partitions, self._heartbeat = settings, of, partitions, heartbeat
        # The partition whose id is in use, and its producer; none while this worker has no partition.
        self._id_of: int | None = None
        self._producer: Producer | None = None
        nobody = Consumer({**settings(), "group.id": of.group("worker")})
        self._outsider = nobody.consumer_group_metadata()
        nobody.close()
        self._caller = ThreadPoolExecutor(1, "kafka-call")
        # Producers that failed. Never destroyed: what broke may keep their threads, and destroying waits for those.
        self._abandoned: list[Producer] = []
        # Of the transaction before: the broker said that it is committed, but a crash may still lose its
        # markers.
        self._last: list[Outgoing] = []
        self._last_ends: dict[int, int] = {}
        self._committed_at = 0.0
        self._lost: KafkaError | None = None

    def producers(self) -> list[Producer]:
        """That in use, as far as there is one."""
        return [] if self._producer is None else [self._producer]

    def _make_producer(self) -> Producer:
        assert self._id_of is not None
        return Producer(
            {
                **self._settings(),
                "transactional.id": self._of.transactional_id(self._id_of),
                "transaction.timeout.ms": TRANSACTION_MS,
                "partitioner": PARTITIONER,
                "compression.type": COMPRESSION,
                "linger.ms": 0,
                "error_cb": self._lose,
            }
        )

    def hold(self, partitions: Set[int], new: Set[int]) -> None:
        """Returns when nothing of an earlier worker of the ``new`` ones among these partitions is open any more."""
        lowest = min(partitions, default=None)
        lost, kept = self._lost, None
        if self._id_of == lowest and lowest not in new:
            kept, self._producer = self._producer, None
        for partition in [*sorted(new - {lowest}), *([] if kept is not None or lowest is None else [lowest])]:
            self._retire()
            self._id_of = partition
            self._producer = self._make_producer()
            try:
                self._open()
            except KafkaException as error:
                self._settle(error, lambda: None)
        if kept is not None or lowest is None:
            self._retire()
            self._id_of, self._producer = lowest, kept
        # What was lost with a connection is yet to be looked for.
        self._lost = self._lost or lost

    def _retire(self) -> None:
        """Ends a producer that is well, so that its threads go; one that doesn't end counts as failed."""
        if self._producer is not None:
            producer, self._producer = self._producer, None
            try:
                self._call(producer.close)
            except KafkaException:
                self._abandoned.append(producer)

    def publish(self, out: list[Outgoing], offsets: list[TopicPartition], group: Any) -> dict[int, int]:
        """Returns when committed readers have ``out`` and the group has ``offsets``, both once; -> by partition where its decisions end.

        A broker that was away in between may have lost the markers of what it reported as committed. So after
        an absence, too, records are compared with what committed readers see; where they end isn't told then. StaleMembershipError
        where ``group`` is of a membership that is over.
        """
        doubtful, sent = [*self._last, *out], out
        ends: dict[int, int] = {}
        try:
            self._check()
            ends = self._transact(out, offsets, group)
            self._check()
        except KafkaException as error:
            if self._lost is None and is_stale(error.args[0]):
                self._abort()
                raise StaleMembershipError(str(error.args[0])) from error

            batches = [(self._last, self._last_ends), (out, {one.partition: one.offset for one in offsets})]
            counted = True

            def resend() -> None:
                nonlocal sent, counted
                sent = self._not_visible(doubtful)
                try:
                    self._transact(sent, offsets, group)
                except KafkaException as refused:
                    if not is_stale(refused.args[0]):
                        raise
                    self._call(lambda: self._in_use().abort_transaction(CALL_SECONDS))
                    sent, counted = self._send_counted(batches, group)

            self._settle(error, resend)
            ends = {}
            if not counted:
                self._last, self._last_ends = [], {}
                raise StaleMembershipError("the broker was away for longer than the group waits") from error
        self._last, self._committed_at = sent, time.monotonic()
        self._last_ends = {one.partition: one.offset for one in offsets}
        return ends

    def _send_counted(
        self, batches: Sequence[tuple[list[Outgoing], dict[int, int]]], group: Any
    ) -> tuple[list[Outgoing], bool]:
        """Without a membership: what readers lack of batches whose offsets the group has, since nobody decides those again.

        -> what was sent, and whether the last batch is one of them; FatalError where a part of it is. The others come again, to whoever
        has their partitions then.
        """
        topic, missed = self._of.topic("features"), list[Outgoing]()
        places = sorted({(topic, partition) for _, ends in batches for partition in ends})
        committed = committed_offsets(self._settings(), self._of.group("worker"), places, CALL_SECONDS)
        reached = set[int]()
        for out, ends in batches:
            reached = {one for one, end in ends.items() if committed.get((topic, one), -1) >= end}
            missed += [one for one in out if one.source in reached]
        missed = self._not_visible(missed, _same_id)
        self._transact(missed, [], group)
        ends = batches[-1][1]
        if reached and reached != ends.keys():
            raise FatalError("the group has read a part of a batch")
        return missed, reached == ends.keys()

    def _abort(self) -> None:
        try:
            self._call(lambda: self._in_use().abort_transaction(CALL_SECONDS))
        except KafkaException as error:
            self._settle(error, lambda: None)

    def _in_use(self) -> Producer:
        assert self._producer is not None, "only who has a partition publishes"
        return self._producer

    def idle(self, group: Any) -> None:
        """To be called while there is nothing to publish: it notices, too, that the broker was away.

        After DOUBTED_SECONDS the markers of the transaction before are safe, and records of others may lie
        after its own.
        """
        if self._producer is None:
            return
        self._producer.poll(0)
        if self._lost is not None:
            self.publish([], [], group)
        elif time.monotonic() - self._committed_at > DOUBTED_SECONDS:
            self._last, self._last_ends = [], {}

    def _lose(self, error: KafkaError) -> None:
        """Called by ``poll``. A connection that was merely idle ends without this."""
        self._lost = error

    def _check(self) -> None:
        self._in_use().poll(0)
        if self._lost is not None:
            raise KafkaException(self._lost)

    def retry(self, what: str, call: Callable[[], Any], reading: bool = False) -> None:
        """Repeats a failed call for PATIENCE seconds in which the broker answers others. Calls that only read
        (``reading``) are always repeated, others where the error allows it.

        Past that time FatalError for a call that reads; else the error, so that a new producer tries.
        """
        until = time.monotonic() + PATIENCE
        while True:
            try:
                self._call(call)
                return
            except KafkaException as error:
                cause = error.args[0]
                if past_use(cause):
                    raise FatalError(f"{what}: {cause}") from error
                if not reading and (not cause.retriable() or cause.txn_requires_abort()):
                    raise
                if cause.code() < 0 and not self._answers():  # not the broker's own word
                    until = time.monotonic() + PATIENCE
                if time.monotonic() > until:
                    if reading:
                        raise FatalError(f"{what}: not done in {PATIENCE:.0f} s: {cause}") from error
                    raise
                _log.warning("repeating", extra={"data": {"call": what, "error": str(cause)}})
                time.sleep(0.05)

    def _answers(self) -> bool:
        """Whether a fresh client gets an answer: else it is the broker that is away, and a successor would wait as well."""
        self._heartbeat()
        try:
            return bool(AdminClient(self._settings()).list_topics(timeout=5).brokers)
        except KafkaException:
            return False
        finally:
            self._heartbeat()

    def _call(self, call: Callable[[], T]) -> T:
        """On a thread: calls with a time limit of their own were seen not to come back for minutes."""
        self._heartbeat()
        try:
            return self._caller.submit(call).result(CALL_SECONDS + 1)
        except TimeoutError as error:
            self._caller = ThreadPoolExecutor(1, "kafka-call")  # the old thread stays with its call
            raise KafkaException(
                KafkaError(KafkaError._TIMED_OUT, "a call didn't come back", retriable=True)
            ) from error

    def _transact(self, out: Sequence[Outgoing], offsets: list[TopicPartition], group: Any) -> dict[int, int]:
        producer, ends = self._in_use(), dict[int, int]()
        producer.begin_transaction()
        for one in out:
            more: dict[str, Any] = {} if one.partition is None else {"partition": one.partition}
            if one.noun == "decisions":
                more["on_delivery"] = partial(_delivered, one)
            producer.produce(self._of.topic(one.noun), one.value, one.key, **more)
        producer.poll(0)
        # No retry: the documentation allows to repeat a call that timed out, but that was seen to hang for
        # minutes.
        self._call(lambda: producer.send_offsets_to_transaction(offsets, group, CALL_SECONDS))
        self._call(lambda: producer.commit_transaction(CALL_SECONDS))
        for one in out:
            if one.noun == "decisions" and one.partition is not None and one.offset >= 0:
                ends[one.partition] = max(one.offset + 1, ends.get(one.partition, 0))
        return ends

    def _settle(self, error: KafkaException, then: Callable[[], None]) -> None:
        """New producers until one has ended what is open and done ``then``."""
        while True:
            cause = error.args[0]
            if past_use(cause):
                raise FatalError(str(cause)) from error
            if len(self._abandoned) >= MAX_ABANDONED:
                raise FatalError(f"{MAX_ABANDONED} producers failed in this process: {cause}") from error
            _log.warning("transaction failed", extra={"data": {"error": str(cause)}})
            self._abandoned.append(self._in_use())
            self._producer = self._make_producer()
            try:
                self._open()
                then()
                return
            except KafkaException as failed:
                error = failed

    def _open(self) -> None:
        """Ends what earlier producers with this id left open: what the broker knows of, then what it has forgotten.

        A marker ends all that its producer id has open on a partition, so one aborted transaction over every partition does.
        """
        producer = self._in_use()
        self.retry("init_transactions", lambda: producer.init_transactions(CALL_SECONDS))
        producer.begin_transaction()
        for noun in NOUNS:
            for partition in range(self._partitions):
                producer.produce(self._of.topic(noun), None, partition=partition)
        some = [TopicPartition(self._of.topic("features"), 0, 0)]
        self._call(lambda: producer.send_offsets_to_transaction(some, self._outsider, CALL_SECONDS))
        if self._call(lambda: producer.flush(CALL_SECONDS)):
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "no acknowledgement", retriable=True))
        self._call(lambda: producer.abort_transaction(CALL_SECONDS))
        producer.poll(0)
        self._lost = None

    def _not_visible(
        self, out: Sequence[Outgoing], same: Callable[[bytes], object] = lambda value: value
    ) -> list[Outgoing]:
        """The records of ``out`` that committed readers don't have; a resend has the same bytes, another worker's maybe only the same id."""
        every = range(self._partitions)
        places = {
            (one.noun, at) for one in out for at in (every if one.partition is None else [one.partition])
        }
        # By noun: a decision and its alert are the same bytes.
        visible: dict[str, set[object]] = defaultdict(set)
        for noun, partition in places:
            visible[noun] |= {same(value) for value in self._visible(self._of.topic(noun), partition)}
        return [one for one in out if same(one.value) not in visible[one.noun]]

    def _visible(self, topic: str, partition: int) -> set[bytes]:
        """The newest records of a partition, once no open transaction hides any."""
        low, high = self.watermarks(TopicPartition(topic, partition), "read_uncommitted")
        values: set[bytes] = set()
        if low == high:
            return values
        settings = {
            **self._settings(),
            "group.id": self._of.group("worker.tail"),
            "enable.partition.eof": True,
        }
        reader = Consumer({**settings, "isolation.level": "read_committed", "fetch.wait.max.ms": 100})
        try:
            reader.assign([TopicPartition(topic, partition, max(low, high - LOOK_BACK))])
            until = time.monotonic() + PATIENCE
            while time.monotonic() < until:
                self._heartbeat()
                for message in reader.consume(1000, 0.1):
                    error = message.error()
                    if error is None:
                        values.add(message.value())
                    elif error.code() == KafkaError._PARTITION_EOF and message.offset() >= high:
                        return values
        finally:
            reader.close()
        # The broker is away again, or a transaction of another worker is open there.
        late = f"{topic} [{partition}] wasn't read to its end in {PATIENCE:.0f} s"
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, late, retriable=True))

    def watermarks(self, place: TopicPartition, isolation: str) -> tuple[int, int]:
        """First and next offset of a partition, as a reader of that isolation sees them."""
        reader = Consumer(
            {**self._settings(), "group.id": self._of.group("worker.tail"), "isolation.level": isolation}
        )
        ends: list[tuple[int, int]] = []
        try:
            self.retry(
                "watermarks",
                lambda: ends.append(reader.get_watermark_offsets(place, CALL_SECONDS)),
                reading=True,
            )
        finally:
            reader.close()
        return ends[-1]
