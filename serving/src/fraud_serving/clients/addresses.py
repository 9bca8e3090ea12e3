"""Where the predictors behind a name are, and whose turn it is: what both doors' clients share.

A headless Service's name has the addresses of all Pods that are ready, so who asks them in turns uses each that was added, and passes over
one that fails at once. A connection to the name alone stays where it was made.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

# So old addresses are looked up again, while the old ones are used.
RENEW_SECONDS: Final = 5.0
# So long nobody asks an address that failed, but one caller each time that it is over.
REST_SECONDS: Final = 1.0
_log = logging.getLogger(__name__)


def look_up(host: str) -> list[str]:
    """The addresses of a name, or the number itself; OSError where there are none."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return sorted({str(address[0]) for *_, address in found})


class Turns:
    """The addresses of one name. ``now`` is in seconds of a steady clock."""

    def __init__(self) -> None:
        self.addresses: tuple[str, ...] = ()
        self._next = 0
        self._rests_until: dict[str, float] = {}

    def know(self, addresses: Iterable[str]) -> None:
        self.addresses = tuple(addresses)

    def order(self, now: float) -> list[str]:
        """Which addresses a caller asks until one answers: each comes first in its turn, then those that answered last time.

        Where none did it is the one whose turn it is, and no other: all may be slow, and would get each request twice.
        """
        known = self.addresses
        at = self._next % len(known)
        self._next += 1
        first, others = known[at], [*known[at + 1 :], *known[:at]]
        order = [first] if self._takes_turn(first, now) else []
        return [*order, *(one for one in others if one not in self._rests_until)] or [first]

    def _takes_turn(self, address: str, now: float) -> bool:
        until = self._rests_until.get(address)
        if until is None:
            return True
        if now < until:
            return False
        self._rests_until[address] = now + REST_SECONDS  # for this caller; the others wait for what it hears
        return True

    def answered(self, address: str) -> None:
        self._rests_until.pop(address, None)

    def failed(self, address: str, now: float) -> None:
        known = self.addresses
        self._rests_until = {one: until for one, until in self._rests_until.items() if one in known}
        self._rests_until[address] = now + REST_SECONDS


def time_for(tries_left: int, seconds: float) -> float:
    """How much of the seconds that are left a try may take: one that hears nothing leaves half of them to those after it."""
    return seconds if tries_left <= 1 else seconds / 2


class _Name:
    def __init__(self) -> None:
        self.turns = Turns()
        self.known: Future[Turns] = Future()
        self.known.set_result(self.turns)
        self.newest: Future[Turns] | None = None
        self.asked = 0.0


class AddressBook:
    """Looks names up on a thread of its own: an answer may take as long as a name server is away."""

    def __init__(self, look_up: Callable[[str], list[str]] = look_up) -> None:
        self._look_up = look_up
        self._names: dict[str, _Name] = {}
        self._asker = ThreadPoolExecutor(1, "names")

    def ask(self, host: str) -> Future[Turns]:
        """Done where addresses are known, which are looked up again meanwhile; it fails with OSError where a look-up found none."""
        name = self._names.setdefault(host, _Name())
        now, newest, known = time.monotonic(), name.newest, bool(name.turns.addresses)
        if newest is None or (
            newest.done() and now - name.asked > (RENEW_SECONDS if known else REST_SECONDS)
        ):
            name.asked = now
            name.newest = newest = self._asker.submit(self._renew, host, name.turns)
        return name.known if known else newest

    def _renew(self, host: str, turns: Turns) -> Turns:
        try:
            turns.know(self._look_up(host))
        except OSError as error:
            if not turns.addresses:
                raise
            _log.warning("old addresses stay", extra={"data": {"host": host, "error": str(error)}})
        return turns
