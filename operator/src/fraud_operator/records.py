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
    """The latest releases, runs that succeeded, and what a run that is under way reads.

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
    runs = latest("RayJob", names.ray_job_prefix(detector.name), KEPT_RUNS)
    return [*releases, *runs, *_documents(detector, facts)]


def _documents(detector: Detector, facts: Facts) -> list[ChildKey]:
    """Of a training whose Pod may yet start: which streaming job is beside the other may change meanwhile."""
    pods = [
        child["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
        for (kind, _), child in facts.children.items()
        if kind == "RayJob"
        and training.outcome(child).phase in (TrainingPhase.PENDING, TrainingPhase.RUNNING)
    ]
    named = {
        volume["configMap"]["name"] for pod in pods for volume in pod["volumes"] if "configMap" in volume
    }
    prefix = names.stream_config(detector.name, "")
    return [("ConfigMap", name) for name in sorted(named) if name.startswith(prefix)]


def _over(kind: str, child: Json) -> bool:
    return kind != "RayJob" or training.outcome(child).phase is TrainingPhase.SUCCEEDED
