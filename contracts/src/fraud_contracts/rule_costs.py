"""What evaluating a policy rule can cost at most, in steps, computed before anything runs.

Nested macros multiply: the inner one runs once for each combination of elements of the lists around it. A rule runs under
the interpreter's lock, in the operator for all detectors and at the doors for each payment, so it must end within
milliseconds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Final

MAX_STEPS: Final = 1_000
TOO_MUCH: Final = (
    f"takes more than {MAX_STEPS:,} steps, as each list multiplies what is in its macro; shorten the lists and the {{…}} of "
    "patterns, or make several rules of it"
)
_COUNTS: Final = re.compile(r"\{([0-9]+)(?:,([0-9]*))?\}")


def macro(elements: int, bodies: Iterable[str], inner: int) -> int:
    """Steps of a macro over so many ``elements``, whose bodies take ``inner`` steps each time."""
    once = 1 + inner + sum(len(body) // 1_000 for body in bodies)
    # Two at least: over one element alone a hundred macros would fit into each other, and the library is slow with them.
    return max(2, elements) * once


def matching(pattern: str | None) -> int:
    """Steps of a call of matches(). It compiles its pattern each time and unrolls counted repetitions; None: a computed one."""
    if pattern is None:
        return 100
    counts = [int(most or least) or 1 for least, most in _COUNTS.findall(pattern)]
    return 10 + 5 * (math.prod(counts) if "){" in pattern else sum(counts))
