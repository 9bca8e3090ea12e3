"""Which of several decisions of one id stands. No I/O.

The one that the log took first stands; every other one is a conflict, once. The rule knows nothing of the order in which
partitions were read, so a rebuild ends with the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple


class Told(NamedTuple):
    """One decision of an id. ``content`` is its digest without what the audit adds; ``age`` orders records of a topic."""

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


def settle(told: Iterable[Told]) -> tuple[Told, list[tuple[Told, str]]]:
    """-> the standing one, and the others, oldest first, with the kind: another ``body`` or another ``decision`` of it."""
    first: dict[bytes, Told] = {}
    for one in sorted(told, key=lambda one: one.age):
        first.setdefault(one.content, one)
    standing, *others = first.values()
    return standing, [(one, "decision" if one.hash == standing.hash else "body") for one in others]
