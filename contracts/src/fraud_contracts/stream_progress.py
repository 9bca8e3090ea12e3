"""How far a streaming job's sources are in the profiles that it wrote: records among the profiles that say so.

Each subtask of each entity's stage writes such a record to each partition of ``profiles`` once a second, behind the profiles that it
made of the records before. Whoever has read those of all subtasks from a partition has also read from it every profile that the
sources' records before ``applied`` led to. Offsets of one lineage are of one topic each, so they name no topic's id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fraud_contracts.lineage import ByPlace, Positions

_MARK: Final = "@applied"
# No profile begins with it.
_FIRST: Final = b"{"
_Count = Annotated[int, Field(ge=1)]
_Number = Annotated[int, Field(ge=0)]


class StreamProgress(BaseModel):
    """``applied``: by source and partition the first offset that may not be in. ``epoch`` is that of the profiles.

    It is of one subtask of ``parallelism`` of one stage of ``stages``. Another parallelism shares the keys out otherwise.
    ``reach`` is that of the feature set, as in ``lifetimes``, so that whoever keeps its profiles need not know what it is made of; 0 where
    that isn't said.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    epoch: _Number
    stage: _Number
    stages: _Count
    subtask: _Number
    parallelism: _Count
    applied: Positions
    reach: _Number = 0

    def to_json(self) -> bytes:
        return self.model_dump_json().encode()


def progress_key(hash6: str, stage: int, subtask: int, parallelism: int, salt: int) -> str:
    """Kafka key of a subtask's newest record on one partition; ``salt`` is the number that sends it there."""
    return f"{hash6}{_MARK}:{stage}:{subtask}/{parallelism}:{salt}"


def is_progress(value: bytes) -> bool:
    """Whether a record of ``profiles`` says how far the sources are; else it is a profile."""
    return value[:1] == _FIRST


def read_progress(key: bytes, value: bytes) -> tuple[str, StreamProgress]:
    """(hash6, progress) of a record of ``profiles``; ValueError where it isn't one."""
    hash6, mark, _ = key.decode("utf-8", "replace").partition(_MARK)
    if not mark:
        raise ValueError("its key isn't that of a stream's progress")
    try:
        return hash6, StreamProgress.model_validate_json(value)
    except ValidationError as error:
        raise ValueError(f"this is no stream's progress: {error.errors()[0]['msg']}") from error


class Applied(BaseModel):
    """What Redis holds of one partition of ``profiles``. ``beat`` is another number with each record that was read."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    epoch: _Number
    beat: _Number
    applied: Positions
    reach: _Number = 0

    def to_json(self) -> bytes:
        return self.model_dump_json().encode()


def in_all(parts: Sequence[Mapping[tuple[str, int], int]]) -> ByPlace:
    """What each of several, one at least, has: of the places that all know the least offset."""
    places = set.intersection(*(set(part) for part in parts))
    return {place: min(part[place] for part in parts) for place in places}
