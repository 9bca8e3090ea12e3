"""What every process shares: the health server, the metric instruments, the producers' settings."""

from __future__ import annotations

import urllib.error
import urllib.request

from prometheus_client import CollectorRegistry, generate_latest

from fraud_contracts import metrics
from fraud_process.health import HealthServer, probe
from fraud_process.instruments import Instruments
from fraud_process.kafka import KafkaAccess


def fetch(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_pages_metrics_and_nothing_else_are_answered() -> None:
    """A probe is 200 or 503 with its reason, /metrics is always there, and another path is 404."""
    registry = CollectorRegistry()
    Instruments(registry, detector="d")(metrics.SINK_RETRIES, sink="ledger").inc()
    good = [True]
    server = HealthServer(0, registry, {"/healthz": lambda: probe(good[0], "the loop stands")})
    server.start()
    try:
        url = f"http://127.0.0.1:{server.port}"
        assert fetch(f"{url}/healthz") == (200, b"ok\n")
        good[0] = False
        assert fetch(f"{url}/healthz") == (503, b"the loop stands\n")
        status, body = fetch(f"{url}/metrics")
        assert status == 200 and metrics.SINK_RETRIES.name.encode() in body
        assert fetch(f"{url}/other")[0] == 404
    finally:
        server.stop()


def test_a_series_that_is_forgotten_is_shown_no_more() -> None:
    """Of two detectors one goes: its series goes, the other's stays; to forget what isn't there does nothing."""
    registry = CollectorRegistry()
    instruments = Instruments(registry)
    for detector in ("a", "b"):
        instruments(metrics.DETECTOR_READY, detector=detector).set(1)
    instruments.forget(metrics.DETECTOR_READY, detector="a")
    instruments.forget(metrics.DETECTOR_READY, detector="never")
    text = generate_latest(registry).decode()
    assert 'detector="b"' in text and 'detector="a"' not in text
    instruments(metrics.DETECTOR_READY, detector="a").set(0)
    assert 'detector="a"' in generate_latest(registry).decode()


def test_producers_agree_on_partitions_and_durability() -> None:
    """A key has one partition whoever writes it, and a record counts when every replica in sync has it."""
    settings = KafkaAccess("b:9092").producer_settings(linger_ms=2)
    assert settings["partitioner"] == "murmur2_random"
    assert settings["acks"] == "all" and settings["enable.idempotence"] is True
    assert (settings["bootstrap.servers"], settings["linger.ms"]) == ("b:9092", 2)
    assert settings["compression.type"] == "lz4"
