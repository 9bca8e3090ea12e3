"""Starts one replica. Its settings are the detector document, the clients document and the Secrets' variables, nothing else."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from typing import Final

import uvicorn
import uvloop
from prometheus_client import REGISTRY
from pydantic import ValidationError

from fraud_contracts import log, metrics, names
from fraud_contracts.config import HTTP_PORT, HTTP_PORT_ENV, POSTGRES_DSN, REDIS_URL, load_config
from fraud_pipelines.events import Tokeniser
from fraud_process.access import mounted_keys
from fraud_process.instruments import Instruments
from fraud_process.kafka import KafkaAccess
from fraud_process.store_address import store_address
from fraud_process.uvicorn_server import LeavingServer
from fraud_serving.clients.kafka_log import KafkaLog
from fraud_serving.clients.ledger_link import LedgerLink
from fraud_serving.clients.redis_link import RedisLink
from fraud_serving.decision.app import Api
from fraud_serving.decision.arrival import ArrivalProtocol
from fraud_serving.decision.profiles_age import ProfilesAge
from fraud_serving.decision.service import DecisionService
from fraud_serving.decision.stream_watch import StreamWatch
from fraud_serving.release_watch import ReleaseWatch

# Long enough for a leader election, short enough for a caller that waits.
DELIVERY_SECONDS: Final = 2.0
KEEP_ALIVE_SECONDS: Final = 75
# After SIGTERM callers may still come for LEAVE_SECONDS; then so long what is under way may take. With what the lifespan
# then waits for this stays below the Pod's grace period of 30 s.
FINISH_SECONDS: Final = 10


async def serve() -> None:
    config = load_config()
    tokeniser = Tokeniser.from_hex(os.environ["TOKEN_KEY"], config.token_key)
    delivery = float(os.environ.get("FRAUD_DELIVERY_SECONDS", DELIVERY_SECONDS))
    redis = RedisLink(store_address(REDIS_URL))
    kafka = KafkaLog(KafkaAccess.of(config.kafka), delivery)
    instruments = Instruments(REGISTRY, detector=str(config.identity))
    ledger = LedgerLink(store_address(POSTGRES_DSN, may_come=True), config.identity)
    age = ProfilesAge()
    service = DecisionService(config, tokeniser, redis, kafka, ledger, age, instruments)
    stream = StreamWatch(age, redis, config, instruments)
    refused = instruments(metrics.UNREADABLE, what="release").inc
    pointer = names.release_pointer(config.name)
    watch = ReleaseWatch(config.namespace, pointer, service.release.take, refused=refused)
    api = Api(service, mounted_keys(instruments), watch, stream)
    settings = uvicorn.Config(
        api.application(),
        host="0.0.0.0",  # noqa: S104 - a Pod's own address
        port=int(os.environ.get(HTTP_PORT_ENV, HTTP_PORT)),
        http=ArrivalProtocol,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who asks is known by the key, not by an address
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=FINISH_SECONDS,
    )
    # A request leaves no cycles behind; looking for some each few hundred objects costs it a twentieth of its time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    await LeavingServer(settings, api.closing).serve()


def main() -> int:
    log.setup()
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())
    except (OSError, KeyError, ValueError, ValidationError) as error:
        text = f"{type(error).__name__}: {error}"[:1000]
        logging.getLogger(__name__).critical("can't start", extra={"data": {"error": text}})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
