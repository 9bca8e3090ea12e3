"""Starts a sink: configuration, logging, health server, signals, the loop (anew where its store lost data), the exit code."""

from __future__ import annotations

import argparse
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import replace

from confluent_kafka import KafkaException

from fraud_contracts import log as logs
from fraud_contracts.config import METRICS_PORT, METRICS_PORT_ENV, DetectorConfig, load_config
from fraud_contracts.errors import StoreError
from fraud_process.health import HealthServer, probe
from fraud_process.kafka import KafkaAccess
from fraud_process.stopping import on_stop
from fraud_sinks.loop import TICK_SECONDS, Loop, Reading
from fraud_sinks.meters import Meters
from fraud_sinks.records import StoreLostError, TopicRecreatedError, Writer

log = logging.getLogger(__name__)

# (configuration, meters, whether this is a rebuild) -> the writer and what it reads
Maker = Callable[[DetectorConfig, Meters, bool], tuple[Writer, Reading]]


def reading(
    config: DetectorConfig,
    sink: str,
    nouns: tuple[str, ...],
    batch: int,
    linger: float,
    tick: float = TICK_SECONDS,
) -> Reading:
    return Reading(
        kafka=KafkaAccess.of(config.kafka),
        topics=tuple(config.identity.topic(noun) for noun in nouns),
        group=config.identity.group(f"{sink}-sink"),
        instance=os.environ.get("HOSTNAME"),
        batch=batch,
        linger=linger,
        tick=tick,
    )


def main(sink: str, make: Maker, argv: list[str] | None = None) -> int:
    """0 after a stop or a finished rebuild, 1 where Kafka stayed away, or at the start or in a rebuild the store: the container is then
    started anew."""
    parser = argparse.ArgumentParser(prog=f"python -m fraud_sinks.{sink}")
    parser.add_argument(
        "--rebuild",
        action="store_true",
        help="write everything that the topics hold, from the beginning, then exit; safe beside a running sink",
    )
    rebuild: bool = parser.parse_args(argv).rebuild
    logs.setup()
    config = load_config()
    meters = Meters(str(config.identity), sink)
    port = int(os.environ.get(METRICS_PORT_ENV, METRICS_PORT))
    loop: Loop | None = None
    stopping = threading.Event()
    server = HealthServer(
        port if not rebuild else 0,
        meters.registry,
        {
            "/healthz": lambda: probe(loop is None or loop.alive(), "not yet"),
            "/readyz": lambda: probe(loop is not None and loop.ready() and not stopping.is_set(), "not yet"),
        },
    )

    def stop() -> None:
        stopping.set()
        if loop is not None:
            loop.stop()

    on_stop(stop)
    server.start()
    try:
        while True:
            writer, what = make(config, meters, rebuild)
            loop = Loop(replace(what, rebuild=rebuild), writer, meters)
            if stopping.is_set():
                loop.stop()
            about = {"sink": sink, "detector": str(config.identity), "rebuild": rebuild}
            log.info("started", extra={"data": about})
            try:
                loop.run()
                break
            except StoreLostError as error:
                meters.losses.inc()
                log.error("starting anew", extra={"data": {"sink": sink, "error": str(error)}})
            except TopicRecreatedError as error:
                log.error("starting anew", extra={"data": {"sink": sink, "error": str(error)}})
    except (StoreError, KafkaException, OSError) as error:
        log.error("giving up", extra={"data": {"sink": sink, "error": str(error)}})
        return 1
    finally:
        server.stop()
    log.info("stopped", extra={"data": {"sink": sink}})
    return 0
