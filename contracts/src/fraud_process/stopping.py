"""Stops a process on a signal, in order, and in any case within its Pod's grace period."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Final

STOP_SECONDS: Final = 20.0  # below the Pod's grace period


def on_stop(begin: Callable[[], None]) -> None:
    """Calls ``begin`` on SIGTERM and SIGINT; if the process still runs STOP_SECONDS later, it exits with 1.

    A Kafka client may wait for ever for a dead broker. Records that weren't committed are read again after the restart.
    """

    def stop(*_: object) -> None:
        begin()
        last = threading.Timer(STOP_SECONDS, os._exit, (1,))
        last.daemon = True
        last.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
