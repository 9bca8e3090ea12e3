"""What a live FlinkDeployment says of the lineage that its job is of. Pure.

The document of lineages may be older than the job, after a backup of it was put back, or gone: the job that runs knows better.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from fraud_contracts import names
from fraud_contracts.feature_set import hash6
from fraud_contracts.lineage import NO_STATE, Beginning, HandOverStep, Lineage, Lineages
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

    Its topics are those of now, for all that is known. A job that is silent isn't taken up: whoever answered beside it isn't known.
    """
    known = list(jobs)
    highest = max([before.highest, *(job.generation for job in known)])
    lineages = before if highest == before.highest else before.model_copy(update={"highest": highest})
    lineages = _handed_over(lineages, known)
    own = lineages.of(feature_set)
    newer = [
        job
        for job in known
        if job.hash6 == hash6(feature_set)
        and (own is None or job.generation > own.generation)
        and not job.beginning.silent
    ]
    if not newer:
        return lineages
    job = max(newer, key=lambda one: one.generation)
    lineage = Lineage(
        feature_set=feature_set, generation=job.generation, restored=job.made_from, beginning=job.beginning
    )
    return lineages.using(lineage)


def _handed_over(before: Lineages, jobs: list[StreamJob]) -> Lineages:
    """The same with another lineage in use, where a hand-over has been since the document was written.

    That is so where the job in use is silent and another one writes: both at once no step of a hand-over has but its last.
    """
    in_use, step = before.in_use, before.hand_over.step if before.hand_over is not None else None
    if in_use is None or step is HandOverStep.SETTLING:
        return before
    by_stream = {names.stream(job.hash6, job.generation): job.beginning for job in jobs}
    now = by_stream.get(in_use.stream)
    writes = [
        one
        for one in before.known
        if (beginning := by_stream.get(one.stream)) is not None and not beginning.silent
    ]
    if now is None or not now.silent or not writes:
        return before
    other = max(writes, key=lambda one: one.generation)
    after = before.using(in_use.model_copy(update={"beginning": now})).without_hand_over()
    return after.using(other.model_copy(update={"beginning": by_stream[other.stream]}))


def _beginning(args: list[str]) -> Beginning:
    """What its arguments say; nothing where they say nothing that can be read."""
    try:
        return Beginning.model_validate_json(args[args.index(BEGINNING) + 1])
    except (ValueError, IndexError):
        return NO_STATE
