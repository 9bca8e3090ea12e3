"""The job's graph and its entry point: ``flink run -py job.py``, or PythonDriver in application mode.

::

    transactions ┐            ┌► dead-letters
    accepted     ├─► intake ──┴► entity 1 ──► entity 2 … ──► features
    labels       │                  └─────────────┴────────► profiles
    seeds        ┘

Everything it needs to know is in the detector document (FRAUD_CONFIG) and the Secret's environment variables; how it
is run (parallelism, checkpoints, high availability) is Flink's configuration. ``-D name=value`` sets the latter for a
run without a cluster.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import count
from typing import Any

from pyflink.common import Configuration, Types
from pyflink.datastream import DataStream, StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway
from pyflink.table import DataTypes, Schema, StreamTableEnvironment

from fraud_contracts import log
from fraud_contracts.config import DetectorConfig, load_config
from fraud_contracts.lineage import NO_STATE, SOURCES, Beginning
from fraud_flink import tables
from fraud_flink.functions import (
    DEAD_LETTERS,
    ELEMENT,
    KEY_VALUE,
    PROFILES,
    EntityFunction,
    EntityKey,
    IntakeFunction,
)

# What the code relies on; everything else may be set from outside.
FIXED = {
    "python.execution-mode": "thread",
    "execution.buffer-timeout.interval": "0 ms",
    "table.local-time-zone": "UTC",
    # Each key has one writer already, so neither a shuffle nor a state of the sink's own is wanted.
    "table.exec.sink.keyed-shuffle": "NONE",
    "table.exec.sink.upsert-materialize": "NONE",
}


def build(
    config: DetectorConfig, settings: dict[str, str], beginning: Beginning = NO_STATE
) -> StreamExecutionEnvironment:
    """The whole graph, attached to an environment and not yet started."""
    configuration = Configuration()
    for name, text in {**settings, **FIXED}.items():
        configuration.set_string(name, text)
    environment = StreamExecutionEnvironment.get_execution_environment(configuration)
    table_environment = StreamTableEnvironment.create(environment)

    keys = _subtask_keys(environment)
    for noun in SOURCES:
        table_environment.execute_sql(tables.source_table(config, noun, beginning))
    table_environment.execute_sql(tables.tick_table(len(keys)))
    rows = table_environment.to_data_stream(table_environment.sql_query(tables.source_query()))
    events = rows.process(IntakeFunction(beginning, keys), ELEMENT).uid("intake-v1").name("intake")
    dead_letters = events.get_side_output(DEAD_LETTERS)
    profiles: list[DataStream] = []
    for index, entity in enumerate(config.spec.entities):
        last = index == len(config.spec.entities) - 1
        events = (
            events.key_by(EntityKey(entity.name), Types.STRING())
            .process(EntityFunction(index, last, beginning, keys), KEY_VALUE if last else ELEMENT)
            .uid(f"entity-{index + 1}-v1")
            .name(f"entity {entity.name}")
        )
        profiles.append(events.get_side_output(PROFILES))

    statements = table_environment.create_statement_set()
    columns = Schema.new_builder().column("k", DataTypes.BYTES()).column("v", DataTypes.BYTES()).build()
    for noun, stream in (
        ("features", events),
        ("profiles", profiles[0].union(*profiles[1:]) if len(profiles) > 1 else profiles[0]),
        ("dead-letters", dead_letters),
    ):
        name = noun.replace("-", "_")
        ddl = tables.profile_table(config) if noun == "profiles" else tables.sink_table(config, noun)
        table_environment.execute_sql(ddl)
        statements.add_insert(name, table_environment.from_data_stream(stream, columns))
    statements.attach_as_datastream()
    _name_ends(environment)
    return environment


def _subtask_keys(environment: StreamExecutionEnvironment) -> tuple[str, ...]:
    """For each subtask of a keyed step a key that Flink sends there; Flink itself is asked."""
    flink = get_gateway().jvm.org.apache.flink
    assignment = flink.runtime.state.KeyGroupRangeAssignment
    parallelism, highest = environment.get_parallelism(), environment.get_max_parallelism()
    if highest <= 0:
        highest = assignment.computeDefaultMaxParallelism(parallelism)
    keys: dict[int, str] = {}
    for salt in count():
        row = flink.types.Row(1)  # what PyFlink makes of a key
        row.setField(0, f"p{salt}")
        keys.setdefault(assignment.assignKeyToParallelOperator(row, highest, parallelism), f"p{salt}")
        if len(keys) == parallelism:
            break
    return tuple(keys[subtask] for subtask in range(parallelism))


def _name_ends(environment: StreamExecutionEnvironment) -> None:
    """Gives the planner's sources and sinks constant uids: derived ones would change with the graph, and lose offsets."""
    visited: set[int] = set()
    pending: list[Any] = list(environment._j_stream_execution_environment.getTransformations())
    while pending:
        node = pending.pop()
        if node.getId() in visited:
            continue
        visited.add(node.getId())
        pending.extend(node.getInputs())
        kind = node.getClass().getSimpleName()
        if kind in ("SourceTransformation", "SinkTransformation") and node.getUid() is None:
            table = str(node.getName()).partition("[")[0].replace("_", "-")
            node.setUid(f"{table}-{'source' if kind.startswith('Source') else 'sink'}-v1")


def main(arguments: Sequence[str]) -> None:
    log.setup()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-D", dest="settings", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument(
        "--beginning",
        type=Beginning.model_validate_json,
        default=NO_STATE,
        metavar="JSON",
        help="what a job without state begins with, and where it is silent: fraud_contracts.lineage.Beginning",
    )
    options = parser.parse_args(list(arguments))
    config = load_config()
    settings = dict(setting.split("=", 1) for setting in options.settings)
    environment = build(config, settings, options.beginning)
    environment.execute(f"{config.identity} features {config.stream}")


if __name__ == "__main__":
    main(sys.argv[1:])
