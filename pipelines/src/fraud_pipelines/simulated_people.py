"""Who pays and where in the simulator: people with cards and habits, merchants with prices, and what changes with a drift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

CATEGORIES: Final = (
    "grocery",
    "fuel",
    "restaurant",
    "fashion",
    "electronics",
    "travel",
    "digital",
    "pharmacy",
)
# Mean of the logarithm of the price, relative to the customer's own, and the share of the merchants.
_PRICE: Final = np.array([0.2, 0.3, -0.1, 0.6, 1.2, 1.6, -1.1, -0.3])
_SHARE: Final = np.array([0.22, 0.1, 0.2, 0.14, 0.08, 0.05, 0.13, 0.08])
_FAVOURITES: Final = 6
# No merchant has a large part of the traffic: in card data of several hundred merchants the busiest has under 1 %.
_SPREAD: Final = 0.6
# Prime to every power of ten, so that different customers get different numbers.
_STRIDE: Final = 61_803_398_874_989
_BODIES: Final = 10**14

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def card_number(seed: int, customer: int) -> str:
    """16 digits with a valid check digit (Luhn), one per customer of a seed."""
    body = f"4{(customer * _STRIDE + seed * 7_777_777_777) % _BODIES:014d}"
    total = 0
    for i, digit in enumerate(reversed(body)):
        value = int(digit) * (2 if i % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return f"{body}{-total % 10}"


@dataclass(frozen=True)
class Drift:
    """From ``at`` on (UTC ms) people and thieves do otherwise; ``strength`` 0 is no change, 1 a strong one.

    People: dearer and more online. Thieves: less hurry, larger tries, fewer sums out of habit, less by night.
    """

    at: int
    strength: float

    def here(self, when: Ints) -> Floats:
        return np.where(when >= self.at, self.strength, 0.0)


NO_DRIFT: Final = Drift(0, 0.0)


@dataclass(frozen=True)
class Population:
    """Depends on the seed and the sizes only, so a history and live traffic share it."""

    seed: int
    activity: Floats
    log_amount: Floats
    peak_hour: Floats
    online: Floats
    favourites: Ints
    category: Ints
    popularity: Floats
    price: Floats

    @classmethod
    def make(cls, seed: int, customers: int, merchants: int) -> Population:
        rng = np.random.default_rng([seed, 1])
        category = rng.choice(len(CATEGORIES), merchants, p=_SHARE / _SHARE.sum())
        popularity = np.exp(_SPREAD * np.clip(rng.normal(0.0, 1.0, merchants), -2.0, 2.0))
        popularity /= popularity.sum()
        activity = rng.gamma(1.5, 1.0, customers) + 0.05
        return cls(
            seed=seed,
            activity=np.asarray(activity / activity.sum(), dtype=np.float64),
            log_amount=rng.normal(3.2, 0.5, customers),
            peak_hour=rng.normal(15.0, 3.0, customers),
            online=rng.beta(2.0, 4.0, customers),
            favourites=rng.choice(merchants, (customers, _FAVOURITES), p=popularity),
            category=category,
            popularity=np.asarray(popularity, dtype=np.float64),
            price=_PRICE[category] + rng.normal(0.0, 0.25, merchants),
        )

    @classmethod
    def natural(cls, seed: int, rows: int, days: float) -> Population:
        """Sizes for a natural pace: a customer pays about every third day, a merchant is paid about once a day.

        A bank sees few of a merchant's customers, so it sees many merchants.
        """
        customers = max(50, round(rows / max(days, 1) / 0.35))
        return cls.make(seed, customers, max(60, round(customers / 3)))

    @property
    def customers(self) -> int:
        return len(self.activity)

    @property
    def merchants(self) -> int:
        return len(self.category)
