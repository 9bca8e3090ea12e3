"""A store that failed is left alone for a moment: a backlog must not wait for a timeout with each batch."""

from __future__ import annotations

import logging
import time
from typing import Final

from fraud_contracts.errors import StoreError

COOL_DOWN: Final = 1.0  # seconds
_log = logging.getLogger(__name__)


class CoolDown:
    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def check(self, store: str) -> None:
        """StoreError while the store is left alone."""
        if time.monotonic() < self._until.get(store, 0.0):
            raise StoreError(store, "failed a moment ago")

    def failed(self, store: str, error: StoreError, seconds: float = COOL_DOWN) -> None:
        if time.monotonic() >= self._until.get(store, 0.0):
            _log.warning("store failed", extra={"data": {"store": store, "error": error.message}})
            self._until[store] = time.monotonic() + seconds
