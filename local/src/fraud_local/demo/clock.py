"""The demo's time and voice."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Wall time by phase, and the one way to speak."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.phases: dict[str, float] = {}

    def say(self, text: str) -> None:
        sys.stdout.write(f"{time.monotonic() - self.start:7.1f} s  {text}\n")
        sys.stdout.flush()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begun = time.monotonic()
        self.say(f"── {name}")
        try:
            yield
        finally:
            self.phases[name] = round(time.monotonic() - begun, 1)
