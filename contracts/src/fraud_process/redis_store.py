"""Clients of Redis: one at an address, and one at an address that may change."""

from __future__ import annotations

import threading
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from fraud_contracts.errors import StoreError
from fraud_process.store_address import StoreAddress


def connected(url: str, authority: str | None, timeout: float, health_check: int = 0) -> redis.Redis:
    """A client; ``authority`` is the file by which TLS is verified, None where that is the system's. ValueError where it is no address.

    No retries inside the client: they would hide a restart of Redis behind calls of seconds.
    """
    tls: dict[str, Any] = (
        {"ssl_ca_certs": authority} if authority is not None and url.startswith("rediss://") else {}
    )
    return redis.Redis.from_url(
        url,
        **tls,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        health_check_interval=health_check,
        retry=Retry(NoBackoff(), 0),
    )


class RedisStore:
    """Another client with the next command once the address is another one. Safe to use from several threads. ``timeout`` is for connecting and for each answer, in seconds."""

    def __init__(self, address: StoreAddress, timeout: float, health_check: int = 0) -> None:
        self._address, self._timeout, self._health_check = address, timeout, health_check
        self._lock = threading.Lock()
        self._open: tuple[str, redis.Redis] | None = None

    @property
    def client(self) -> redis.Redis:
        """For one call or pipeline; StoreError where there is no address to connect to."""
        url = self._address.read()
        with self._lock:
            if self._open is not None and self._open[0] == url:
                return self._open[1]
            # What another thread still does with the old client ends by itself: the pool closes its connections when it is dropped.
            self._open = url, self._connect(url)
            return self._open[1]

    def _connect(self, url: str) -> redis.Redis:
        try:
            return connected(url, self._address.authority, self._timeout, self._health_check)
        except ValueError as error:
            raise StoreError("redis", f"REDIS_URL is no address of Redis: {error}") from error

    def close(self) -> None:
        with self._lock:
            if self._open is not None:
                self._open[1].close()
                self._open = None
