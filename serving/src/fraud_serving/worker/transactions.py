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
from collections.abc import Callable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

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
from fraud_serving.worker.visible_records import CALL_SECONDS, PATIENCE, VisibleRecords

TRANSACTION_MS: Final = 10_000
MAX_ABANDONED: Final = 20
DOUBTED_SECONDS: Final = 10.0
# Where the broker was away. Later so much lies behind them that readers would seem to lack what they have.
COMPARED_SECONDS: Final = 60.0
NOUNS: Final = ("decisions", "alerts", "dead-letters")
_log = logging.getLogger(__name__)
T = TypeVar("T")


def _delivered(one: Outgoing, error: KafkaError | None, message: Message) -> None:
    offset = message.offset()
    if error is None and offset is not None:
        one.offset = offset


class _Batch(NamedTuple):
    """What one transaction publishes, and how far the group has then read."""

    records: list[Outgoing]
    offsets: list[TopicPartition]

    @property
    def ends(self) -> dict[int, int]:
        return {one.partition: one.offset for one in self.offsets}


_NOTHING: Final = _Batch([], [])


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
        # The transaction before: the broker said that it is committed, but a crash may still lose its
        # markers.
        self._last = _NOTHING
        self._committed_at = 0.0
        self._held: frozenset[int] = frozenset()
        self.visible = VisibleRecords(settings, of, partitions, heartbeat, partial(self.retry, reading=True))
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
        self._held = frozenset(partitions)
        lost, kept = self._lost, None
        if self._id_of == lowest and lowest not in new:
            kept, self._producer = self._producer, None
        for partition in [*sorted(new - {lowest}), *([] if kept is not None or lowest is None else [lowest])]:
            self._retire()
            lost = lost or self._lost
            self._id_of = partition
            self._producer = self._make_producer()
            try:
                self._open()
            except KafkaException as error:
                lost = lost or error.args[0]
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
        batch, sent = _Batch(out, offsets), out
        ends: dict[int, int] = {}
        self._in_use().poll(0)
        self._trust_what_is_old()
        try:
            self._check()
            ends = self._transact(out, offsets, group)
            self._check()
        except KafkaException as error:
            if self._lost is None and is_stale(error.args[0]):
                self._abort()
                raise StaleMembershipError(str(error.args[0])) from error

            counted = True

            def resend() -> None:
                nonlocal sent, counted
                sent = self.visible.lacking([*self._last.records, *out])
                try:
                    self._transact(sent, offsets, group)
                except KafkaException as refused:
                    if not is_stale(refused.args[0]):
                        raise
                    self._call(lambda: self._in_use().abort_transaction(CALL_SECONDS))
                    sent, counted = self._send_counted(batch, group)

            self._settle(error, resend)
            ends = {}
            if not counted:
                self._last = _NOTHING
                raise StaleMembershipError("the broker was away for longer than the group waits") from error
        self._last, self._committed_at = _Batch(sent, offsets), time.monotonic()
        return ends

    def _send_counted(self, batch: _Batch, group: Any) -> tuple[list[Outgoing], bool]:
        """Without a membership: what readers lack of two batches, as far as the group has their offsets, since nobody decides those again.

        -> what was sent, and whether ``batch`` is one of them: else it comes again, to whoever has its partitions then. FatalError where
        a part of it is, or the one before isn't: this process is past that, and only a new one reads it again.
        """
        topic = self._of.topic("features")
        places = sorted({(topic, partition) for one in (self._last, batch) for partition in one.ends})
        committed = committed_offsets(self._settings(), self._of.group("worker"), places, CALL_SECONDS)

        def reached(one: _Batch) -> set[int]:
            return {at for at, end in one.ends.items() if committed.get((topic, at), -1) >= end}

        before, now = reached(self._last), reached(batch)
        missed = [one for one in self._last.records if one.source in before]
        missed += [one for one in batch.records if one.source in now]
        missed = self.visible.lacking(missed)
        self._transact(missed, [], group)
        if before != self._last.ends.keys() or (now and now != batch.ends.keys()):
            raise FatalError("the group has read a part of what was published")
        return missed, now == batch.ends.keys()

    def _abort(self) -> None:
        try:
            self._call(lambda: self._in_use().abort_transaction(CALL_SECONDS))
        except KafkaException as error:
            self._settle(error, lambda: None)
            self._lost = error.args[0]  # what was committed before is yet to be looked for

    def _in_use(self) -> Producer:
        assert self._producer is not None, "only who has a partition publishes"
        return self._producer

    def idle(self, group: Any) -> None:
        """To be called while there is nothing to publish: it notices, too, that the broker was away.

        It commits the offsets of the transaction before again: who is no member any more is refused.
        """
        if self._producer is not None:
            self._producer.poll(0)
        self._trust_what_is_old()
        if self._producer is not None and self._lost is not None:
            self.publish([], [one for one in self._last.offsets if one.partition in self._held], group)

    def _trust_what_is_old(self) -> None:
        """After DOUBTED_SECONDS of a broker that is well the markers of the transaction before are safe, and records of others may lie
        after its own. To be called after a ``poll``, which tells of the broker."""
        waited = time.monotonic() - self._committed_at
        if waited > (DOUBTED_SECONDS if self._lost is None else COMPARED_SECONDS):
            self._last = _NOTHING

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
