"""The times that Kubernetes writes into objects."""

from __future__ import annotations

from datetime import datetime


def to_ms(stamp: str) -> int:
    """UTC ms of a time as Kubernetes writes it: RFC 3339 with a zone."""
    return int(datetime.fromisoformat(stamp).timestamp() * 1000)
