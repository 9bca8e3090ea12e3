"""``python -m fraud_console``: configuration, then uvicorn until it is told to stop."""

from __future__ import annotations

import asyncio
import os
from typing import Final

import uvicorn
from prometheus_client import CollectorRegistry

from fraud_console.app import Console
from fraud_console.ledger import Ledger
from fraud_contracts import log
from fraud_contracts.config import HTTP_PORT, HTTP_PORT_ENV, POSTGRES_DSN, load_config
from fraud_process.access import mounted_keys
from fraud_process.instruments import Instruments
from fraud_process.store_address import store_address
from fraud_process.uvicorn_server import LeavingServer

FINISH_SECONDS: Final = 15


async def serve(console: Console) -> None:
    settings = uvicorn.Config(
        console.app(),
        host="0.0.0.0",  # noqa: S104  a Pod listens on its own address
        port=int(os.environ.get(HTTP_PORT_ENV, HTTP_PORT)),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=FINISH_SECONDS,
    )
    await LeavingServer(settings, console.close).serve()


def main() -> None:
    log.setup()
    identity = load_config().identity
    ledger = Ledger(store_address(POSTGRES_DSN), identity.database_schema)
    instruments = Instruments(CollectorRegistry(), detector=str(identity))
    console = Console(ledger, mounted_keys(instruments), instruments)
    asyncio.run(serve(console))


if __name__ == "__main__":
    main()
