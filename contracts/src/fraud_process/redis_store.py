"""A client of Redis at an address that may change: another one with the next command."""

from __future__ import annotations

import threading
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from fraud_contracts.errors import StoreError
from fraud_process.store_address import StoreAddress


class RedisStore:
    """Safe to use from several threads. ``timeout`` is for connecting and for each answer, in seconds.

    No retries inside the client: they would hide a restart of Redis behind calls of seconds.
    """

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
        authority = self._address.authority
        tls: dict[str, Any] = (
            {"ssl_ca_certs": authority} if authority is not None and url.startswith("rediss://") else {}
        )
        try:
            return redis.Redis.from_url(
                url,
                **tls,
                socket_timeout=self._timeout,
                socket_connect_timeout=self._timeout,
                health_check_interval=self._health_check,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            raise StoreError("redis", f"REDIS_URL is no address of Redis: {error}") from error

    def close(self) -> None:
        with self._lock:
            if self._open is not None:
                self._open[1].close()
                self._open = None
