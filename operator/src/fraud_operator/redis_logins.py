"""Redis users of detectors: each reaches the keys of its detector alone, by the commands that its processes send.

A Redis without an ACL file forgets users when it starts anew, and users aren't replicated: behind Sentinels each server has its own,
so that a replica has them before it is the master. Whoever needs one calls ``ensure`` again and again. It writes nothing where all
is well.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import redis

from fraud_contracts.errors import StoreError
from fraud_contracts.names import Identity
from fraud_contracts.store_rights import redis_rules
from fraud_operator.store_login import LoginRefusedError, StoreAdmin, StoreLogin, is_login, others, with_login
from fraud_process.redis_address import Place, RedisAddress, parse
from fraud_process.redis_store import Sentinels, connected, server
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
    """The user as it should be, and where it is ``settled`` in Pods the only one. StoreError or LoginRefusedError; ends in seconds.

    A server that is down is left out: it is no master, and gets the user once it is up.
    """

    def make(client: Any) -> None:
        users = [_text(user) for user in client.execute_command("ACL", "USERS")]
        before = client.execute_command("ACL", "GETUSER", login.user) if login.user in users else None
        client.execute_command("ACL", "SETUSER", login.user, *redis_rules(identity, login.password))
        changed = before != client.execute_command("ACL", "GETUSER", login.user)
        old = others(identity.redis_logins, users, login) if settled else []
        _drop(client, old)
        if changed or old:
            _save(client)

    _at_each(admin, make, down=False)


def remove(admin: StoreAdmin, identity: Identity) -> None:
    """Every login of the detector; its keys stay. StoreError where a server is down, which would still have them when it is back."""

    def drop(client: Any) -> None:
        users = [_text(user) for user in client.execute_command("ACL", "USERS")]
        own = [user for user in users if is_login(identity.redis_logins, user)]
        _drop(client, own)
        if own:
            _save(client)

    _at_each(admin, drop, down=True)


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


def _at_each(admin: StoreAdmin, do: Callable[[Any], None], down: bool) -> None:
    """With a client of each server, the master first; all are tried, and the first error is raised then."""
    failures: list[StoreError] = []
    for client in _clients(admin, down):
        try:
            with closing(client):
                do(client)
        except redis.RedisError as error:
            failures.append(failure(error))
    if failures:
        raise failures[0]


def _clients(admin: StoreAdmin, down: bool) -> list[Any]:
    """Of the one server, or of the master and the replicas that Sentinels name; ``down``: also of those that they can't reach."""
    try:
        parsed = parse(admin.address)
        if parsed.master:
            return _named_by_sentinels(parsed, admin.authority, down)
        return [connected(admin.address, admin.authority, TIMEOUT)]
    except ValueError as error:
        raise LoginRefusedError("redis", f"the address is none: {error}") from error
    except redis.RedisError as error:
        raise failure(error) from error


def _named_by_sentinels(parsed: RedisAddress, authority: str | None, down: bool) -> list[Any]:
    with closing(Sentinels(parsed, authority, TIMEOUT)) as named:
        master = named.discover_master(parsed.master)
        # The Sentinel that answered is the first one now.
        one: Any = named.clients[0]
        watched, replicas = one.sentinel_master(parsed.master), one.sentinel_slaves(parsed.master)
        # While it moves, the former master is in neither list.
        if not master == _place(watched) == named.discover_master(parsed.master):
            raise StoreError("redis", "the master moves at this moment")
    places = [_place(one) for one in replicas if down or not (one["is_sdown"] or one["is_odown"])]
    return [server(parsed, place, authority, TIMEOUT) for place in (master, *places)]


def _place(state: Any) -> Place:
    return state["ip"], state["port"]


def failure(error: redis.RedisError) -> StoreError:
    if isinstance(error, (redis.AuthenticationError, redis.ResponseError)):
        return LoginRefusedError("redis", str(error))
    return StoreError("redis", silence(error))
