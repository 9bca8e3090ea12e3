"""How long a store that fails is asked again, and when.

A store that holds data is waited for without end: a process that starts anew would find it as absent, and Kubernetes keeps one that ends
again and again waiting for minutes after its store is back. Kafka is waited for some two minutes, since a client of it may have to be made
anew; so is any store by a command that somebody has started.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fraud_contracts.errors import StoreError
from fraud_sinks.records import StoreLostError, TopicRecreatedError

FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 5.0
ATTEMPTS: Final = 28  # about two minutes of pauses
KAFKA: Final = "kafka"


@dataclass
class Outage:
    """``endless``: stores other than Kafka are waited for without end. ``clock`` is in seconds."""

    endless: bool = False
    clock: Callable[[], float] = time.monotonic
    attempts: int = 0
    pause: float = 0.0
    _since: float = 0.0
    _due: float = 0.0

    @property
    def is_due(self) -> bool:
        """Whether the store may be asked now; always, where nothing has failed."""
        return self.clock() >= self._due

    @property
    def seconds(self) -> float:
        """Since when it lasts; 0 where there is none."""
        return self.clock() - self._since if self.attempts else 0.0

    def failed(self, error: StoreError) -> None:
        """Notes a failed attempt; raises the error where trying again is no use: data are lost, or it has lasted too long."""
        endless = self.endless and error.store != KAFKA
        self.attempts += 1
        if isinstance(error, StoreLostError | TopicRecreatedError) or (
            self.attempts >= ATTEMPTS and not endless
        ):
            raise error
        now = self.clock()
        self._since = now if self.attempts == 1 else self._since
        self.pause = min(LONGEST_PAUSE, self.pause * 2) if self.pause else FIRST_PAUSE
        self._due = now + self.pause

    def over(self) -> None:
        self.attempts, self.pause, self._due = 0, 0.0, 0.0
