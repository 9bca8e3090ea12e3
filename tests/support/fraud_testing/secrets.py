"""Secrets as the API server has them, for unit tests."""

from __future__ import annotations

import base64
from typing import Any


def secret(**values: str) -> dict[str, Any]:
    return {"data": {key: base64.b64encode(text.encode()).decode() for key, text in values.items()}}
