"""What a live FlinkDeployment says of the lineage that its job is of. Pure.

The document of lineages may be older than the job, after a backup of it was put back, or gone: the job that runs knows better.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from fraud_contracts import names
from fraud_contracts.feature_set import hash6
from fraud_contracts.lineage import NO_STATE, Beginning, Lineage, Lineages
from fraud_operator.objects import Json

BEGINNING: Final = "--beginning"


@dataclass(frozen=True)
class StreamJob:
    """Of which stream it is, and what it was made from: a savepoint or checkpoint, None where from none."""

    hash6: str
    generation: int
    made_from: str | None
    beginning: Beginning


def stream_job(detector: str, body: Json) -> StreamJob | None:
    """None of a FlinkDeployment that has no name of this detector's streaming jobs."""
    name, job = str(body["metadata"]["name"]), (body.get("spec") or {}).get("job") or {}
    stream = names.parse_stream(name.removeprefix(names.flink_deployment(detector, "")))
    if stream is None or name != names.flink_deployment(detector, names.stream(*stream)):
        return None
    return StreamJob(*stream, job.get("initialSavepointPath"), _beginning(job.get("args") or []))


def taken_up(before: Lineages, feature_set: str, jobs: Iterable[StreamJob]) -> Lineages:
    """The same with the lineage of a job of the feature set that is newer than what is known of it; numbers given stay given.

    Its topics are those of now, for all that is known.
    """
    known = list(jobs)
    highest = max([before.highest, *(job.generation for job in known)])
    lineages = before if highest == before.highest else before.model_copy(update={"highest": highest})
    own = before.of(feature_set)
    newer = [
        job
        for job in known
        if job.hash6 == hash6(feature_set) and (own is None or job.generation > own.generation)
    ]
    if not newer:
        return lineages
    job = max(newer, key=lambda one: one.generation)
    lineage = Lineage(
        feature_set=feature_set, generation=job.generation, restored=job.made_from, beginning=job.beginning
    )
    return lineages.using(lineage)


def _beginning(args: list[str]) -> Beginning:
    """What its arguments say; nothing where they say nothing that can be read."""
    try:
        return Beginning.model_validate_json(args[args.index(BEGINNING) + 1])
    except (ValueError, IndexError):
        return NO_STATE
