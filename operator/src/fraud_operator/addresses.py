"""Where the stores of a detector listen, as far as a NetworkPolicy asks: host and port, out of addresses that hold passwords."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from fraud_contracts import object_store
from fraud_operator.detector import Detector
from fraud_operator.objects import Json

REDIS_PORT: Final = 6379
POSTGRES_PORT: Final = 5432
HTTPS_PORT: Final = 443
PLAIN_HTTP_PORT: Final = 80
# The key of each store's address in its Secret, and the port of one that names none.
STORE_KEYS: Final = {
    "redis": ("REDIS_URL", REDIS_PORT),
    "postgres": ("POSTGRES_DSN", POSTGRES_PORT),
    "mlflow": ("MLFLOW_TRACKING_URI", HTTPS_PORT),
    "objects": (object_store.ENDPOINT, HTTPS_PORT),
}
_LONGEST_HOST: Final = 253


@dataclass(frozen=True)
class Address:
    """``host`` is empty where nobody says which it is."""

    host: str
    port: int


def addresses_in(text: str, port: int) -> tuple[Address, ...]:
    """The hosts of a URL, several with commas between them, or of PostgreSQL's ``host=… port=…``; of another text an empty one.

    ``port`` is that of a host without one. Nothing of a login is kept.
    """
    if "://" not in text:
        words = dict(re.findall(r"(\w+)\s*=\s*'?([^\s']+)", text))
        ports = words.get("port", "").split(",")
        hosts = [host for host in words.get("host", "").split(",") if host]
        named = [f"{host}:{ports[min(i, len(ports) - 1)]}".rstrip(":") for i, host in enumerate(hosts)]
    else:
        if text.startswith("http://"):
            port = PLAIN_HTTP_PORT
        named = urlsplit(text).netloc.rpartition("@")[2].split(",")
    found = tuple(_address(one, port) for one in named if one)
    return found or (Address("", port),)


def _address(text: str, port: int) -> Address:
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:\s]*)(?::(\d{1,5}))?", text)
    if match is None or len(match[1]) > _LONGEST_HOST:
        return Address("", port)
    own = int(match[2]) if match[2] else port
    return Address(match[1].strip("[]").lower(), own if 0 < own < 2**16 else port)


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
    return {store: addresses_in(text, STORE_KEYS[store][1]) for store, text in texts.items()}


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
            key, port = STORE_KEYS[store]
            addresses[store] = addresses_in(_text(secret, key), port)
    return addresses


def _text(secret: Json, key: str) -> str:
    try:
        return base64.b64decode((secret.get("data") or {}).get(key, ""), validate=True).decode()
    except ValueError:  # what else is wrong with it, the store's own condition says
        return ""
