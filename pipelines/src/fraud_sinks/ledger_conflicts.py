"""Which of several decisions of one id stands. No I/O.

The one that the log took first stands; every other one is a conflict, listed once. The rule doesn't depend on the order in
which partitions are read, so a rebuild ends with the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple


class DecisionEntry(NamedTuple):
    """One of the decisions of an id, as the ledger keeps it, standing or in conflict.

    ``content`` is a digest of the decision without what the audit adds; ``age`` orders entries by when the log took them.
    """

    content: bytes
    hash: str | None
    written: int
    topic: str
    lineage: int
    partition: int
    offset: int
    record: Any
    raw: bytes | None
    entity: str | None

    @property
    def spot(self) -> tuple[str, int, int]:
        return self.topic, self.lineage, self.partition

    @property
    def age(self) -> tuple[int, str, int, int, int]:
        return self.written, *self.spot, self.offset


def settle(entries: Iterable[DecisionEntry]) -> tuple[DecisionEntry, list[tuple[DecisionEntry, str]]]:
    """-> (the entry that stands, the conflicting ones, oldest first, each with its kind).

    The kind is ``body`` where the event has another body, ``decision`` where the same body was decided otherwise.
    """
    first: dict[bytes, DecisionEntry] = {}
    for one in sorted(entries, key=lambda one: one.age):
        first.setdefault(one.content, one)
    standing, *others = first.values()
    return standing, [(one, "decision" if one.hash == standing.hash else "body") for one in others]
