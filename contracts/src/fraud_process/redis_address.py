"""How an address of Redis is written: of one server, or of the Sentinels that know which server is the master now.

``redis://user:password@host:6379/0``, or ``redis+sentinel://user:password@host:26379,host:26379/master/0``; with ``rediss`` in
place of ``redis`` servers and Sentinels speak TLS. The login is the servers'. What Sentinels ask for besides is in the query:
``sentinel_username`` and ``sentinel_password``, and ``nodes=host:6379,host:6379`` where servers aren't on the Sentinels' hosts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote

PORT: Final = 6379
SENTINEL_PORT: Final = 26379
FORM: Final = (
    "write redis://user:password@host:6379/0, or redis+sentinel://user:password@host:26379,host:26379/master/0, "
    "with rediss in place of redis for TLS"
)
_SCHEME: Final = re.compile(r"redis(?P<tls>s?)(?P<sentinel>\+sentinel)?")
# What ends the hosts of a URL.
_AFTER_HOSTS: Final = re.compile(r"[/?#]")
_HOST: Final = re.compile(
    r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<name>[^\[\]:@\s]{1,253}))(?::(?P<port>\d{1,5}))?"
)
_USER, _PASSWORD, _NODES = "sentinel_username", "sentinel_password", "nodes"

Place = tuple[str, int]


@dataclass(frozen=True)
class RedisLogin:
    """Empty parts are left out: a password alone is the default user's."""

    user: str = ""
    password: str = field(default="", repr=False)

    @property
    def words(self) -> tuple[str, ...]:
        """What follows AUTH; nothing where there is no password."""
        return tuple(part for part in (self.user, self.password) if part) if self.password else ()


@dataclass(frozen=True)
class RedisAddress:
    """``hosts`` are Sentinels where they know the server by the name ``master``, else the one server; ``nodes`` are the servers'
    places as far as anybody says. ``login`` is the servers'."""

    hosts: tuple[Place, ...]
    tls: bool
    login: RedisLogin
    database: int = 0
    master: str = ""
    sentinel_login: RedisLogin = RedisLogin()
    nodes: tuple[Place, ...] = ()


def parse(text: str) -> RedisAddress:
    """ValueError where it is no address, in words that quote nothing of it."""
    # Not urlsplit, which refuses some texts in words that hold the password.
    scheme, _, rest = text.partition("://")
    kind = _SCHEME.fullmatch(scheme)
    hosts = _AFTER_HOSTS.split(rest, maxsplit=1)[0]
    path, _, query = rest[len(hosts) :].partition("#")[0].partition("?")
    login, _, named = hosts.rpartition("@")
    if kind is None or not named:
        raise ValueError(f"no redis:// or rediss:// with a host: {FORM}")
    user, _, password = login.partition(":")
    own = RedisLogin(unquote(user), unquote(password))
    if kind["sentinel"] is None:
        places = _places(named, PORT)
        if len(places) > 1:
            raise ValueError(f"several hosts, and no Sentinels: {FORM}")
        # Other settings in the query are one client's own.
        return RedisAddress(places, bool(kind["tls"]), own, _database(path.strip("/")))
    master, _, database = path.strip("/").partition("/")
    if not master:
        raise ValueError(f"no name of a master after the Sentinels: {FORM}")
    settings = dict(parse_qsl(query, keep_blank_values=True))
    unknown = set(settings) - {_USER, _PASSWORD, _NODES}
    if unknown:
        raise ValueError(f"a setting other than {_USER}, {_PASSWORD} and {_NODES}")
    sentinels = _places(named, SENTINEL_PORT)
    return RedisAddress(
        sentinels,
        bool(kind["tls"]),
        own,
        _database(database),
        unquote(master),
        RedisLogin(settings.get(_USER, ""), settings.get(_PASSWORD, "")),
        _places(settings[_NODES], PORT)
        if settings.get(_NODES)
        else tuple((host, PORT) for host, _ in sentinels),
    )


def _places(text: str, port: int) -> tuple[Place, ...]:
    places = []
    for one in text.split(","):
        match = _HOST.fullmatch(one)
        if match is None or not 0 < int(match["port"] or port) < 2**16:
            raise ValueError(f"a host that is none, or a port: {FORM}")
        places.append((match["six"] or match["name"], int(match["port"] or port)))
    return tuple(places)


def _database(text: str) -> int:
    if text and not (text.isascii() and text.isdecimal() and len(text) < 6):
        raise ValueError(f"a database that is no number: {FORM}")
    return int(text or 0)
