"""What people see of a pass: the status, the events of what changed in it, and a line in the log."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from fraud_contracts.child_kinds import DETECTOR
from fraud_contracts.errors import SpecError
from fraud_operator import readiness, status
from fraud_operator.apply import ApplyReport
from fraud_operator.conditions import Trouble
from fraud_operator.detector import Detector
from fraud_operator.events import Recorder, transitions
from fraud_operator.facts import Facts
from fraud_operator.kube import ConflictError, Kube
from fraud_operator.objects import Json
from fraud_operator.pass_result import PassResult
from fraud_operator.still_asking import as_last_known

LOG: Final = logging.getLogger(__name__)


@dataclass
class Announcer:
    kube: Kube
    recorder: Recorder

    def publish(
        self,
        detector: Detector,
        body: Json,
        facts: Facts,
        report: ApplyReport,
        previous: Json,
        errors: list[SpecError],
    ) -> PassResult:
        """Writes the status and posts what it tells anew; gives what the pass led to."""
        trouble = Trouble(report.problems, report.conflicts)
        known = as_last_known(facts, previous, detector.generation)
        after = status.compute(detector, known, trouble, previous)
        if errors:
            status.add_refusal(after, errors, body["metadata"].get("generation", 1), previous, facts.now)
        wrote, overtaken = self._write_status(body, after, previous)
        if not overtaken:
            self._warn(body, errors, previous)
            for reason, message in transitions(previous, after):
                self.recorder.post(detector, reason, message, warning=False)
        for what in report.repaired:
            self.recorder.post(detector, "DriftRepaired", f"put back: {what}", warning=True)
        states = {c["type"]: c["status"] == "True" for c in after["conditions"]}
        under_way = facts.state.gone is not None or facts.lineages.hand_over is not None
        waits = states["Progressing"] or under_way
        settled = not report.written and not report.problems and not waits
        LOG.info(
            "pass",
            extra={
                "data": {
                    "detector": str(detector.identity),
                    "generation": detector.generation,
                    "written": len(report.written),
                    "ready": states["Ready"],
                    "phase": str(facts.state.phase),
                    "problems": [f"{kind} {name}: {text}" for (kind, name), text in report.problems.items()],
                }
            },
        )
        return PassResult(
            settled,
            states["Ready"],
            tuple(report.written),
            wrote or bool(report.written),
            readiness.unwatched(detector, facts),
            overtaken,
        )

    def refuse(self, body: Json, errors: list[SpecError], previous: Json, now: int) -> PassResult:
        """Of a spec that can't be built, where none could be before."""
        after = status.invalid(errors, body["metadata"].get("generation", 1), previous, now)
        _, overtaken = self._write_status(body, after, previous)
        if not overtaken:
            self._warn(body, errors, previous)
        return PassResult(settled=True, ready=False, overtaken=overtaken)

    def _warn(self, body: Json, errors: list[SpecError], previous: Json) -> None:
        """An event for each new set of faults."""
        message = "; ".join(map(str, errors))
        earlier = [c["message"] for c in previous.get("conditions") or [] if c["type"] == "ValidationFailed"]
        if errors and not any(old.startswith(message[:900]) for old in earlier):
            self.recorder.post_for(body, "ValidationFailed", message, warning=True)

    def _write_status(self, body: Json, after: Json, previous: Json) -> tuple[bool, bool]:
        """(Whether it was written, whether someone changed the detector since it was read.)"""
        if not status.changed(after, previous):
            return False, False
        meta = body["metadata"]
        # resourceVersion makes the server refuse it then: no status for a namesake, and no edit that only our answer tells of.
        change = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "status": after}
        try:
            self.kube.merge(DETECTOR, meta["namespace"], meta["name"], change, "status")
        except ConflictError:
            self.kube.refresh(DETECTOR, meta["namespace"], meta["name"])
            return False, True
        return True, False
