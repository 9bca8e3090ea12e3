"""The tables' settings, and the configuration in the README."""

from __future__ import annotations

from pathlib import Path

import pytest

from fraud_contracts.lineage import SOURCES, Beginning
from fraud_flink import job, tables
from fraud_process.kafka import AUTHORITY, MECHANISM, PASSWORD, USERNAME
from fraud_testing import detectors, flink_cluster

CONFIG = detectors.detector("broker-a:9092,broker-b:9092", namespace="payments")


@pytest.mark.parametrize("noun", SOURCES)
def test_a_source_reads_its_own_topic(noun: str) -> None:
    """Topic and group carry the detector's identity; a start without a checkpoint begins at the earliest record."""
    ddl = tables.source_table(CONFIG, noun)
    assert f"'topic' = 'payments.cards.{noun}.v1'" in ddl
    assert f"'properties.group.id' = 'payments.cards.features.{CONFIG.hash6}'" in ddl
    assert "'scan.startup.mode' = 'earliest-offset'" in ddl


BEGINNING = Beginning(seeds="run", starts_at={"labels": {2: 7, 0: 5}})


def test_what_a_silent_job_reads_isnt_written() -> None:
    """So it says how far it is in a group of its own."""
    group = CONFIG.identity.features_group(CONFIG.stream)
    aloud, silent = (
        tables.source_table(CONFIG, "accepted", Beginning(silent=silent)) for silent in (False, True)
    )
    assert f"'properties.group.id' = '{group}'" in aloud
    assert f"'properties.group.id' = '{group}.silent'" in silent


def test_a_job_with_seeds_starts_where_they_end() -> None:
    """At the offset of each partition; one that had no record then starts at its first."""
    kafka = CONFIG.kafka.model_copy(update={"partitions": 3})
    ddl = tables.source_table(CONFIG.model_copy(update={"kafka": kafka}), "labels", BEGINNING)
    assert "'scan.startup.mode' = 'specific-offsets'" in ddl
    offsets = "partition:0,offset:5;partition:1,offset:0;partition:2,offset:7"
    assert f"'scan.startup.specific-offsets' = '{offsets}'" in ddl


def test_features_are_not_held_back() -> None:
    """No linger and no exactly-once: a reader sees a record within milliseconds."""
    ddl = tables.sink_table(CONFIG, "features")
    assert "'properties.linger.ms' = '0'" in ddl
    assert "'sink.delivery-guarantee' = 'at-least-once'" in ddl


def test_what_the_stream_writes_is_compressed() -> None:
    """As what all other producers write."""
    for ddl in (tables.sink_table(CONFIG, "features"), tables.profile_table(CONFIG)):
        assert "'properties.compression.type' = 'lz4'" in ddl


def test_no_option_can_end_its_quotes() -> None:
    """A quote in an address stays inside the option's text."""
    kafka = CONFIG.kafka.model_copy(update={"bootstrap_servers": "a', 'x' = 'y"})
    assert "'a'', ''x'' = ''y'" in tables.sink_table(CONFIG.model_copy(update={"kafka": kafka}), "features")


def test_a_login_is_named_and_never_written(tmp_path: Path) -> None:
    """User and password stand for files; the mechanism chooses the module, and an authority of one's own is trusted."""
    files = {USERNAME: "user-1", PASSWORD: "secret-1", MECHANISM: "SCRAM-SHA-512"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    kafka = CONFIG.kafka.model_copy(update={"login": str(tmp_path)})
    options = tables.connection(kafka)
    assert options["properties.security.protocol"] == "SASL_SSL"
    assert f"${{file:{tmp_path}:password}}" in options["properties.sasl.jaas.config"]
    assert "ScramLoginModule" in options["properties.sasl.jaas.config"]
    assert "properties.ssl.truststore.type" not in options
    ddl = tables.source_table(CONFIG.model_copy(update={"kafka": kafka}), "labels")
    assert "user-1" not in ddl and "secret-1" not in ddl
    (tmp_path / MECHANISM).write_text("PLAIN")
    (tmp_path / AUTHORITY).write_text("certificates")
    options = tables.connection(kafka)
    assert "PlainLoginModule" in options["properties.sasl.jaas.config"]
    assert options["properties.ssl.truststore.location"] == str(tmp_path / AUTHORITY)


def test_the_readme_agrees_with_the_code() -> None:
    """The documented configuration doesn't contradict what the job sets itself."""
    block = flink_cluster.documented()
    documented = block["flinkConfiguration"]
    assert {name: documented[name] for name in job.FIXED if name in documented} == {
        name: text for name, text in job.FIXED.items() if name in documented
    }
    assert "--add-opens=java.base/java.util=ALL-UNNAMED" in documented["env.java.opts.all"]
    assert block["args"][-1].endswith("/fraud_flink/job.py")
