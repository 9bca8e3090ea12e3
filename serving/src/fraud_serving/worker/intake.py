"""The worker as a member of its group: which partitions of ``features`` are its own, and their records in batches.

Partitions move one by one (cooperative-sticky, docs/decisions/0024): who keeps one goes on with it while others come and go. What is
committed counts for the membership in which it was taken, its *token*: once the group has moved on, a transaction with an older one is
refused, so a process that was taken for dead can commit nothing beside its successor.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import Consumer, Message, TopicPartition

from fraud_serving.worker.client_errors import FatalError, past_use

BATCH: Final = 64
# Transactions are at least so far apart unless a batch is full: below it, latency gains nothing and the broker pays.
PACE: Final = 0.020
# A worker that died is missed after so long, the shortest that brokers allow unless told; one that ends says so.
SESSION_MS: Final = 6_000
# So late at most a member hears that the group changes.
HEARTBEAT_MS: Final = 500
# Where something is broken, leaving may wait for it for ever (seen after a killed broker).
LEAVE_SECONDS: Final = 2.0
_log = logging.getLogger(__name__)


class Intake:
    """``token`` is None while the group changes: then nothing is taken."""

    def __init__(self, settings: Mapping[str, Any], topic: str) -> None:
        self._topic = topic
        self.assigned: set[int] = set()
        self.token: Any = None
        self._gone: set[int] = set()
        self._new: set[int] = set()
        # Read, and not given out yet, or put back.
        self._held: list[Message] = []
        self._last = 0.0
        self.consumer = Consumer(
            {
                **settings,
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": SESSION_MS,
                "heartbeat.interval.ms": HEARTBEAT_MS,
            }
        )
        self.consumer.subscribe(
            [topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def take(self) -> list[Message]:
        """Blocks for a first record, waits out the pace, takes what is there; FatalError where the consumer is past use."""
        if not self._held:
            self._held = self._consume(1, 0.2)
            if not self._held:
                return []
            rest = self._last + PACE - time.monotonic()
            if rest > 0:
                time.sleep(rest)
        more = self._consume(max(1, BATCH - len(self._held)), 0.0 if self.token is not None else 0.1)
        self._held = [*self._held, *more]
        if self.token is None:
            return []
        batch, self._held = self._held, []
        self._last = time.monotonic()
        return batch

    def put_back(self, batch: list[Message]) -> None:
        """The group has moved on, so these weren't committed: they come again, but for those that are others' then."""
        self.token, self._held = None, [*batch, *self._held]

    def changes(self) -> tuple[set[int], set[int]]:
        """Which partitions have gone and which have come since the last call; one may have done both."""
        gone, new = self._gone, self._new
        self._gone, self._new = set(), set()
        return gone, new

    def leave(self) -> None:
        """Others get the partitions at once, not only when the session is over. Takes LEAVE_SECONDS at most."""
        thread = threading.Thread(target=self.consumer.close, name="leave", daemon=True)
        thread.start()
        thread.join(LEAVE_SECONDS)

    def _consume(self, count: int, seconds: float) -> list[Message]:
        good: list[Message] = []
        for message in self.consumer.consume(count, seconds):
            error = message.error()
            if error is None:
                # A rebalance meanwhile may have given a partition away.
                if message.partition() in self.assigned:
                    good.append(message)
            elif past_use(error):
                raise FatalError(str(error))
            else:
                _log.warning("consumer error", extra={"data": {"error": str(error)}})
        return good

    # Called by ``consume``. The group calls the first at each change, also where nothing of ours moves.

    def _on_assign(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        consumer.incremental_assign(places)
        partitions = {place.partition for place in places}
        self.assigned |= partitions
        self._new |= partitions
        self.token = consumer.consumer_group_metadata()

    def _on_revoke(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        consumer.incremental_unassign(places)
        partitions = {place.partition for place in places}
        self.assigned -= partitions
        self._gone |= partitions
        self._new -= partitions
        self._held = [message for message in self._held if message.partition() in self.assigned]

    def _on_lost(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        _log.warning(
            "taken for dead by the group", extra={"data": {"partitions": [p.partition for p in places]}}
        )
        self._on_revoke(consumer, places)
        self.token = None
