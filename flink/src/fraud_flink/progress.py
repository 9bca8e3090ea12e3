"""How far the sources are, told from step to step and written among the profiles. Imports nothing of Flink.

Flink's own watermarks would be of event time, and of the slowest source. Here each tick of a clock sends what intake has read of each
source's partition through all subtasks of all stages, on the way that the records themselves went: what comes behind a record on each
of its ways comes behind what was made of it. Nothing of it is state: after a restart it is told anew.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import count

from fraud_contracts.lineage import INPUTS, Positions
from fraud_contracts.stream_progress import StreamProgress, progress_key
from fraud_flink.elements import ProgressElement

# Flink's own, where none is set and the parallelism is below 86.
DEFAULT_MAX_PARALLELISM = 128
log = logging.getLogger(__name__)


class SourceOffsets:
    """What one subtask of intake has read: by source and partition the offset after the last record."""

    def __init__(self, starts_at: Positions) -> None:
        """``starts_at``: the first records that the job's seeds don't hold, so what lies before is read, too."""
        self._following: dict[tuple[str, int], int] = {
            (noun, partition): offset
            for noun in INPUTS
            for partition, offset in starts_at.get(noun, {}).items()
        }

    def read(self, noun: str, partition: int, offset: int) -> None:
        self._following[noun, partition] = offset + 1

    def positions(self) -> Positions:
        positions: Positions = {}
        for (noun, partition), offset in self._following.items():
            if noun in INPUTS:
                positions.setdefault(noun, {})[partition] = offset
        return positions


class SubtaskProgress:
    """What one subtask of a stage has heard from each of the ``senders`` of the step before; intake's count as one.

    Each subtask of intake reads partitions of its own. Each subtask of a stage passes on all partitions, for its own keys.
    """

    def __init__(self, senders: int) -> None:
        self._of: list[dict[tuple[str, int], int]] = [{} for _ in range(senders)]
        self._heard: set[str] = set()
        self._subtask: int | None = None

    def hear(self, element: ProgressElement) -> Positions | None:
        """What is in, by all; None where it is too early to say so again: once a tick is enough, however many tell."""
        if self._subtask not in (None, element.subtask):
            # Nothing may be said then: another subtask's keys hear of nothing.
            log.error("subtasks %s and %s are one: no progress is told", self._subtask, element.subtask)
            return None
        self._subtask = element.subtask
        of = self._of[element.sender]
        of.update(
            {(noun, p): offset for noun, offsets in element.applied.items() for p, offset in offsets.items()}
        )
        if element.origin not in self._heard:
            self._heard.add(element.origin)
            return None
        self._heard = {element.origin}
        positions: Positions = {}
        for place in set.intersection(*(set(known) for known in self._of)):
            positions.setdefault(place[0], {})[place[1]] = min(known[place] for known in self._of)
        return positions


class ProgressRecords:
    """One subtask's records for the topic of profiles: one for each of its ``partitions``."""

    def __init__(
        self,
        hash6: str,
        epoch: int,
        stage: tuple[int, int],
        subtask: tuple[int, int],
        partitions: int,
        reach: int,
    ) -> None:
        """``stage`` and ``subtask`` are (number, of how many); ``reach`` is that of the feature set, as in ``lifetimes``."""
        (self._stage, self._stages), (self._subtask, self._parallelism) = stage, subtask
        self._epoch, self._reach = epoch, reach
        keys: dict[int, bytes] = {}
        for salt in count():
            key = progress_key(hash6, self._stage, self._subtask, self._parallelism, salt).encode()
            keys.setdefault(partition_of(key, partitions), key)
            if len(keys) == partitions:
                break
        self._keys = [keys[number] for number in range(partitions)]

    def rows(self, applied: Positions) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) for each partition."""
        value = StreamProgress(
            epoch=self._epoch,
            stage=self._stage,
            stages=self._stages,
            subtask=self._subtask,
            parallelism=self._parallelism,
            applied=applied,
            reach=self._reach,
        ).to_json()
        for key in self._keys:
            yield key, value


def copies(origin: str, sender: int, keys: tuple[str, ...], applied: Positions) -> Iterator[ProgressElement]:
    """What is told, once for each subtask of the next stage; ``keys`` are ``subtask_keys``."""
    for subtask, key in enumerate(keys):
        yield ProgressElement(origin, sender, subtask, key, applied)


def subtask_keys(parallelism: int, max_parallelism: int) -> tuple[str, ...]:
    """For each subtask of a keyed step a key that Flink sends there."""
    keys: dict[int, str] = {}
    for salt in count():
        key = f"p{salt}"
        # org.apache.flink.runtime.state.KeyGroupRangeAssignment
        group = _murmur_of_int(_java_hash(key)) % max_parallelism
        keys.setdefault(group * parallelism // max_parallelism, key)
        if len(keys) == parallelism:
            return tuple(keys[subtask] for subtask in range(parallelism))
    raise AssertionError("count() never ends")


_WORD = 0xFFFFFFFF


def _java_hash(text: str) -> int:
    """String.hashCode of ASCII, as an unsigned word."""
    code = 0
    for character in text:
        code = (31 * code + ord(character)) & _WORD
    return code


def _rotated(word: int, bits: int) -> int:
    return ((word << bits) | (word >> (32 - bits))) & _WORD


def _murmur_of_int(code: int) -> int:
    """org.apache.flink.util.MathUtils.murmurHash."""
    code = _rotated(code * 0xCC9E2D51 & _WORD, 15) * 0x1B873593 & _WORD
    code = (_rotated(code, 13) * 5 + 0xE6546B64) & _WORD
    code ^= 4
    code = (code ^ code >> 16) * 0x85EBCA6B & _WORD
    code = (code ^ code >> 13) * 0xC2B2AE35 & _WORD
    code ^= code >> 16
    signed = code - (1 << 32) if code >> 31 else code
    return abs(signed) if signed != -(1 << 31) else 0


def partition_of(key: bytes, partitions: int) -> int:
    """Where Kafka's producers send a key: org.apache.kafka.common.utils.Utils.murmur2 of it, its sign cut off."""
    m = 0x5BD1E995
    code = 0x9747B28C ^ len(key)
    whole = len(key) & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(key[at : at + 4], "little") * m & _WORD
        word = (word ^ word >> 24) * m & _WORD
        code = (code * m & _WORD) ^ word
    if rest := key[whole:]:
        code = (code ^ int.from_bytes(rest, "little")) * m & _WORD
    code = (code ^ code >> 13) * m & _WORD
    code ^= code >> 15
    return (code & 0x7FFFFFFF) % partitions
