"""When a label may be believed. A payment without a report is no proof of honesty until its source had time to speak.

Fraud is reported late: a chargeback comes weeks after the payment. Each source has a maturity; a transaction is *mature*
when the maturity has passed since it happened. Only mature ones are learned from and measured on. An early fraud report
of an immature transaction is left out too: counted alone it would show a period in which everything is fraud.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fraud_contracts import durations
from fraud_contracts.detector_event import Entity, Labels

# Columns that a history may have beside the event's: when a row's label became known (UTC ms), and how the fraud came
# about, which is there to judge a model by and never a feature.
KNOWN: Final = "known"
PATTERN: Final = "fraud_pattern"


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


def history_delay(entities: Sequence[Entity]) -> int:
    """How long after its event a history's label counts as known where the history doesn't say: the longest labelDelay.

    Windows over labels end ``labelDelay`` before the event, so this is the earliest date that changes no feature.
    """
    return max((durations.to_ms(e.label_delay) for e in entities if e.label_delay is not None), default=0)
