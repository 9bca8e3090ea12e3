"""When a label may be believed. A payment without a report is no proof of honesty until its source had time to speak.

Fraud is reported late: a chargeback comes weeks after the payment. Each source has a maturity; a transaction is *mature*
when the maturity has passed since it happened. Only mature ones are learned from and measured on. An early fraud report
of an immature transaction is left out too: counted alone it would show a period in which everything is fraud.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fraud_contracts import durations
from fraud_contracts.detector import Entity, Labels

# Columns that a history may have beside the event's: when a row's label became known (UTC ms), and how the fraud came
# about, which is there to judge a model by and never a feature.
KNOWN: Final = "known"
PATTERN: Final = "fraud_pattern"


@dataclass(frozen=True)
class Report:
    """One word on one transaction: by whom, and since when we know it (append time, UTC ms)."""

    fraud: bool
    source: str
    known: int


@dataclass(frozen=True)
class Maturity:
    """Milliseconds per source after which silence means legitimate."""

    by_source: dict[str, int]

    @classmethod
    def of(cls, labels: Labels) -> Maturity:
        return cls({source.name: durations.to_ms(source.maturity) for source in labels.sources})

    @property
    def longest(self) -> int:
        return max(self.by_source.values())

    def cutoff(self, as_of: int, source: str | None = None) -> int:
        """Events at or before this time are mature at ``as_of``: for one source, or for all where it is None."""
        return as_of - (self.longest if source is None else self.by_source[source])

    def mature(self, times: NDArray[np.int64], as_of: int, source: str | None = None) -> NDArray[np.bool_]:
        return np.asarray(times <= self.cutoff(as_of, source), dtype=np.bool_)

    def verdict(self, time: int, reports: Iterable[Report], as_of: int) -> bool | None:
        """True for fraud, False for legitimate, None while nobody can know; only what was known at ``as_of`` counts.

        Of each source its newest report holds. One source that says fraud is enough. Without fraud the transaction is
        legitimate once every source is past its maturity; an explicit "legitimate" ends the wait for its own source.
        """
        newest: dict[str, Report] = {}
        for report in reports:
            held = newest.get(report.source)
            if report.known <= as_of and (held is None or report.known >= held.known):
                newest[report.source] = report
        if any(report.fraud for report in newest.values()):
            return True
        waiting = [ms for name, ms in self.by_source.items() if name not in newest]
        return False if all(time + ms <= as_of for ms in waiting) else None


def history_delay(entities: Sequence[Entity]) -> int:
    """How long after its event a history's label counts as known where the history doesn't say: the longest labelDelay.

    Windows over labels end ``labelDelay`` before the event, so this is the earliest date that changes no feature.
    """
    return max((durations.to_ms(e.label_delay) for e in entities if e.label_delay is not None), default=0)
