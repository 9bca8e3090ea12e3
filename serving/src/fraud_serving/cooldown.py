"""When a server that failed is asked again: a request or a backlog must not wait for a dead one's timeout each time."""

from __future__ import annotations

from typing import Final

COOL_DOWN: Final = 1.0  # seconds


class CoolDown:
    """After so many failures in a row a server rests; then one caller tries it, and its answer ends the rest.

    ``now`` is in seconds of a steady clock.
    """

    def __init__(self, failures: int) -> None:
        self._limit = failures
        self._failures: dict[str, int] = {}
        self._until: dict[str, float] = {}

    def take_turn(self, server: str, now: float) -> bool:
        """Whether this caller may ask it; past the rest this takes the one try."""
        if self._failures.get(server, 0) < self._limit:
            return True
        if now < self._until[server]:
            return False
        self._until[server] = now + COOL_DOWN  # for this caller; the others wait for what it hears
        return True

    def answered(self, server: str) -> None:
        self._failures.pop(server, None)

    def failed(self, server: str, now: float, seconds: float = COOL_DOWN) -> None:
        """Lets it rest for ``seconds`` once it failed often enough in a row."""
        self._failures[server] = self._failures.get(server, 0) + 1
        self._until[server] = now + seconds
