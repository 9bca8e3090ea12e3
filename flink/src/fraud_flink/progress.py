"""How far the sources are, told from step to step and written among the profiles. Imports nothing of Flink.

Flink's own watermarks would be of event time, and of the slowest source. Here each tick of a clock sends what intake has read of each
source's partition through all subtasks of all stages, on the way that the records themselves went: what comes behind a record on each
of its ways comes behind what was made of it. Nothing of it is state: after a restart it is told anew.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import count

from fraud_contracts.lineage import INPUTS, ByPlace, Positions, by_place, by_topic
from fraud_contracts.stream_progress import StreamProgress, in_all, progress_key
from fraud_flink.elements import ProgressElement

# The key of a step that isn't parallel.
ALONE = ("p0",)
log = logging.getLogger(__name__)


class SourceOffsets:
    """What one subtask of intake has read: by source and partition the offset after the last record."""

    def __init__(self, starts_at: Positions) -> None:
        """``starts_at``: the first records that the job's seeds don't hold, so what lies before is read, too."""
        self._following = by_place(starts_at)

    def read(self, noun: str, partition: int, offset: int) -> None:
        self._following[noun, partition] = offset + 1

    def positions(self) -> Positions:
        return by_topic({place: at for place, at in self._following.items() if place[0] in INPUTS})


class SubtaskProgress:
    """What one subtask of a stage has heard from each of the ``senders`` of the step before; intake's count as one.

    Each subtask of intake reads partitions of its own. Each subtask of a stage passes on all partitions, for its own keys.
    """

    def __init__(self, senders: int) -> None:
        self._of: list[ByPlace] = [{} for _ in range(senders)]
        self._heard: set[str] = set()
        self._subtask: int | None = None
        self._confused = False

    def hear(self, element: ProgressElement) -> Positions | None:
        """What is in, by all; None where it is too early to say so again: once a tick is enough, however many tell."""
        if self._subtask not in (None, element.subtask) and not self._confused:
            # Then there is another subtask that hears nothing, so nothing may be said of its keys.
            log.error("subtasks %s and %s are one: no progress is told", self._subtask, element.subtask)
            self._confused = True
        if self._confused:
            return None
        self._subtask = element.subtask
        self._of[element.sender].update(by_place(element.applied))
        if element.origin not in self._heard:
            self._heard.add(element.origin)
            return None
        self._heard = {element.origin}
        return by_topic(in_all(self._of))


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
    """What is told, once for each subtask of the next stage; ``keys`` are ones that Flink sends to each of them, in their order."""
    for subtask, key in enumerate(keys):
        yield ProgressElement(origin, sender, subtask, key, applied)


_WORD = 0xFFFFFFFF


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
