"""The graph as Flink's planner makes it, without a broker and without starting it."""

from __future__ import annotations

import pytest

from fraud_flink import job, tables
from fraud_testing import detectors, stream

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(stream.missing()), reason=str(stream.missing())),
]


def test_every_stateful_step_has_a_constant_uid() -> None:
    """Sources, intake, stages and sinks are found again in a checkpoint by name, with no Kafka needed to build them."""
    jar = next(stream.JARS.glob("flink-sql-connector-kafka-*.jar"))
    config = detectors.detector("unreachable.invalid:9092")
    environment = job.build(config, {"pipeline.jars": f"file://{jar}"})
    nodes = list(environment._j_stream_execution_environment.getTransformations())
    uids: set[str] = set()
    visited: set[int] = set()
    while nodes:
        node = nodes.pop()
        if node.getId() not in visited:
            visited.add(node.getId())
            nodes.extend(node.getInputs())
            uids.add(node.getUid())
    sources = {f"{noun}-source-v1" for noun in tables.SOURCES}
    sinks = {f"{noun}-sink-v1" for noun in ("features", "profiles", "dead-letters")}
    assert uids - {None} == {*sources, *sinks, "intake-v1", "entity-1-v1", "entity-2-v1"}
