"""What a job takes into its state without writing anything of it: a job before it has written that. Imports nothing of Flink."""

from __future__ import annotations

from fraud_contracts.lineage import Positions
from fraud_contracts.names import Identity
from fraud_contracts.records import Source


class Silence:
    """``emits_from``: the first offsets of the inputs, by noun and partition, of which records are written."""

    def __init__(self, identity: Identity, emits_from: Positions) -> None:
        self._emits_from = {
            (identity.topic(noun), partition): offset
            for noun, offsets in emits_from.items()
            for partition, offset in offsets.items()
        }

    def covers(self, source: Source) -> bool:
        return source["offset"] < self._emits_from.get((source["topic"], source["partition"]), 0)
