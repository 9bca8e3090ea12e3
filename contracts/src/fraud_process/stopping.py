"""A process that is told to stop does, and within its Pod's grace period."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Final

STOP_SECONDS: Final = 20.0  # below the Pod's grace period


def on_stop(begin: Callable[[], None]) -> None:
    """Calls ``begin`` on SIGTERM and SIGINT; where the process is still there STOP_SECONDS later, it ends with 1.

    A client of a broker that is gone may wait for it for ever; what isn't committed is read again anyway.
    """

    def stop(*_: object) -> None:
        begin()
        last = threading.Timer(STOP_SECONDS, os._exit, (1,))
        last.daemon = True
        last.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
