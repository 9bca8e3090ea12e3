"""The tables' settings, and the configuration in the README."""

from __future__ import annotations

import pytest

from fraud_flink import job, tables
from fraud_testing import detectors, flink_cluster

CONFIG = detectors.detector("broker-a:9092,broker-b:9092", namespace="payments")


@pytest.mark.parametrize("noun", tables.SOURCES)
def test_a_source_reads_its_own_topic(noun: str) -> None:
    """Topic and group carry the detector's identity; a start without a checkpoint begins at the earliest record."""
    ddl = tables.source_table(CONFIG, noun)
    assert f"'topic' = 'payments.cards.{noun}.v1'" in ddl
    assert f"'properties.group.id' = 'payments.cards.features.{CONFIG.hash6}'" in ddl
    assert "'scan.startup.mode' = 'earliest-offset'" in ddl


def test_features_are_not_held_back() -> None:
    """No linger and no exactly-once: a reader sees a record within milliseconds."""
    ddl = tables.sink_table(CONFIG, "features")
    assert "'properties.linger.ms' = '0'" in ddl
    assert "'sink.delivery-guarantee' = 'at-least-once'" in ddl


def test_no_option_can_end_its_quotes() -> None:
    """A quote in an address stays inside the option's text."""
    kafka = CONFIG.kafka.model_copy(update={"bootstrap_servers": "a', 'x' = 'y"})
    assert "'a'', ''x'' = ''y'" in tables.sink_table(CONFIG.model_copy(update={"kafka": kafka}), "features")


def test_the_readme_agrees_with_the_code() -> None:
    """The documented configuration doesn't contradict what the job sets itself."""
    block = flink_cluster.documented()
    documented = block["flinkConfiguration"]
    assert {name: documented[name] for name in job.FIXED if name in documented} == {
        name: text for name, text in job.FIXED.items() if name in documented
    }
    assert "--add-opens=java.base/java.util=ALL-UNNAMED" in documented["env.java.opts.all"]
    assert block["args"][-1].endswith("/fraud_flink/job.py")
