"""Starts a worker. Exit code 0 after SIGTERM, else 1 with the reason as the last log line."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import signal
import sys
import time
from typing import Final

from prometheus_client import REGISTRY
from pydantic import ValidationError

from fraud_contracts import log, metrics, names
from fraud_contracts.background import thread
from fraud_contracts.config import (
    METRICS_PORT,
    METRICS_PORT_ENV,
    POSTGRES_DSN,
    REDIS_URL,
    DetectorConfig,
    load_config,
)
from fraud_pipelines.dead_letter_cipher import DeadLetterCipher
from fraud_pipelines.events import Tokeniser
from fraud_process.instruments import Instruments
from fraud_process.stopping import on_stop
from fraud_process.store_address import store_address
from fraud_serving.clients.blocking_model import BlockingModelClient
from fraud_serving.clients.ledger_link import LedgerLink
from fraud_serving.release_watch import ReleaseWatch
from fraud_serving.worker.client_errors import FatalError
from fraud_serving.worker.health import Health
from fraud_serving.worker.loop import WorkerLoop
from fraud_serving.worker.processor import BatchProcessor
from fraud_serving.worker.redis_claims import RedisClaims
from fraud_serving.worker.settling import Settling

MODEL_SECONDS: Final = 2.0
_log = logging.getLogger(__name__)


def _watch(config: DetectorConfig, processor: BatchProcessor) -> None:
    """Follows the release on a thread with an event loop of its own; taking one is a single assignment."""

    async def follow() -> None:
        refused = processor.instruments(metrics.UNREADABLE, what="release").inc
        watch = ReleaseWatch(
            config.namespace, names.release_pointer(config.name), processor.release.take, refused=refused
        )
        watch.start()
        await asyncio.Event().wait()

    thread("release", lambda: asyncio.run(follow()))


def run() -> None:
    config = load_config()
    registry_name = str(config.identity)
    instruments = Instruments(REGISTRY, detector=registry_name)
    processor = BatchProcessor(
        config,
        Tokeniser.from_hex(os.environ["TOKEN_KEY"], config.token_key),
        DeadLetterCipher(os.environ["DEAD_LETTER_KEY"]),
        RedisClaims(store_address(REDIS_URL)),
        LedgerLink(store_address(POSTGRES_DSN, may_come=True), config.identity),
        BlockingModelClient(MODEL_SECONDS),
        instruments,
    )
    port = int(os.environ.get(METRICS_PORT_ENV, METRICS_PORT))
    health = Health(port, REGISTRY, lambda: processor.release.name)

    def heartbeat() -> None:
        health.last_heartbeat = time.monotonic()

    loop = WorkerLoop(config, processor, heartbeat)

    def stop() -> None:
        """The batch in hand is committed first; where Kafka is away that may take longer than the Pod has."""
        health.ready = False
        loop.stopping = True

    faulthandler.register(signal.SIGUSR1, all_threads=True)  # where a process that stands still stands
    on_stop(stop)
    _watch(config, processor)
    # Clients of its own: it may wait for one longer than the loop does.
    settling = Settling(
        config,
        RedisClaims(store_address(REDIS_URL)),
        LedgerLink(store_address(POSTGRES_DSN, may_come=True), config.identity),
    )
    thread("settling", settling.run)
    while processor.release.ruling is None and not loop.stopping:
        heartbeat()
        time.sleep(0.1)
    if not loop.stopping:
        health.ready = True
        _log.info("starting", extra={"data": {"detector": registry_name}})
        loop.run()
    health.stop()


def main() -> int:
    log.setup()
    try:
        run()
    except (FatalError, OSError, KeyError, ValueError, ValidationError) as error:
        text = f"{type(error).__name__}: {error}"[:1000]
        _log.critical("the worker ends", extra={"data": {"error": text}})
        return 1
    except Exception:  # whatever else it is: the successor starts from the last commit
        _log.critical("the worker ends on an unforeseen error", exc_info=True)
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # Not through the interpreter's end: it would destroy the clients, and a broken one waits there for ever.
    os._exit(code)
