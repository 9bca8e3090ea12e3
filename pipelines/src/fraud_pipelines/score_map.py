"""Scores whose meaning outlives a model: a score stands for the share of payments that reach it.

A new model's probabilities mean something else, so thresholds on them would move the number of alerts at each promotion.
The map is made from the quantiles of the probabilities over mature held-out payments, so that ``bands.review: 700`` gives
1 % alerts with whichever model, until the payments themselves change.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fraud_contracts.model_package import ScoreKnots

# (score, share of payments that reach it). Frozen: thresholds in users' specs refer to it.
ALERT_RATES: Final = (
    (200, 0.5),
    (300, 0.2),
    (400, 0.1),
    (500, 0.05),
    (600, 0.02),
    (700, 0.01),
    (800, 0.005),
    (900, 0.002),
    (950, 0.001),
)


def fit(probabilities: NDArray[np.floating]) -> ScoreKnots:
    """Knots (probability, score) with both ascending, from (0, 0) to (1, 1000).

    A rate is never exceeded on the data given: where many payments share one probability, the lower score holds.
    """
    ranked = np.sort(np.asarray(probabilities, dtype=np.float64))
    if len(ranked) == 0 or not np.isfinite(ranked).all() or ranked[0] < 0 or ranked[-1] > 1:
        raise ValueError("a score map needs probabilities between 0 and 1")
    knots: ScoreKnots = [(0.0, 0.0)]
    for score, rate in ALERT_RATES:
        allowed = int(rate * len(ranked))
        if allowed == 0:
            break  # too few payments to tell so rare a score
        # The smallest probability that at most ``allowed`` payments reach.
        edge = ranked[len(ranked) - allowed - 1]
        above = ranked[ranked > edge]
        if len(above) and knots[-1][0] < above[0] < 1.0:
            knots.append((float(above[0]), float(score)))
    knots.append((1.0, 1000.0))
    return knots


def check(knots: Sequence[Sequence[float]]) -> None:
    """ValueError unless the knots ascend from probability 0 to 1 and stay within 0 to 1000."""
    if len(knots) < 2 or knots[0][0] != 0.0 or knots[-1][0] != 1.0:
        raise ValueError("a score map goes from probability 0 to 1")
    for (p, s), (q, t) in pairwise(knots):
        if not p < q or not 0 <= s <= t <= 1000:
            raise ValueError("a score map's knots must ascend")


class ScoreMap:
    """The map in use: ``score(probability)`` is a whole number from 0 to 1000, in about a microsecond."""

    def __init__(self, knots: Sequence[Sequence[float]]) -> None:
        check(knots)
        self._p = [float(k[0]) for k in knots]
        self._s = [float(k[1]) for k in knots]

    def score(self, probability: float) -> int:
        """Rounded down, so that a band's score is reached exactly from its knot on."""
        if not 0.0 <= probability <= 1.0:
            raise ValueError("a probability lies between 0 and 1")
        i = min(bisect_right(self._p, probability), len(self._p) - 1)
        p, q, s, t = self._p[i - 1], self._p[i], self._s[i - 1], self._s[i]
        return int(s + (t - s) * ((probability - p) / (q - p)) + 1e-9)
