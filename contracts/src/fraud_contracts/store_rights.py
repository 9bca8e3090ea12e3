"""What a detector's login may do in Redis: its own keys, by the commands that doors, worker and profile sink send.

Redis tells a command that isn't here by NOPERM, so whoever sends another one adds it; the tests run as this user.
"""

from __future__ import annotations

import hashlib
from typing import Final

from fraud_contracts.names import Identity

_CONNECTION: Final = ("auth", "hello", "ping", "select", "multi", "exec")
_SCRIPTS: Final = ("eval", "evalsha", "script|load", "script|exists")
# Those that scripts send count, too.
_KEYS: Final = (
    "get", "getrange", "mget", "set", "del", "type", "expire",
    "hget", "hset", "hsetnx", "hdel", "hgetall", "sadd", "scard", "smembers", "srem",
    "zadd", "zrange", "zrem", "zremrangebyscore", "zremrangebyrank",
)  # fmt: skip
REDIS_COMMANDS: Final = (*_CONNECTION, *_SCRIPTS, *_KEYS)


def redis_rules(identity: Identity, password: str) -> list[str]:
    """What follows ``ACL SETUSER <user>``: the user then has this password, these rights and no others."""
    digest = hashlib.sha256(password.encode()).hexdigest()
    commands = [f"+{command}" for command in REDIS_COMMANDS]
    return ["reset", "on", f"#{digest}", f"~{identity.redis_keys}", "-@all", *commands]
