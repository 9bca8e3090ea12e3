"""Which of a transaction's label reports stands, where they come more than once or disagree. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class ReportEntry(NamedTuple):
    """A label report as the ledger keeps it; ``age`` orders those of a transaction by when the log took them."""

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


def standing_report(reports: Iterable[ReportEntry]) -> ReportEntry:
    """The report that stands: the first one of the newest run of reports that agree.

    The newest report decides what the transaction was. That became known with the first report of the run: the stream counts
    a label from then on and ignores confirmations, so training must too. The order of ``reports`` doesn't matter.
    """
    newest_first = sorted(reports, key=lambda one: one.age, reverse=True)
    standing = newest_first[0]
    for one in newest_first:
        if one.fraud != standing.fraud:
            break
        standing = one
    return standing
