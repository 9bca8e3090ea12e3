"""Which errors of a consumer pass by themselves, and what they say of its membership."""

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaError

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
