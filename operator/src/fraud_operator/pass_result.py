"""What a pass over one detector came to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PassResult:
    """``settled``, ``changed``, ``unwatched`` and ``overtaken`` tell the queue when to look again.

    ``unwatched`` waits for what sends no events. ``overtaken``: someone changed the detector since it was read. ``ready`` is None
    for a detector that is gone, or another platform's. ``written`` holds (kind, name, verb) of each child.
    """

    settled: bool
    ready: bool | None
    written: tuple[tuple[str, str, str], ...] = ()
    changed: bool = True
    unwatched: bool = True
    overtaken: bool = False
