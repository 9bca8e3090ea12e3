"""Which label stands where a transaction has several: one rule for reports in the ledger and rows of history files. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

Label = TypeVar("Label")


def standing_label(newest_first: Iterable[Label], fraud: Callable[[Label], bool]) -> Label:
    """The first one of the newest run of labels that agree; there must be at least one.

    The newest label decides what the transaction was. That became known with the first label of the run: the stream counts
    a label from then on and ignores confirmations, so training must too.
    """
    labels = iter(newest_first)
    standing = next(labels)
    for label in labels:
        if fraud(label) != fraud(standing):
            break
        standing = label
    return standing
