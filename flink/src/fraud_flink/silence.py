"""What a job takes into its state without writing anything of it: a job before it has written that. Imports nothing of Flink."""

from __future__ import annotations

from fraud_contracts.lineage import Beginning
from fraud_contracts.names import Identity
from fraud_contracts.records import Source


class Silence:
    """Of the beginning the first offsets of the inputs of which records are written, or that none are as long as the job runs."""

    def __init__(self, identity: Identity, beginning: Beginning) -> None:
        self._silent = beginning.silent
        self._emits_from = {
            (identity.topic(noun), partition): offset
            for noun, offsets in beginning.emits_from.items()
            for partition, offset in offsets.items()
        }

    def covers(self, source: Source) -> bool:
        return self._silent or source["offset"] < self._emits_from.get(
            (source["topic"], source["partition"]), 0
        )
