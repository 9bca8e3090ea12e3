"""Kubernetes objects as the API server gives them: JSON, with times in RFC 3339."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]
# (kind, name) of a detector's child.
ChildKey = tuple[str, str]


def to_ms(timestamp: str) -> int:
    """UTC ms of a time as Kubernetes writes it: RFC 3339 with a zone."""
    return int(datetime.fromisoformat(timestamp).timestamp() * 1000)


def to_timestamp(ms: int) -> str:
    """The same way back, to the second: what Kubernetes expects in a status."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
