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
from psycopg import conninfo

from fraud_process.store_address import StoreAddress

log = logging.getLogger(__name__)


def verified(dsn: str, authority: str | None) -> str:
    """The address with TLS by that authority, unless it says itself how the server is verified; psycopg's error where it is none."""
    if authority is None:
        return dsn
    parts = conninfo.conninfo_to_dict(dsn)
    if "sslrootcert" in parts:
        return dsn
    return str(
        conninfo.make_conninfo(dsn, sslrootcert=authority, sslmode=parts.get("sslmode", "verify-full"))
    )


def address_of(store: StoreAddress) -> str:
    """What psycopg connects to, as it is now."""
    return verified(store.read(), store.authority)


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
