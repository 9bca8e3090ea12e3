"""Which errors of a consumer pass by themselves, what they say of its membership, and the calls that need to know."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from fraud_contracts.errors import StoreError

log = logging.getLogger(__name__)
T = TypeVar("T")

# The member is simply no longer the owner: whoever is reads the batch again, and writers are idempotent.
NOT_OWNER: Final = (
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError._NO_OFFSET,
)
# Trying again at once would wait for ever: a client that has lost its group joins it again only when it is polled. The next
# batch's commit says it, too.
NO_COORDINATOR: Final = (
    KafkaError._WAIT_COORD,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.NOT_COORDINATOR,
)
# What a consumer may meet while brokers or their names come and go; it goes on by itself.
PASSING: Final = (
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
    KafkaError._MAX_POLL_EXCEEDED,
    # A password that was changed: until its file has changed, too, a new connection is refused.
    KafkaError._AUTHENTICATION,
)


def ask_broker(call: Callable[[], T]) -> T:
    """The broker's answer; StoreError where it gives none."""
    try:
        return call()
    except KafkaException as error:
        raise StoreError("kafka", str(error)) from error


def commit(consumer: Consumer, offsets: list[TopicPartition]) -> None:
    """StoreError where trying again may help. Who isn't the owner any more, or has no group for now, commits nothing."""
    try:
        consumer.commit(offsets=offsets, asynchronous=False)
    except KafkaException as error:
        cause = error.args[0]
        if cause.code() not in (*NOT_OWNER, *NO_COORDINATOR):
            raise StoreError("kafka", f"committing offsets: {cause.str()}") from error
        log.warning("offsets not committed", extra={"data": {"error": cause.str()}})
