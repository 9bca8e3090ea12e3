"""Durations as the custom resource writes them: ``50ms``, ``5m``, ``1h``, ``7d``."""

from __future__ import annotations

import re

PATTERN = r"^[1-9][0-9]{0,8}(ms|s|m|h|d)$"
_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_FORM = re.compile(PATTERN)


def to_ms(text: str) -> int:
    """Milliseconds of a duration; ValueError says the form that is expected."""
    if not _FORM.match(text):
        raise ValueError(
            f"{text!r} is not a duration: write a positive number and ms, s, m, h or d, as in 5m"
        )
    digits = text.rstrip("mshd")
    return int(digits) * _UNITS_MS[text[len(digits) :]]


def from_ms(ms: int) -> str:
    """The shortest exact form of a positive number of milliseconds: 3_600_000 is ``1h``."""
    for unit in ("d", "h", "m", "s"):
        if ms % _UNITS_MS[unit] == 0:
            return f"{ms // _UNITS_MS[unit]}{unit}"
    return f"{ms}ms"
