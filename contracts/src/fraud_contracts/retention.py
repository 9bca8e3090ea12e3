"""For how long each topic keeps its records: what topics are made with, and what sizes are computed from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# Days by noun; None is for ever.
KEPT_DAYS: Final[Mapping[str, int | None]] = {
    "transactions": 2,
    "accepted": 7,
    "label-reports": 30,
    "labels": None,
    "features": 3,
    "dead-letters": 30,
    "decisions": 30,
    "alerts": 30,
}
# These keep the newest record of each key instead.
COMPACTED: Final = ("seeds", "profiles")
