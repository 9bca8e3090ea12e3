"""Settings that every producer of the platform shares. Imports no client."""

from __future__ import annotations

from typing import Any, Final

# As the Java clients' default: an entity's records meet on one partition, whoever writes them.
PARTITIONER: Final = "murmur2_random"


def producer_settings(bootstrap: str, **more: Any) -> dict[str, Any]:
    """For librdkafka: a record counts as written when all in-sync replicas have it, once and in order.

    ``more`` are further settings, with ``_`` for each dot.
    """
    return {
        "bootstrap.servers": bootstrap,
        "acks": "all",
        "enable.idempotence": True,
        "partitioner": PARTITIONER,
        **{name.replace("_", "."): value for name, value in more.items()},
    }
