"""Which of a transaction's label reports stands, where they come more than once or disagree. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Report(NamedTuple):
    """A label report. Reports of one transaction are ordered by ``age``: when the log took them in."""

    id: str
    fraud: bool
    source: str
    claimed: int
    known: int
    topic: str
    lineage: int
    partition: int
    offset: int

    @property
    def age(self) -> tuple[int, str, int, int, int]:
        return self.known, self.topic, self.lineage, self.partition, self.offset


def standing_report(reports: Iterable[Report]) -> Report:
    """The report that stands: of the run of newest reports that agree, the first.

    The newest report decides what the transaction was. When it became known is when the first report of that run came:
    the stream counts a label from then on and ignores its confirmation, so training must too. The order of arrival
    doesn't matter.
    """
    newest_first = sorted(reports, key=lambda one: one.age, reverse=True)
    standing = newest_first[0]
    for one in newest_first:
        if one.fraud != standing.fraud:
            break
        standing = one
    return standing
