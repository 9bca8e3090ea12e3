"""Claims of a batch in Redis: one round trip to read, one to claim. No retry hides behind a call.

``then`` are commands to be sent after those of a call, on its connection; their replies follow its own.
"""

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

    def mark_and_read(self, mark: claims.Command | None, keys: list[str], *then: claims.Command) -> list[Any]:
        """Marks claims, then reads others: one round trip."""
        pipe: Any = self._store.client.pipeline(transaction=False)
        if mark is not None:
            pipe.execute_command(*mark)
        if keys:
            pipe.mget(keys)
        for command in then:
            pipe.execute_command(*command)
        try:
            replies = pipe.execute()[0 if mark is None else 1 :]
            return [*replies[0], *replies[1:]] if keys else list(replies)
        except redis.RedisError as error:
            raise self._store.failure(error) from error

    def claim(self, take: claims.Command, *then: claims.Command) -> list[bytes | None]:
        """Per entry None where it is ours now, else what was there."""
        held, *replies = self.send(take, *then)
        return [*held, *replies]

    def send(self, *commands: claims.Command) -> list[Any]:
        """-> the replies."""
        pipe: Any = self._store.client.pipeline(transaction=False)
        for command in commands:
            pipe.execute_command(*command)
        try:
            return list(pipe.execute())
        except redis.RedisError as error:
            raise self._store.failure(error) from error
