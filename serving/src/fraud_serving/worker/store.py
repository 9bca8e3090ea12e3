"""Claims of a batch in Redis: one round trip to read, one to claim. No retry hides behind a call."""

from __future__ import annotations

from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from fraud_contracts.errors import StoreError
from fraud_serving.claims import STRAY, TTL_SECONDS

TIMEOUT: Final = 0.5


class RedisClaims:
    def __init__(self, url: str) -> None:
        self._redis: Any = redis.Redis.from_url(
            url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT, retry=Retry(NoBackoff(), 0)
        )

    def get(self, keys: list[str]) -> list[bytes | None]:
        try:
            return [None if value in STRAY else value for value in self._redis.mget(keys)]
        except redis.RedisError as error:
            raise StoreError("redis", str(error)) from error

    def claim(self, entries: list[tuple[str, bytes]]) -> list[bytes | None]:
        """Per entry None where it is ours now, else what was there."""
        pipe = self._redis.pipeline(transaction=False)
        for key, value in entries:
            pipe.set(key, value, nx=True, get=True, ex=TTL_SECONDS)
        try:
            return [None if value in STRAY else value for value in pipe.execute()]
        except redis.RedisError as error:
            raise StoreError("redis", str(error)) from error
