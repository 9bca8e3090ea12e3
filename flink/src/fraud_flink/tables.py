"""Kafka topics as raw tables: the only way from Python to a record's key, partition, offset and append time.

PyFlink's DataStream connector reads values alone and writes key and value from the same element. Keys are hashed by
the Java client's default (murmur2), so producers made with librdkafka must set ``partitioner=murmur2_random`` to put an
entity's records on the same partition as we do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fraud_contracts.config import DetectorConfig, KafkaAddress
from fraud_contracts.lineage import HISTORY, NO_STATE, SOURCES, Beginning
from fraud_process.kafka import AUTHORITY, COMPRESSION, MECHANISM, PASSWORD, PLAIN, PROTOCOL, USERNAME

# What comes once a second and is no topic's record. Its table keeps no state.
TICKS: Final = "ticks"
# Where Flink's connector holds its own copy of Kafka's client.
_CLIENT: Final = "org.apache.flink.kafka.shaded.org.apache.kafka"


def _options(options: dict[str, str]) -> str:
    quoted = (f"'{name}' = '{text.replace(chr(39), chr(39) * 2)}'" for name, text in options.items())
    return ",\n  ".join(quoted)


def _name(noun: str) -> str:
    return noun.replace("-", "_")


def connection(kafka: KafkaAddress) -> dict[str, str]:
    """What each table needs to reach its topic. Credentials are named, never written: a job's graph is kept in the storage.

    Each client that is made, so also after a restart from a checkpoint, reads user and password anew.
    """
    options = {"bootstrap.servers": kafka.bootstrap_servers}
    if kafka.login is not None:
        folder = Path(kafka.login)
        mechanism = (folder / MECHANISM).read_text()
        module = "plain.PlainLoginModule" if mechanism == PLAIN else "scram.ScramLoginModule"
        user, password = (f"${{file:{folder}:{name}}}" for name in (USERNAME, PASSWORD))
        options |= {
            "security.protocol": PROTOCOL,
            "sasl.mechanism": mechanism,
            "sasl.jaas.config": f'{_CLIENT}.common.security.{module} required username="{user}" password="{password}";',
            "config.providers": "file",
            "config.providers.file.class": f"{_CLIENT}.common.config.provider.DirectoryConfigProvider",
        }
        if (folder / AUTHORITY).exists():
            options |= {
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(folder / AUTHORITY),
            }
    return {f"properties.{name}": text for name, text in options.items()}


def source_table(config: DetectorConfig, noun: str, beginning: Beginning = NO_STATE) -> str:
    """DDL of an input topic. Offsets come from the checkpoint; what a checkpoint commits to the group is for readers of lag.

    A start without a checkpoint has no state either, so it begins at the earliest record that is kept, or where its
    seeds end: at the offset that its beginning has by partition, 0 for one that isn't in it.
    """
    group = config.identity.features_group(config.stream, silent=beginning.silent)
    starts_at = beginning.starts_at.get(noun, {}) if beginning.seeds and noun in HISTORY else None
    options = {
        "connector": "kafka",
        "topic": config.identity.topic(noun),
        **connection(config.kafka),
        "properties.group.id": group,
        "properties.client.id.prefix": f"{group}.{noun}",
        **_startup(starts_at, config.kafka.partitions),
        # Partitions are immutable in a detector, so there are none to discover later.
        "scan.topic-partition-discovery.interval": "0 ms",
        "key.format": "raw",
        "key.fields": "k",
        "value.format": "raw",
        "value.fields-include": "EXCEPT_KEY",
    }
    return f"""CREATE TEMPORARY TABLE {_name(noun)} (
  k BYTES,
  v BYTES,
  p INT METADATA FROM 'partition' VIRTUAL,
  o BIGINT METADATA FROM 'offset' VIRTUAL,
  t TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL
) WITH (
  {_options(options)}
)"""


def _startup(starts_at: Mapping[int, int] | None, partitions: int) -> dict[str, str]:
    if starts_at is None:
        return {"scan.startup.mode": "earliest-offset"}
    offsets = (f"partition:{number},offset:{starts_at.get(number, 0)}" for number in range(partitions))
    return {"scan.startup.mode": "specific-offsets", "scan.startup.specific-offsets": ";".join(offsets)}


def tick_table(parallelism: int) -> str:
    """DDL of a clock: one row a second for each subtask that reads."""
    options = {
        "connector": "datagen",
        "rows-per-second": str(parallelism),
        "fields.p.min": "0",
        "fields.p.max": "0",
    }
    return f"CREATE TEMPORARY TABLE {TICKS} (p INT) WITH (\n  {_options(options)}\n)"


def source_query() -> str:
    """All inputs, and the clock, as rows (noun, key, value, partition, offset, append time in ms).

    One query, so that one Python step reads them all: a union of Python's own streams costs a further exchange, with
    a pickle, for each record. A timestamp as such would reach Python as a Java object.
    """
    ms = "EXTRACT(EPOCH FROM t) * 1000 + EXTRACT(MILLISECOND FROM t)"
    columns = f"k, v, p, o, {ms} AS ms"
    # The nouns are constants of this file.
    parts = (f"SELECT CAST('{noun}' AS STRING) AS noun, {columns} FROM {noun}" for noun in SOURCES)  # noqa: S608
    nothing = "CAST(NULL AS BYTES) AS k, CAST(NULL AS BYTES) AS v, p, CAST(0 AS BIGINT) AS o, CAST(0 AS BIGINT) AS ms"
    clock = f"SELECT CAST('{TICKS}' AS STRING) AS noun, {nothing} FROM {TICKS}"  # noqa: S608
    return " UNION ALL ".join([*parts, clock])


def sink_table(config: DetectorConfig, noun: str) -> str:
    """DDL of an append-only output topic, keyed, at least once: a record isn't held back for a checkpoint."""
    options = {
        "connector": "kafka",
        "topic": config.identity.topic(noun),
        **connection(config.kafka),
        "properties.client.id": f"{config.identity.features_group(config.stream)}.{noun}",
        "properties.linger.ms": "0",
        "properties.compression.type": COMPRESSION,
        "key.format": "raw",
        "key.fields": "k",
        "value.format": "raw",
        "value.fields-include": "EXCEPT_KEY",
        "sink.delivery-guarantee": "at-least-once",
    }
    return f"CREATE TEMPORARY TABLE {_name(noun)} (k BYTES, v BYTES) WITH (\n  {_options(options)}\n)"


def profile_table(config: DetectorConfig) -> str:
    """DDL of the compacted topic: each profile as it is made, since what says how far the sources are comes behind those it speaks of."""
    options = {
        "connector": "upsert-kafka",
        "topic": config.identity.topic("profiles"),
        **connection(config.kafka),
        "properties.client.id": f"{config.identity.features_group(config.stream)}.profiles",
        "properties.compression.type": COMPRESSION,
        "key.format": "raw",
        "value.format": "raw",
        "value.fields-include": "EXCEPT_KEY",
        "sink.delivery-guarantee": "at-least-once",
    }
    return (
        "CREATE TEMPORARY TABLE profiles (k BYTES, v BYTES, PRIMARY KEY (k) NOT ENFORCED) WITH (\n  "
        f"{_options(options)}\n)"
    )
