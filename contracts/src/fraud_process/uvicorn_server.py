"""A uvicorn that stops in two steps: when a Pod gets its signal, some callers don't know yet that it stops."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from types import FrameType
from typing import Final

import uvicorn

# For so long after the signal callers that don't know of it are still answered.
LEAVE_SECONDS: Final = 2.0


class LeavingServer(uvicorn.Server):  # type: ignore[misc]  # the linter's environment has no uvicorn
    """On SIGTERM calls ``unready``, and LEAVE_SECONDS later stops listening. To be created on the running event loop."""

    def __init__(self, settings: uvicorn.Config, unready: Callable[[], None]) -> None:
        super().__init__(settings)
        self._unready, self._loop = unready, asyncio.get_running_loop()
        # uvicorn drains on SIGTERM and then raises it again for the handler that was there before: exit with 0 instead.
        signal.signal(signal.SIGTERM, lambda *_: None)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._unready()
        end = super().handle_exit
        self._loop.call_soon_threadsafe(self._loop.call_later, LEAVE_SECONDS, end, sig, frame)
