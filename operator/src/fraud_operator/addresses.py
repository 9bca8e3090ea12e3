"""Where the stores of a detector listen, as far as a NetworkPolicy asks: host and port, out of addresses that hold passwords."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import psycopg
from psycopg import conninfo

from fraud_contracts import object_store
from fraud_contracts.config import MLFLOW_TRACKING_URI, POSTGRES_DSN, REDIS_URL
from fraud_operator.detector import Detector
from fraud_operator.objects import Json
from fraud_process import redis_address
from fraud_process.postgres import completed

REDIS_PORT: Final = redis_address.PORT
POSTGRES_PORT: Final = 5432
HTTPS_PORT: Final = 443
PLAIN_HTTP_PORT: Final = 80
# The key of each store's address in its Secret, and the port of one that names none.
STORE_KEYS: Final = {
    "redis": (REDIS_URL, REDIS_PORT),
    "postgres": (POSTGRES_DSN, POSTGRES_PORT),
    "mlflow": (MLFLOW_TRACKING_URI, HTTPS_PORT),
    "objects": (object_store.ENDPOINT, HTTPS_PORT),
}
_LONGEST_TEXT: Final = 4096
# What ends the hosts of a URL.
_AFTER_HOSTS: Final = re.compile(r"[/?#]")
_HOST: Final = re.compile(r"[^\[\]/@\s]{1,253}")
_HOST_AND_PORT: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:\s]*)(?::(\d{1,5}))?")


@dataclass(frozen=True)
class Address:
    """``host`` is empty where nobody says which it is."""

    host: str
    port: int


def addresses_in(text: str, port: int) -> tuple[Address, ...]:
    """The hosts of a URL, several with commas between them; of another text an empty one. It never raises.

    ``port`` is that of a host without one. Nothing of a login is kept.
    """
    # Not urlsplit, which refuses some texts in words that hold the password.
    scheme, _, rest = text.partition("://")
    if scheme == "http":
        port = PLAIN_HTTP_PORT
    hosts = _AFTER_HOSTS.split(rest, maxsplit=1)[0].rpartition("@")[2].split(",")
    return tuple(_address(one, port) for one in hosts if one) or (Address("", port),)


def postgres_addresses(text: str) -> tuple[Address, ...]:
    """The hosts that libpq would connect to, of a URL or of keywords and values; an empty one where it names none.

    It never raises.
    """
    try:
        words = conninfo.conninfo_to_dict(text)
    except (psycopg.Error, ValueError):  # its message may quote the password
        words = {}
    hosts, numbers, ports = (str(words.get(word) or "").split(",") for word in ("host", "hostaddr", "port"))
    count = max(len(hosts), len(numbers))
    pairs = zip(_filled(numbers, count), _filled(hosts, count), strict=True)
    named = [number or host for number, host in pairs]
    # One port is that of all hosts.
    own_ports = ports * count if len(ports) == 1 else _filled(ports, count)
    return tuple(_at(host, own, POSTGRES_PORT) for host, own in zip(named, own_ports[:count], strict=True))


def _filled(parts: list[str], count: int) -> list[str]:
    return [*parts, *[""] * (count - len(parts))]


def _address(text: str, port: int) -> Address:
    match = _HOST_AND_PORT.fullmatch(text)
    return Address("", port) if match is None else _at(match[1].strip("[]"), match[2] or "", port)


def _at(host: str, own: str, port: int) -> Address:
    """``own`` is the host's port, in figures, where it is given one; ``port`` that of one without."""
    if own.isascii() and own.isdecimal() and 0 < int(own) < 2**16:
        port = int(own)
    return Address(host.lower() if _HOST.fullmatch(host) else "", port)


@lru_cache(1024)
def addresses_of(store: str, text: str) -> tuple[Address, ...]:
    """Where a store listens whose address, as its clients take it, is ``text``."""
    if len(text) > _LONGEST_TEXT:  # somebody's mistake, of which each comma would become a rule
        text = ""
    if store == "postgres":
        return postgres_addresses(text)
    return _redis_addresses(text) if store == "redis" else addresses_in(text, STORE_KEYS[store][1])


def _redis_addresses(text: str) -> tuple[Address, ...]:
    """Of Sentinels and of the servers that they name; what nobody can read leads where a URL of its kind would."""
    try:
        address = redis_address.parse(text)
    except ValueError:
        return addresses_in(text, REDIS_PORT)
    return tuple(_at(host, str(port), port) for host, port in (*address.hosts, *address.nodes))


def fault(key: str, text: str) -> str:
    """What to write under the key of a store instead of a text that isn't its address; empty where it is."""
    if key == REDIS_URL:
        try:
            redis_address.parse(text)
        except ValueError as error:
            return str(error)
    if key == POSTGRES_DSN:
        try:
            completed(text, None)
        except (psycopg.Error, ValueError):  # its message may quote the password
            return (
                "write postgresql://user:password@host:5432/database; several hosts with commas between them"
            )
    return ""


def platform_addresses(detector: Detector) -> dict[str, tuple[Address, ...]]:
    """Of the stores whose address is in the spec or the platform's settings, by store."""
    stores, platform = detector.spec.stores, detector.platform
    texts: dict[str, str] = {"mlflow": detector.mlflow_uri}
    if stores.redis is None:
        texts["redis"] = platform.stores.redis_url
    if stores.postgres is None:
        texts["postgres"] = platform.stores.postgres_dsn
    if detector.storage_reference is None:
        texts["objects"] = platform.storage.credentials.get(object_store.ENDPOINT, "")
    return {store: addresses_of(store, text) for store, text in texts.items()}


def secret_addresses(
    detector: Detector, read: Callable[[str], Json | None]
) -> dict[str, tuple[Address, ...]]:
    """Of the stores whose Secret the spec names and ``read`` gives by its name."""
    stores, storage = detector.spec.stores, detector.storage_reference
    names: Mapping[str, str | None] = {
        "redis": stores.redis.secret_ref.name if stores.redis is not None else None,
        "postgres": stores.postgres.secret_ref.name if stores.postgres is not None else None,
        "objects": storage.name if storage is not None else None,
    }
    addresses = {}
    for store, name in names.items():
        secret = read(name) if name is not None else None
        if secret is not None:
            addresses[store] = addresses_of(store, text_of(secret, STORE_KEYS[store][0]))
    return addresses


def text_of(secret: Json, key: str) -> str:
    """A value of a Secret; empty where it is no text."""
    try:
        return base64.b64decode((secret.get("data") or {}).get(key, ""), validate=True).decode()
    except ValueError:  # what else is wrong with it, the store's own condition says
        return ""
