"""What an error of a Kafka client means to the worker: end, join anew, or neither."""

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaError

# Of the group's membership: a consumer that says so is past use, and a transaction with an earlier membership doesn't count.
_NO_MEMBER: Final = (
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.FENCED_INSTANCE_ID,
)


class FatalError(Exception):
    """This process can't go on; its successor can."""


class StaleMembershipError(Exception):
    """The group has moved on since the records were taken: nothing of the transaction is committed, and some of it may be others' now."""


def past_use(error: KafkaError) -> bool:
    """Whether a client can't go on. A fatal error of a consumer comes without the flag that a producer's has."""
    return error.fatal() or error.code() == KafkaError._FATAL or error.code() in _NO_MEMBER


def is_stale(error: KafkaError) -> bool:
    """Whether a transaction was refused because the group has moved on."""
    return error.code() in (*_NO_MEMBER, KafkaError.REBALANCE_IN_PROGRESS)
