"""Where a training's history ends and a stream with its seeds goes on: offsets of the stream's sources, fixed before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fraud_contracts.lineage import Positions


@dataclass(frozen=True)
class Cut:
    """``starts_at``: the first records that history leaves out, by noun and partition; ``topics`` are the topics' ids by noun.

    ``since``: by the same the time of the oldest record that the topic holds (UTC ms). A decision of an earlier topic of the name may bear
    an offset beyond the cut, and is older.
    """

    starts_at: Positions
    since: Positions = field(default_factory=dict)
    topics: Mapping[str, str] = field(default_factory=dict)

    def leaves_out(self, noun: str, partition: int, offset: int, appended: int | None) -> bool:
        """Whether a record of a source is left to the stream."""
        after = offset >= self.starts_at.get(noun, {}).get(partition, 0)
        return after and (appended is None or appended >= self.since.get(noun, {}).get(partition, 0))
