"""How coarse the past may become: the widths of the time cells that old events of a busy key are thinned to.

A window's edge lies at some age. Around it, rows may be as far apart as a thirtieth of the window, so a window is wrong
by at most that much *in time*. Older zones are never finer than younger ones, and each width divides the next, so cells
nest: a row that was the last of its cell stays the last of a coarser cell or is dropped with the rest of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from fraud_contracts.lifetimes import HORIZON, LATENESS

SECOND: Final = 1_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

WIDTHS: Final = (
    SECOND,
    5 * SECOND,
    15 * SECOND,
    MINUTE,
    2 * MINUTE,
    10 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    4 * HOUR,
    8 * HOUR,
    DAY,
    7 * DAY,
    28 * DAY,
)
PARTS: Final = 30  # a cell is at most this fraction of the window whose edge it blurs

K: Final = 128  # newest events of a key that stay single rows


@dataclass(frozen=True)
class Grid:
    """``levels``: (age from which it holds, width), finest first; the first begins at age 0. ``retain`` in milliseconds."""

    levels: tuple[tuple[int, int], ...]
    retain: int
    k: int

    def width(self, newest: int, t: int) -> int:
        """Width of the cell that holds ``t`` when the key's newest event is at ``newest``."""
        for age, width in reversed(self.levels):
            if t < (newest - age) // width * width:
                return width
        return self.levels[0][1]


def make_grid(spans: Iterable[tuple[int, int]], k: int = K, lateness: int = LATENESS) -> Grid:
    """Grid for windows given as (age of an edge, length of the window that it belongs to)."""
    finest: dict[int, int] = {}
    for age, window in spans:
        finest[age] = min(finest.get(age, window), window)
    if not finest:
        finest[HORIZON] = HORIZON
    ages = sorted(finest)
    levels: list[tuple[int, int]] = []
    start = 0
    for i, age in enumerate(ages):
        limit = max(SECOND, min(finest[later] for later in ages[i:]) // PARTS)
        levels.append((start, max(width for width in WIDTHS if width <= limit)))
        start = age
    return Grid(tuple(levels), ages[-1] + lateness, k)
