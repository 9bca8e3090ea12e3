"""Calls of PostgreSQL that end in time."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

log = logging.getLogger(__name__)


@contextmanager
def bounded(connection: psycopg.Connection[Any], seconds: float) -> Iterator[None]:
    """Cuts the connection when the block takes longer: libpq itself waits for an answer for ever."""
    with socket.socket(fileno=os.dup(connection.fileno())) as wire:

        def cut() -> None:
            log.warning("postgres is silent", extra={"data": {"seconds": seconds}})
            wire.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(seconds, cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
