"""Clients of Redis: one at an address, and one at an address that may change."""

from __future__ import annotations

import threading
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import OutOfMemoryError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, SentinelConnectionPool

from fraud_contracts.errors import StoreError, StoreFullError
from fraud_process.redis_address import FORM, Place, RedisAddress, RedisLogin, parse
from fraud_process.store_address import StoreAddress


def connected(url: str, authority: str | None, timeout: float, health_check: int = 0) -> redis.Redis:
    """A client of the server, or of whichever the Sentinels name as master; ValueError where it is no address.

    ``authority`` is the file by which TLS is verified, None where that is the system's. No retries inside the client: they would
    hide a restart of Redis behind calls of seconds.
    """
    settings = {**_settings(timeout), "health_check_interval": health_check}
    address = parse(url)
    if address.master:
        own = {**settings, **_tls(address, authority), **_login(address.login), "db": address.database}
        return redis.Redis.from_pool(
            SentinelConnectionPool(address.master, Sentinels(address, authority, timeout), **own)
        )
    tls = {"ssl_ca_certs": authority} if authority is not None and address.tls else {}
    try:
        return redis.Redis.from_url(url, **tls, **settings)
    except ValueError as error:  # which may quote the password
        raise ValueError(f"the client can't read it: {FORM}") from error


class Sentinels:
    """Clients of an address' Sentinels, as redis-py's pool asks them for the master before each connection."""

    def __init__(self, address: RedisAddress, authority: str | None, timeout: float) -> None:
        own = {**_settings(timeout), **_tls(address, authority), **_login(address.sentinel_login)}
        self.clients = [redis.Redis(*place, **own) for place in address.hosts]

    def discover_master(self, name: str) -> Place:
        """The first answer counts, and who gave it is asked first the next time. redis' errors where none does."""
        why: Exception | None = None
        for client in self.clients:
            try:
                place: Any = client.sentinel_get_master_addr_by_name(name)
            except (redis.ConnectionError, redis.TimeoutError) as error:
                why = error
                continue
            if place is not None:
                self.clients = [client, *(other for other in self.clients if other is not client)]
                host, port = place
                return (host if isinstance(host, str) else host.decode()), int(port)
        if isinstance(why, redis.AuthenticationError):
            raise why
        raise MasterNotFoundError(f"no master by the Sentinels: {why or 'none knows that name'}")

    def close(self) -> None:
        for client in self.clients:
            client.close()


def server(address: RedisAddress, place: Place, authority: str | None, timeout: float) -> redis.Redis:
    """A client of one of the servers that Sentinels name."""
    return redis.Redis(*place, **_settings(timeout), **_tls(address, authority), **_login(address.login))


def _settings(timeout: float) -> dict[str, Any]:
    return {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
    }


def _tls(address: RedisAddress, authority: str | None) -> dict[str, Any]:
    return {"ssl": True, "ssl_ca_certs": authority} if address.tls else {}


def _login(login: RedisLogin) -> dict[str, Any]:
    return {"username": login.user or None, "password": login.password} if login.password else {}


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

    def failure(self, error: redis.RedisError) -> StoreError:
        """What a call's error is to its caller. A server that takes no writes isn't the master any more: the next call connects anew."""
        if isinstance(error, redis.ReadOnlyError):
            self.close()
        kind = StoreFullError if isinstance(error, OutOfMemoryError) else StoreError
        return kind("redis", str(error))

    def close(self) -> None:
        with self._lock:
            if self._open is not None:
                self._open[1].close()
                self._open = None
