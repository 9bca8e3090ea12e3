"""Counts a batch once it is committed."""

from __future__ import annotations

from collections.abc import Sequence

from fraud_contracts import metrics
from fraud_contracts.errors import Reason
from fraud_process.instruments import Instruments
from fraud_serving.worker.batch import BatchResult
from fraud_serving.worker.parity import ParitySamples


class BatchMetrics:
    """``names`` are the columns of the vectors that are compared."""

    def __init__(self, instruments: Instruments, names: Sequence[str]) -> None:
        self._instruments, self._samples = instruments, ParitySamples(names)

    def count(self, result: BatchResult, now: float) -> None:
        """``now`` is UTC ms."""
        count = self._instruments
        for door in result.repeats:
            count(metrics.REPEATS, door=door).inc()
        if result.conflicts:
            count(metrics.CONFLICTS, door="stream").inc(result.conflicts)
            count(metrics.DEAD_LETTERS, reason=str(Reason.ID_REUSED)).inc(result.conflicts)
        if result.superseded:
            count(metrics.SUPERSEDED).inc(result.superseded)
        for decision in result.decisions:
            if "parity" in decision:
                count(metrics.PARITY, result=decision["parity"]).inc()
                self._samples.note(decision)
            if decision["door"] == "inline":
                continue  # counted where it was made
            arm = decision["arm"] or "none"
            count(metrics.DECISIONS, door="stream", action=decision["action"], arm=arm).inc()
            for mark in decision["degraded"]:
                count(metrics.DEGRADED, door="stream", degraded=mark).inc()
            appended = decision.get("appended")
            if appended is not None:
                count(metrics.STREAM_SECONDS).observe(max(0.0, now - appended) / 1000)
