"""Redis users of detectors: each reaches the keys of its detector alone, by the commands that its processes send.

A Redis without an ACL file forgets users when it starts anew, and a replica never had them; so whoever needs one calls ``ensure``
again and again. It writes nothing where all is well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import redis

from fraud_contracts.errors import StoreError
from fraud_contracts.names import Identity
from fraud_contracts.store_rights import redis_rules
from fraud_operator.store_login import LoginRefusedError, StoreAdmin, StoreLogin, is_login, others, with_login
from fraud_process.redis_store import connected
from fraud_process.store_address import silence

TIMEOUT: Final = 3.0
# What redis-py takes from an address' query, too.
_LOGIN: Final = ("username", "password")
_NO_FILE: Final = "not configured to use an ACL file"


def address(admin: str, login: StoreLogin) -> str:
    """The admin's address with another login, also in place of one in its query."""
    parts = urlsplit(admin)
    settings = [one for one in parts.query.split("&") if unquote(one.partition("=")[0]) not in _LOGIN]
    return with_login(parts._replace(query="&".join(settings)).geturl(), login)


def ensure(admin: StoreAdmin, identity: Identity, login: StoreLogin, settled: bool) -> None:
    """The user as it should be, and where it is ``settled`` in Pods the only one. StoreError or LoginRefusedError; ends in seconds."""
    with _connected(admin) as client:
        users = [_text(user) for user in client.execute_command("ACL", "USERS")]
        before = client.execute_command("ACL", "GETUSER", login.user) if login.user in users else None
        client.execute_command("ACL", "SETUSER", login.user, *redis_rules(identity, login.password))
        changed = before != client.execute_command("ACL", "GETUSER", login.user)
        old = others(identity.redis_logins, users, login) if settled else []
        _drop(client, old)
        if changed or old:
            _save(client)


def remove(admin: StoreAdmin, identity: Identity) -> None:
    """Every login of the detector; its keys stay."""
    with _connected(admin) as client:
        users = [_text(user) for user in client.execute_command("ACL", "USERS")]
        own = [user for user in users if is_login(identity.redis_logins, user)]
        _drop(client, own)
        if own:
            _save(client)


def _text(name: Any) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _drop(client: Any, users: list[str]) -> None:
    """Ends the connections of these users, too."""
    if users:
        client.execute_command("ACL", "DELUSER", *users)


def _save(client: Any) -> None:
    """Users outlive a restart where Redis has an ACL file; elsewhere the next look makes them again."""
    try:
        client.execute_command("ACL", "SAVE")
    except redis.ResponseError as error:
        if _NO_FILE not in str(error):
            raise


@contextmanager
def _connected(admin: StoreAdmin) -> Iterator[Any]:
    try:
        client = connected(admin.address, admin.authority, TIMEOUT)
    except ValueError as error:
        raise LoginRefusedError(
            "redis", "the address is none: write redis:// or rediss://, and a host"
        ) from error
    try:
        yield client
    except (redis.AuthenticationError, redis.ResponseError) as error:
        raise LoginRefusedError("redis", str(error)) from error
    except redis.RedisError as error:
        raise StoreError("redis", silence(error)) from error
    finally:
        client.close()
