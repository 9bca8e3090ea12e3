"""What evaluating a policy rule can cost, in steps, reckoned before anything runs.

Macros multiply: one within another runs as often as all lists around it are long. A rule runs under the interpreter's lock,
in the operator for all detectors and at the doors for each payment, so it must end within milliseconds.
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
    """Of a macro over so many elements; ``inner`` steps are in its bodies."""
    once = 1 + inner + sum(len(body) // 1_000 for body in bodies)
    # Two at least: over one element alone a hundred macros would fit into each other, and the library is slow with them.
    return max(2, elements) * once


def matching(pattern: str | None) -> int:
    """Of a call of matches(): its pattern (None where it is computed) is compiled anew each time, counted repetitions unrolled."""
    if pattern is None:
        return 100
    counts = [int(most or least) or 1 for least, most in _COUNTS.findall(pattern)]
    return 10 + 5 * (math.prod(counts) if "){" in pattern else sum(counts))
