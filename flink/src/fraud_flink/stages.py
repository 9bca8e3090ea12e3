"""What an entity's keyed stage does to a record, as plain calls: state in, state out. Imports nothing of Flink.

A method that returns state returns None where it didn't change, so that the caller writes and publishes only changes.

A state that can't be read is treated as none, with an error in the log: every record of its key would fail on it again.
"""

from __future__ import annotations

import logging
from typing import cast

import orjson

from fraud_contracts import profile_header
from fraud_contracts.config import DetectorConfig
from fraud_contracts.errors import Degraded
from fraud_contracts.names import profile_key
from fraud_contracts.records import Decision, FeatureRecord, Label
from fraud_flink.elements import EventElement
from fraud_pipelines.features import FeatureSet, KeyState, ProfileError, compile_detector
from fraud_pipelines.features.profile import VERSION

SEQ_MAX = 1 << 48  # no key has applied so many: a header with more is damaged

log = logging.getLogger(__name__)


class EntityStage:
    """Stage ``index`` of the detector's feature set; the first one finds repeats, the last one makes feature records.

    ``run`` marks this attempt's emissions: after a restore the same event may get another vector, and the first counts.
    """

    def __init__(self, config: DetectorConfig, index: int, run: str) -> None:
        self._set: FeatureSet = compile_detector(config.spec)
        if self._set.hash != config.feature_set:
            raise ValueError(
                f"this code computes feature set {self._set.hash}, the detector document says {config.feature_set}: "
                "operator and stream are of different versions"
            )
        self._stage = self._set.stages[index]
        self._first = index == 0
        self._names = tuple(stage.entity for stage in self._set.stages)
        self._epoch, self._run = config.epoch, run

    @property
    def entity(self) -> str:
        return self._stage.entity

    def token(self, element: EventElement) -> str | None:
        """The key's token, None where the event lacks this entity or is damaged: then the stage has nothing to do."""
        if element.reason is not None:
            return None
        token = element.event["entities"].get(self._stage.entity)
        return None if token is None else str(token)

    def lacking(self, state: bytes | None, element: EventElement) -> int:
        """How many events and labels of this key the decision saw that the key's state doesn't have yet.

        They are still on their way here, by another partition.
        """
        decision = element.decision
        saw = decision.get("saw") if decision is not None else None
        key_saw = saw.get(self._stage.entity) if isinstance(saw, dict) else None
        if not isinstance(key_saw, list) or len(key_saw) != 3 or not isinstance(key_saw[1], int):
            return 0
        epoch, seq = self._epoch, 0
        if state is not None:
            try:
                header = profile_header.read(state)
            except ValueError:
                return 0  # a state that can't be read never gets what it lacks
            epoch, seq = header.epoch, header.seq
        return max(0, key_saw[1] - seq) if key_saw[0] == epoch else 0

    def profile_key(self, token: str) -> bytes:
        return profile_key(self._set.hash6, self._stage.entity, token).encode()

    def _open(self, state: bytes | None) -> tuple[KeyState, bool]:
        """A key's state, decoded, and whether stored bytes couldn't be read: then it is an empty one.

        The empty state goes on from epoch and seq of the old header, where that can be read, so that its
        profiles are newer than the stored ones; its digest is that of no event.
        """
        try:
            return self._stage.open(state, self._epoch), False
        except ProfileError:
            log.exception("a state of entity %s can't be read and is taken for missing", self._stage.entity)
        key_state = self._stage.open(None, self._epoch)
        header = _header(state)
        if header is not None and header.set_hash8 == self._set.hash[:8] and header.seq < SEQ_MAX:
            key_state.epoch, key_state.seq = header.epoch, header.seq
        return key_state, True

    def event(self, state: bytes | None, element: EventElement) -> bytes | None:
        """Applies an event and writes its values into ``element``.

        A repeat (the first stage tells) gets values as of now and changes no state, here or in later stages.
        The event goes on whatever happens: the worker decides without a vector, so a failure here is no
        reason to stop.
        """
        event = element.event
        try:
            key_state, lost = self._open(state)
            epoch, seq, digest = key_state.saw
            values = key_state.observe(event)
            if values is None:
                values = key_state.read(event)
                changed = False
                element.repeat = element.repeat or self._first
            else:
                changed = not element.repeat
            new = key_state.dump() if changed and not (lost and _is_newer(state)) else None
        except Exception:  # any fault of state or engine; the stream must not stop at one record
            log.exception(
                "features of entity %s failed", self._stage.entity, extra={"data": {"source": element.source}}
            )
            element.reason = Degraded.FEATURES_FAILED.value
            return None
        if lost:
            element.degraded = sorted({*element.degraded, Degraded.PROFILES_INCOMPLETE.value})
        element.values[self._stage.entity] = values
        element.saw[self._stage.entity] = (epoch, seq, f"{digest:016x}")
        return new

    def label(self, state: bytes | None, label: Label) -> bytes | None:
        """Applies a joined label; the same one again changes nothing."""
        try:
            key_state, lost = self._open(state)
            return key_state.dump() if key_state.label(label) and not (lost and _is_newer(state)) else None
        except Exception:  # as above; intake refuses what is wrong with a label, so this is a fault of ours
            log.exception("a label of entity %s failed", self._stage.entity)
            return None

    def seed(self, state: bytes | None, profile: bytes) -> bytes | None:
        """The seed in this job's epoch, unless its bytes are none or the key has a state."""
        if state is not None and (_is_newer(state) or not self._open(state)[1]):
            return None
        try:
            return self._stage.seed(profile, self._epoch)
        except ProfileError:
            log.exception("a seed of entity %s is refused", self._stage.entity)
            return None

    def feature_key(self, element: EventElement) -> bytes:
        """Kafka key of the feature record: the first entity's token; a damaged event without one goes by its id."""
        event = element.event if isinstance(element.event, dict) else {}
        entities = event.get("entities")
        token = entities.get(self._names[0]) if isinstance(entities, dict) else None
        if token is None:
            token = event.get("id") or (element.decision or {}).get("id") or ""
        return str(token).encode()

    def feature_record(self, element: EventElement) -> bytes:
        """The finished record of ``features``; NaN becomes null. Without a failure ``vector`` isn't null."""
        vector: list[float] | None = None
        if element.reason is None:
            try:
                vector = self._set.vector(element.event, element.values)
            except Exception:  # a transform's fault, treated like a stage's
                log.exception("assembling a vector failed", extra={"data": {"source": element.source}})
                element.reason = Degraded.FEATURES_FAILED.value
        record: FeatureRecord = {
            "event": element.event,
            "hash": element.hash,
            "set": self._set.hash,
            "vector": vector,  # type: ignore[typeddict-item]  # list is invariant
            "reason": element.reason,
            "degraded": element.degraded,
            "saw": element.saw,
            "run": self._run,
            "repeat": element.repeat,
            "source": element.source,
            "appended": element.appended,
            "decision": cast("Decision | None", element.decision),
        }
        return orjson.dumps(record)


def _header(state: bytes | None) -> profile_header.Header | None:
    try:
        return None if state is None else profile_header.read(state)
    except ValueError:
        return None


def _is_newer(state: bytes | None) -> bool:
    """Whether a newer engine wrote the state: then it is whole, though unreadable here, and stays."""
    header = _header(state)
    return header is not None and header.version > VERSION
