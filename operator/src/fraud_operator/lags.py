"""How far a stream is with its history: lags of consumer groups, read from Kafka itself while the features warm up."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from fraud_contracts.errors import StoreError
from fraud_operator import readiness
from fraud_operator.detector import Detector, DetectorKey
from fraud_operator.facts import Facts, Lags
from fraud_operator.kafka_target import KafkaTarget
from fraud_operator.training import TrainingPhase

LOG: Final = logging.getLogger(__name__)
TIMEOUT: Final = 4.0
# What a partition reports for a group that has never committed there.
_NONE: Final = -1001


@dataclass
class LagReader:
    """One client for each Kafka, whatever the number of detectors there, and only while one of them reads.

    A client holds a thread for each broker. It joins no group: it neither subscribes nor commits.
    """

    _clients: dict[KafkaTarget, AdminClient] = field(default_factory=dict)
    _readers: dict[KafkaTarget, set[DetectorKey]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def connected(self) -> frozenset[str]:
        """Bootstrap addresses with a client."""
        return frozenset(target.bootstrap for target in self._clients)

    def read(
        self, reader: DetectorKey, target: KafkaTarget, group: str, topic: str, partitions: int
    ) -> tuple[int, int]:
        """(records not committed yet, records written) over all partitions; StoreError where Kafka gives no answer."""
        client = self._client(target, reader)
        places = [TopicPartition(topic, number) for number in range(partitions)]
        request = ConsumerGroupTopicPartitions(group, places)
        try:
            committed = client.list_consumer_group_offsets([request], request_timeout=TIMEOUT)[group]
            lows = client.list_offsets(dict.fromkeys(places, OffsetSpec.earliest()), request_timeout=TIMEOUT)
            highs = client.list_offsets(dict.fromkeys(places, OffsetSpec.latest()), request_timeout=TIMEOUT)
            lag = written = 0
            for position in committed.result(TIMEOUT).topic_partitions:
                if position.error is not None:
                    raise StoreError("kafka", f"{topic}: {position.error}")
                place = TopicPartition(topic, position.partition)
                low, high = lows[place].result(TIMEOUT).offset, highs[place].result(TIMEOUT).offset
                at = low if position.offset == _NONE or position.offset < low else position.offset
                lag += max(0, high - at)
                written += high - low
        except (KafkaException, TimeoutError) as error:
            why = error.args[0] if error.args else "no answer in time"
            raise StoreError(
                "kafka", f"{target.bootstrap} gave no offsets of {topic} for {group}: {why}"
            ) from error
        return lag, written

    def done(self, reader: DetectorKey) -> None:
        """The detector reads no more for now; a client that nobody reads by is closed."""
        idle: list[AdminClient] = []
        with self._lock:
            for target in [t for t, readers in self._readers.items() if reader in readers]:
                self._readers[target].discard(reader)
                if not self._readers[target]:
                    del self._readers[target]
                    idle.append(self._clients.pop(target))
        # Dropping the last reference closes a client and waits for its threads: not under the lock.
        idle.clear()

    def _client(self, target: KafkaTarget, reader: DetectorKey) -> AdminClient:
        with self._lock:
            self._readers.setdefault(target, set()).add(reader)
            if target not in self._clients:
                self._clients[target] = AdminClient(
                    {
                        **target.settings(),
                        "socket.timeout.ms": 4000,
                        "log_level": 2,
                        "logger": logging.getLogger("fraud_operator.kafka"),
                    }
                )
            return self._clients[target]


@dataclass(frozen=True)
class _Warm:
    """What was warm: a feature set of a detector, with the seeds of a training revision."""

    uid: str
    hash6: str
    revision: str | None
    lags: Lags


@dataclass
class Warming:
    """Reads a detector's lags until they are gone, and again after what writes seeds or loses state: new set, training, stop."""

    reader: LagReader = field(default_factory=LagReader)
    _warm: dict[DetectorKey, _Warm] = field(default_factory=dict)

    def lags(self, detector: Detector, facts: Facts, target: KafkaTarget | None) -> Lags:
        """As they are, or as they were when the features became warm; unknown where Kafka gives no answer."""
        key = (detector.namespace, detector.name)
        usable = (
            readiness.kafka(detector, facts).usable if detector.managed_kafka else bool(facts.kafka.ready)
        )
        if target is None or not usable or readiness.before_warming(detector, facts) is not None:
            self.forget(key)
            return Lags()
        warm = self._warm.get(key)
        if warm is not None and self._holds(warm, detector, facts):
            self.reader.done(key)
            return warm.lags
        lags = self._read(key, detector, target)
        revision = facts.revision if _trained(detector, facts) else None
        if readiness.caught_up(lags):
            self._warm[key] = _Warm(detector.uid, detector.hash6, revision, lags)
            self.reader.done(key)
        return lags

    def forget(self, key: DetectorKey) -> None:
        self._warm.pop(key, None)
        self.reader.done(key)

    def _holds(self, warm: _Warm, detector: Detector, facts: Facts) -> bool:
        """While a training runs its seeds aren't written yet, so what was warm before it is so still."""
        if (warm.uid, warm.hash6) != (detector.uid, detector.hash6):
            return False
        return warm.revision == facts.revision or not _trained(detector, facts)

    def _read(self, key: DetectorKey, detector: Detector, target: KafkaTarget) -> Lags:
        identity, partitions = detector.identity, detector.spec.kafka.partitions
        features, sink = identity.features_group(detector.hash6), identity.group("profile-sink")
        try:
            seeds, written = self.reader.read(key, target, features, identity.topic("seeds"), partitions)
            profiles, _ = self.reader.read(key, target, sink, identity.topic("profiles"), partitions)
        except StoreError as error:
            LOG.warning("lags unknown", extra={"data": {"detector": str(identity), "error": str(error)}})
            return Lags()
        return Lags(seeds, profiles, written)


def _trained(detector: Detector, facts: Facts) -> bool:
    return readiness.training_outcome(detector, facts).phase is TrainingPhase.SUCCEEDED
