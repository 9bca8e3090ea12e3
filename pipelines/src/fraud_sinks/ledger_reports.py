"""A transaction's label reports as the ledger keeps them, where they come more than once or disagree. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from fraud_contracts.standing_label import standing_label


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
    """The report that stands (``standing_label``), in whatever order they are given."""
    newest_first = sorted(reports, key=lambda one: one.age, reverse=True)
    return standing_label(newest_first, lambda one: one.fraud)
