"""How far a stream is with its history: lags of consumer groups, read from Kafka itself while the features warm up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from fraud_contracts.errors import StoreError
from fraud_contracts.lineage import Positions, by_topic
from fraud_operator import readiness
from fraud_operator.detector import Detector, DetectorKey
from fraud_operator.facts import Facts, Lags
from fraud_operator.kafka_target import KafkaTarget
from fraud_operator.lineage import Held
from fraud_operator.training import TrainingPhase
from fraud_process.group_offsets import committed_offsets

LOG: Final = logging.getLogger(__name__)
TIMEOUT: Final = 4.0


@dataclass
class LagReader:
    """One client for each Kafka, whatever the number of detectors there, and only while one of them reads.

    A client holds a thread for each broker. A group's offsets are asked by a client of their own, for a moment.
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
        try:
            committed = committed_offsets(
                _settings(target), group, [(topic, number) for number in range(partitions)], TIMEOUT
            )
            lag = written = 0
            for place, (low, high) in _extents(client, places).items():
                lag += max(0, high - max(low, committed.get((topic, place.partition), low)))
                written += high - low
        except (KafkaException, TimeoutError) as error:
            raise _no_offsets(target, group, topic, error) from error
        return lag, written

    def committed(
        self, target: KafkaTarget, group: str, topics: Mapping[str, str], partitions: int
    ) -> Positions:
        """Of ``topics`` by noun: where the group would go on, for the partitions that it has committed; StoreError as above."""
        nouns = {topic: noun for noun, topic in topics.items()}
        places = [(topic, number) for topic in nouns for number in range(partitions)]
        try:
            found = committed_offsets(_settings(target), group, places, TIMEOUT)
        except KafkaException as error:
            raise _no_offsets(target, group, ", ".join(nouns), error) from error
        return by_topic({(nouns[topic], partition): offset for (topic, partition), offset in found.items()})

    def held(
        self, reader: DetectorKey, target: KafkaTarget, topics: Mapping[str, str], partitions: int
    ) -> Held:
        """Of ``topics`` by noun; StoreError as above."""
        client = self._client(target, reader)
        places = {
            (noun, number): TopicPartition(topic, number)
            for noun, topic in topics.items()
            for number in range(partitions)
        }
        try:
            extents = _extents(client, list(places.values()))
        except (KafkaException, TimeoutError) as error:
            raise _no_offsets(target, str(reader), ", ".join(topics.values()), error) from error
        held: dict[str, dict[int, tuple[int, int]]] = {noun: {} for noun in topics}
        for (noun, number), place in places.items():
            held[noun][number] = extents[place]
        return held

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
                    {**_settings(target), "logger": logging.getLogger("fraud_operator.kafka")}
                )
            return self._clients[target]


def _extents(client: AdminClient, places: list[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
    """The first offset that each keeps, and its end."""
    firsts, ends = (
        client.list_offsets(dict.fromkeys(places, spec), request_timeout=TIMEOUT)
        for spec in (OffsetSpec.earliest(), OffsetSpec.latest())
    )
    return {
        place: (firsts[place].result(TIMEOUT).offset, ends[place].result(TIMEOUT).offset) for place in places
    }


def _settings(target: KafkaTarget) -> dict[str, Any]:
    return {**target.settings(), "socket.timeout.ms": 4000, "log_level": 2}


def _no_offsets(target: KafkaTarget, group: str, topics: str, error: Exception) -> StoreError:
    why = error.args[0] if error.args else "no answer in time"
    return StoreError("kafka", f"{target.bootstrap} gave no offsets of {topics} for {group}: {why}")


@dataclass(frozen=True)
class _Warm:
    """What was warm: a lineage of a detector, with the seeds of a training revision."""

    uid: str
    stream: str
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
        usable = readiness.kafka_usable(detector, facts)
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
            self._warm[key] = _Warm(detector.uid, detector.stream, revision, lags)
            self.reader.done(key)
        return lags

    def forget(self, key: DetectorKey) -> None:
        self._warm.pop(key, None)
        self.reader.done(key)

    def _holds(self, warm: _Warm, detector: Detector, facts: Facts) -> bool:
        """While a training runs its seeds aren't written yet, so what was warm before it is so still."""
        if (warm.uid, warm.stream) != (detector.uid, detector.stream):
            return False
        return warm.revision == facts.revision or not _trained(detector, facts)

    def _read(self, key: DetectorKey, detector: Detector, target: KafkaTarget) -> Lags:
        identity, partitions = detector.identity, detector.spec.kafka.partitions
        features, topic = detector.features_group, identity.topic("seeds")
        silent, sink = identity.features_group(detector.stream, silent=True), identity.group("profile-sink")
        try:
            seeds, written = self.reader.read(key, target, features, topic, partitions)
            if seeds and features != silent:
                # A job that was silent until now has what it read then, and says so in its other group until a checkpoint.
                seeds = min(seeds, self.reader.read(key, target, silent, topic, partitions)[0])
            profiles, _ = self.reader.read(key, target, sink, identity.topic("profiles"), partitions)
        except StoreError as error:
            LOG.warning("lags unknown", extra={"data": {"detector": str(identity), "error": str(error)}})
            return Lags()
        return Lags(seeds, profiles, written)


def _trained(detector: Detector, facts: Facts) -> bool:
    return readiness.training_outcome(detector, facts).phase is TrainingPhase.SUCCEEDED
