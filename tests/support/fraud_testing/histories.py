"""How many generated histories a property is tried on, and how many it was: shown, so that nobody has to believe it.

FRAUD_HYPOTHESIS sets the number; ``tests/run oracle`` asks for 2,000, the fast tests for 60.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("FRAUD_HYPOTHESIS", "60"))
TRIED: Counter[str] = Counter()


def many(share: float = 1.0) -> Callable[[Any], Any]:
    """Settings of a property that is tried on EXAMPLES histories, or on a share of them."""
    return settings(max_examples=max(1, int(EXAMPLES * share)), suppress_health_check=list(HealthCheck))


def show(capsys: pytest.CaptureFixture[str], **least: float) -> None:
    """Prints how many histories each property was tried on and fails where they were fewer than its share asks for.

    A property that wasn't chosen to run counts for nothing.
    """
    with capsys.disabled():
        for name in least:
            if TRIED[name]:
                print(f"\n  {TRIED[name]:,} generated histories: {name}", end="")
        print()
    assert [name for name, share in least.items() if 0 < TRIED[name] < int(EXAMPLES * share)] == []
