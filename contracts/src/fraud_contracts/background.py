"""Threads and tasks that live as long as their process: one that dies ends the process, with exit code 1.

A process that only looks alive serves nobody until somebody restarts it; one that is gone has a successor within seconds,
by the kubelet. Nothing here waits for anything: what broke may be just what an orderly end would wait for.
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
    """A daemon thread, started. ``work`` may return, as it does when it is told to stop, but not raise."""

    def run() -> None:
        try:
            work()
        except BaseException as error:  # whatever it is: nobody would miss the thread
            end_process(f"thread {name} died", error)

    started = threading.Thread(target=run, name=name, daemon=True)
    started.start()
    return started


def watched(task: asyncio.Task[Any]) -> asyncio.Task[Any]:
    """The task, which may end or be cancelled, but not raise."""

    def ended(done: asyncio.Task[Any]) -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            end_process(f"task {done.get_name()} died", error)

    task.add_done_callback(ended)
    return task
