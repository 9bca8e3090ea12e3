"""``python -m fraud_console``: configuration, then uvicorn until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
from types import FrameType
from typing import Final

import uvicorn

from fraud_console.app import Console
from fraud_console.ledger import Ledger
from fraud_contracts import log
from fraud_contracts.config import HTTP_PORT, load_config

LEAVE_SECONDS: Final = 2.0
FINISH_SECONDS: Final = 15


class Server(uvicorn.Server):  # type: ignore[misc]  # the linter's environment has no uvicorn
    """On SIGTERM first unready, a moment later deaf: callers learn of it with delay."""

    def __init__(self, settings: uvicorn.Config, console: Console) -> None:
        super().__init__(settings)
        self._console, self._loop = console, asyncio.get_running_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._console.closing = True
        end = super().handle_exit
        self._loop.call_soon_threadsafe(self._loop.call_later, LEAVE_SECONDS, end, sig, frame)


async def serve(console: Console) -> None:
    settings = uvicorn.Config(
        console.app(),
        host="0.0.0.0",  # noqa: S104  a Pod listens on its own address
        port=int(os.environ.get("HTTP_PORT", HTTP_PORT)),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=FINISH_SECONDS,
    )
    # uvicorn drains on SIGTERM and then raises it again for the handler that was there before: exit with 0 instead.
    signal.signal(signal.SIGTERM, lambda *_: None)
    await Server(settings, console).serve()


def main() -> None:
    log.setup()
    identity = load_config().identity
    ledger = Ledger(os.environ["POSTGRES_DSN"], identity.database_schema)
    console = Console(ledger, os.environ["API_KEY"], str(identity))
    asyncio.run(serve(console))


if __name__ == "__main__":
    main()
