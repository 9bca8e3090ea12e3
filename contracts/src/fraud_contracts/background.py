"""Threads and tasks that live as long as their process: one that dies ends the process, with exit code 1.

A process that only looks alive serves nobody until somebody restarts it; a dead one is restarted by the kubelet within
seconds. Nothing here waits: an orderly end might wait for the very part that broke.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

_log = logging.getLogger(__name__)


def end_process(reason: str, error: BaseException | None = None) -> NoReturn:
    """Logs why, as the last line, and ends the process with 1."""
    _log.critical("the process ends", extra={"data": {"reason": reason}}, exc_info=error)
    sys.stdout.flush()
    os._exit(1)


def thread(name: str, work: Callable[[], object]) -> threading.Thread:
    """Starts a daemon thread. ``work`` may return, as after a request to stop; if it raises, the process ends."""

    def run() -> None:
        try:
            work()
        except BaseException as error:  # of any kind: nobody else would notice the dead thread
            end_process(f"thread {name} died", error)

    started = threading.Thread(target=run, name=name, daemon=True)
    started.start()
    return started


def watched(task: asyncio.Task[Any]) -> asyncio.Task[Any]:
    """Watches a task and returns it. It may end or be cancelled; if it raises, the process ends."""

    def ended(finished: asyncio.Task[Any]) -> None:
        if not finished.cancelled() and (error := finished.exception()) is not None:
            end_process(f"task {finished.get_name()} died", error)

    task.add_done_callback(ended)
    return task
