"""Claims of a batch in Redis: one round trip to read, one to claim. No retry hides behind a call."""

from __future__ import annotations

from typing import Any, Final

import redis

from fraud_process.redis_store import RedisStore
from fraud_process.store_address import StoreAddress
from fraud_serving import claims

TIMEOUT: Final = 0.5


class RedisClaims:
    def __init__(self, address: StoreAddress) -> None:
        self._store = RedisStore(address, TIMEOUT)

    def mark_and_read(self, published: list[claims.ClaimRef], keys: list[str]) -> list[bytes | None]:
        """Marks claims as published, then reads others: one round trip."""
        pipe: Any = self._store.client.pipeline(transaction=False)
        if published:
            pipe.execute_command(*claims.mark(published, published=True))
        if keys:
            pipe.mget(keys)
        try:
            replies = pipe.execute()
            return list(replies[-1]) if keys else []
        except redis.RedisError as error:
            raise self._store.failure(error) from error

    def claim(self, attempts: list[claims.ClaimAttempt]) -> list[bytes | None]:
        """Per entry None where it is ours now, else what was there."""
        try:
            client: Any = self._store.client
            return list(client.execute_command(*claims.take(attempts)))
        except redis.RedisError as error:
            raise self._store.failure(error) from error
