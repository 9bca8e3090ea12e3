"""Calls of PostgreSQL that end in time."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg import conninfo

from fraud_contracts.errors import StoreError
from fraud_process.store_address import StoreAddress, silence

log = logging.getLogger(__name__)

# Before what a server says that lets one not in; libpq gives no SQLSTATE there.
_FATAL: Final = "FATAL:  "
# What one says that takes nobody in now: 53300, 57P03.
_LATER: Final = ("too many", "remaining connection slots", "the database system is")


def completed(dsn: str, authority: str | None) -> str:
    """The address with what it leaves out; psycopg's error where it is none.

    TLS by that authority, unless it says itself how the server is verified; of several hosts the one that takes writes, as it is the
    primary's turn to be now, unless it says which one.
    """
    parts = conninfo.conninfo_to_dict(dsn)
    hosts, numbers, ports = (_listed(parts.get(word)) for word in ("host", "hostaddr", "port"))
    count = max(len(hosts), len(numbers))
    if 1 < len(ports) != count or (hosts and numbers and len(hosts) != len(numbers)):
        raise psycopg.ProgrammingError("as many ports as hosts, or one")
    left_out: dict[str, str] = {}
    if count > 1 and "target_session_attrs" not in parts:
        left_out["target_session_attrs"] = "read-write"
    if authority is not None and "sslrootcert" not in parts:
        left_out |= {"sslrootcert": authority, "sslmode": str(parts.get("sslmode", "verify-full"))}
    return str(conninfo.make_conninfo(dsn, **left_out)) if left_out else dsn


def _listed(value: object) -> list[str]:
    return str(value).split(",") if value else []


def address_of(store: StoreAddress) -> str:
    """What psycopg connects to, as it is now; StoreError where it is no address."""
    try:
        return completed(store.read(), store.authority)
    except psycopg.ProgrammingError as error:
        raise StoreError("postgres", described(error)) from error


def described(error: Exception) -> str:
    """An error of psycopg's in words that quote nothing of the address: what the server said, or why none did."""
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        return str(error.diag.message_primary)
    if isinstance(error, (psycopg.ProgrammingError, ValueError)):
        return "the address can't be read"
    return _answer(error) or silence(error)


def refusal(error: Exception) -> str:
    """What a server said that doesn't let this login in; empty where none answered, and of one that lets nobody in now."""
    answer = _answer(error)
    return "" if any(words in answer for words in _LATER) else answer


def _answer(error: Exception) -> str:
    if not isinstance(error, psycopg.Error) or error.pgconn is None or _FATAL not in str(error):
        return ""
    return str(error).partition(_FATAL)[2].splitlines()[0]


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
