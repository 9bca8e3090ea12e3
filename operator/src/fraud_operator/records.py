"""Children that no builder names any more and that stay as the record of what was. Pure."""

from __future__ import annotations

from typing import Final

from fraud_contracts import names
from fraud_operator import training
from fraud_operator.detector import Detector
from fraud_operator.facts import Facts
from fraud_operator.objects import ChildKey, Json
from fraud_operator.training import TrainingPhase

# Earlier releases that are kept, so that a decision's release can still be looked up.
KEPT_RELEASES: Final = 20
KEPT_RUNS: Final = 5


def kept_records(detector: Detector, facts: Facts) -> list[ChildKey]:
    """The latest releases, and runs that succeeded.

    A RayJob that has ended is the record of its run; a running one of another revision is stopped by being deleted.
    """

    def latest(kind: str, prefix: str, count: int) -> list[ChildKey]:
        live = sorted(
            (child["metadata"].get("creationTimestamp", ""), name)
            for (child_kind, name), child in facts.children.items()
            if child_kind == kind and name.startswith(prefix) and _over(kind, child)
        )
        return [(kind, name) for _, name in live[-count:]]

    releases = latest("ConfigMap", names.release_prefix(detector.name), KEPT_RELEASES)
    return releases + latest("RayJob", names.ray_job_prefix(detector.name), KEPT_RUNS)


def _over(kind: str, child: Json) -> bool:
    return kind != "RayJob" or training.outcome(child).phase is TrainingPhase.SUCCEEDED
