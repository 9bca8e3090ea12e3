"""Who may do what in a managed Kafka: a user for each component that speaks to it and for the operator itself, each with the least.

The table says what each component's code reads, writes and commits; a Kafka of the user's own has one user for all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from fraud_contracts import names
from fraud_contracts.detector import Component
from fraud_contracts.names import Identity
from fraud_operator.desired.child import CLUSTER_LABEL, Child, Wanted, child, metadata
from fraud_operator.desired.components import COMPONENTS
from fraud_operator.desired.kafka import API
from fraud_operator.detector import Detector
from fraud_operator.objects import Json

_READ: Final = ("Read", "Describe")
_WRITE: Final = ("Write", "Describe")
OPERATOR: Final = "operator"


@dataclass(frozen=True)
class KafkaRights:
    """``reads``, ``writes`` and ``describes`` (how far one goes, and no record) are nouns of topics, ``groups`` what names of consumer groups begin with after the identity.

    ``watches``: of groups, how far they are. ``transactions``: what its transactional ids begin with, empty where it has none.
    ``settings``: it reads the brokers' own.
    """

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    describes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    watches: tuple[str, ...] = ()
    transactions: str = ""
    settings: bool = False


RIGHTS: Final[dict[Component, KafkaRights]] = {
    # How far both inputs go tells it whether the profiles are behind.
    Component.DECISION_SERVICE: KafkaRights(
        writes=("accepted", "label-reports"), describes=("transactions",)
    ),
    # Also what looks at dead letters and sends them again, which runs in its Pods.
    Component.WORKER: KafkaRights(
        reads=("features", "decisions", "alerts", "dead-letters", "transactions", "accepted"),
        writes=("decisions", "alerts", "dead-letters", "transactions"),
        groups=("worker", "redrive"),
        # After a loss of claims: whether the stream has got to what was accepted before.
        watches=("features.",),
        transactions="worker-",
        settings=True,
    ),
    Component.FEATURES: KafkaRights(
        reads=("transactions", "accepted", "labels", "seeds"),
        writes=("features", "profiles", "dead-letters"),
        groups=("features.",),
    ),
    # Before it reads the lake it waits until all is there that the stream has read.
    Component.TRAINING: KafkaRights(
        reads=("decisions", "labels"),
        describes=("transactions", "accepted", "features"),
        writes=("seeds",),
        groups=("training",),
        watches=("features.", "worker", "lake-sink"),
    ),
    Component.PROFILE_SINK: KafkaRights(reads=("profiles",), groups=("profile-sink",)),
    Component.LEDGER_SINK: KafkaRights(
        reads=("decisions", "label-reports", "labels"), writes=("labels",), groups=("ledger-sink", "labels.")
    ),
    Component.LAKE_SINK: KafkaRights(reads=("decisions", "labels"), groups=("lake-sink",)),
}


def _rule(kind: str, name: str, operations: Iterable[str], *, prefix: bool = False) -> Json:
    resource = {"type": kind, "name": name, "patternType": "prefix" if prefix else "literal"}
    return {"resource": resource, "operations": list(operations), "host": "*"}


def rules(identity: Identity, rights: KafkaRights) -> Iterator[Json]:
    """As Strimzi writes them."""
    for noun in rights.reads:
        yield _rule("topic", identity.topic(noun), _READ)
    for noun in rights.writes:
        yield _rule("topic", identity.topic(noun), _WRITE)
    for noun in rights.describes:
        yield _rule("topic", identity.topic(noun), ("Describe",))
    for group in rights.groups:
        yield _rule("group", identity.group(group), _READ, prefix=True)
    for group in rights.watches:
        yield _rule("group", identity.group(group), ("Describe",), prefix=True)
    if rights.transactions:
        yield _rule("transactionalId", identity.group(rights.transactions), _WRITE, prefix=True)
    if rights.settings:
        yield {"resource": {"type": "cluster"}, "operations": ["DescribeConfigs"], "host": "*"}


def operator_rules(identity: Identity) -> Iterator[Json]:
    """How far groups are, how long topics, and what is left of the brokers' disks: nothing of what is in them."""
    yield {"resource": {"type": "cluster"}, "operations": ["Describe"], "host": "*"}
    yield _rule("topic", f"{identity}.", ("Describe",), prefix=True)
    yield _rule("group", f"{identity}.", ("Describe",), prefix=True)


def kafka_parts() -> list[str]:
    """Who has a user: each component that speaks to Kafka, by its label, and the operator."""
    return [*(COMPONENTS[component].label for component in RIGHTS), OPERATOR]


def build_kafka_users(detector: Detector, _: Wanted) -> list[Child]:
    """For a managed Kafka; each user's password lies in a Secret of the user's name, which Strimzi makes."""
    if not detector.managed_kafka:
        return []
    users = {COMPONENTS[component].label: rules(detector.identity, RIGHTS[component]) for component in RIGHTS}
    users[OPERATOR] = operator_rules(detector.identity)
    return [
        child(
            API,
            "KafkaUser",
            metadata(
                detector,
                names.kafka_user(detector.name, part),
                "kafka",
                more_labels={CLUSTER_LABEL: names.kafka(detector.name)},
            ),
            spec={
                "authentication": {"type": "scram-sha-512"},
                "authorization": {"type": "simple", "acls": list(acls)},
            },
        )
        for part, acls in users.items()
    ]
