"""The topics of a managed Kafka as Strimzi's objects: how long each keeps its records and how much of them, partitions, copies.

A broker whose volume is full stops, and all doors with it. So a topic has a share of the volume, too, and loses its oldest records at
its end, whatever their age: also those that nobody has read yet, hours of them as a rule.
"""

from __future__ import annotations

from typing import Final

from fraud_contracts import lifetimes, names
from fraud_contracts.detector import ManagedKafka
from fraud_contracts.retention import COMPACTED, KEPT_DAYS
from fraud_operator.desired.child import CLUSTER_LABEL, Child, Wanted, child, metadata
from fraud_operator.desired.kafka import API, copies
from fraud_operator.detector import Detector

_DAY_MS: Final = 86_400_000
_FOR_EVER: Final = -1
_MIB: Final = 1 << 20
_UNITS: Final = {"Mi": _MIB, "Gi": 1 << 30, "Ti": 1 << 40}
# A compacted topic keeps the newest value of each key: it is the store that Redis is rebuilt from.
_COMPACTED: Final = {
    "cleanup.policy": "compact",
    "min.cleanable.dirty.ratio": "0.2",
    "segment.ms": str(_DAY_MS),
    "max.compaction.lag.ms": str(_DAY_MS),
}
# Event time is checked against the append time, so a client must not be able to write that.
_BY_APPEND_TIME: Final = ("transactions", "accepted", "label-reports")


def _settings(noun: str) -> dict[str, str]:
    if noun in COMPACTED:
        return _COMPACTED
    days = KEPT_DAYS[noun]
    times = {"message.timestamp.type": "LogAppendTime"} if noun in _BY_APPEND_TIME else {}
    return {
        "cleanup.policy": "delete",
        **times,
        "retention.ms": str(_FOR_EVER if days is None else days * _DAY_MS),
    }


TOPIC_RETENTION: Final[dict[str, dict[str, str]]] = {noun: _settings(noun) for noun in names.TOPICS}


# What a topic may take of each broker's volume, in percent. The rest is for Kafka's own topics, for indexes, and for what is written in the
# minutes before Kafka looks again. What would be lost unread is a payment, or its decision, so those have the most.
SHARES: Final[dict[str, int]] = {
    "transactions": 10,
    "accepted": 17,
    "label-reports": 2,
    "labels": 2,
    "seeds": 6,
    "features": 10,
    "profiles": 12,
    "dead-letters": 2,
    "decisions": 17,
    "alerts": 2,
}
# The newest value of each key, and every label, may never be missing: these grow with the number of keys and labels, not with time.
_WHOLE: Final = ("labels", "seeds", "profiles")
# Seeds are taken within a week of their making: by then what came after them has left the inputs. Who makes old vectors again reads a month back.
_SEEDS_DAYS: Final = 30
_MOST_SEGMENT: Final = 1 << 30


def byte_bounds(volume: int, partitions: int) -> dict[str, dict[str, str]]:
    """By noun, what keeps a topic within its share of a broker's volume of so many bytes.

    As if each broker had a copy of each partition: Kafka moves none to a broker that is added. A segment goes as a whole, so a partition
    may hold one more than ``retention.bytes``; and nothing is compacted in the one that is written to, so they are small.
    """
    bounds: dict[str, dict[str, str]] = {}
    for noun, share in SHARES.items():
        most = volume * share // 100 // partitions
        segment = min(_MOST_SEGMENT, max(_MIB, most // 8))
        bounds[noun] = {"segment.bytes": str(segment)}
        if noun not in _WHOLE:
            bounds[noun]["retention.bytes"] = str(max(segment, most - segment))
    return bounds


def _volume(detector: Detector) -> int:
    managed = detector.spec.kafka.managed or ManagedKafka()
    return int(managed.storage[:-2]) * _UNITS[managed.storage[-2:]]


def _lifetimes(detector: Detector, wanted: Wanted) -> dict[str, dict[str, str]]:
    """By noun, how long values of keys that nothing comes to any more are kept: as long as the longest of the sets that are at work needs."""
    specs = [view.spec for view in (detector, wanted.beside) if view is not None]
    reach = max(lifetimes.reach(spec.features, spec.entities) for spec in specs)
    both = {"cleanup.policy": "compact,delete"}
    return {
        "profiles": {**both, "retention.ms": str(lifetimes.record_kept(reach))},
        "seeds": {**both, "retention.ms": str(_SEEDS_DAYS * _DAY_MS)},
    }


def build_kafka_topics(detector: Detector, wanted: Wanted) -> list[Child]:
    """For a managed Kafka, one for each noun, all with as many partitions: an entity's records share a number."""
    if not detector.managed_kafka:
        return []
    bounds = byte_bounds(_volume(detector), detector.spec.kafka.partitions)
    ages = _lifetimes(detector, wanted)
    return [
        child(
            API,
            "KafkaTopic",
            metadata(
                detector,
                names.kafka_topic(detector.name, noun),
                "kafka",
                owned=not detector.retained,
                more_labels={CLUSTER_LABEL: names.kafka(detector.name)},
            ),
            spec={
                "topicName": detector.identity.topic(noun),
                "partitions": detector.spec.kafka.partitions,
                "replicas": copies(detector, wanted),
                "config": {**TOPIC_RETENTION[noun], **ages.get(noun, {}), **bounds[noun]},
            },
        )
        for noun in names.TOPICS
    ]
