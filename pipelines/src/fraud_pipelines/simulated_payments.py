"""The simulator's patterns: how honest people pay, and six ways to steal. Each method adds the rows of one case."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypedDict

import numpy as np
from numpy.typing import NDArray

from fraud_pipelines.simulated_people import (
    CATEGORIES,
    NO_DRIFT,
    Drift,
    Floats,
    Ints,
    Population,
    card_number,
)

FRAUDS: Final = (
    "card_testing",
    "account_takeover",
    "compromised_terminal",
    "velocity_burst",
    "amount_anomaly",
    "slow_mimicry",
)
HOUR: Final = 3_600_000
DAY: Final = 24 * HOUR


class Row(TypedDict):
    """One transaction; ``pattern`` says how it came about: to judge by, never to learn from."""

    transaction_id: str
    timestamp: int
    amount: float
    card: str
    merchant_id: str
    category: str
    channel: str
    is_fraud: int
    pattern: str


class Payments:
    """Draws transactions between two times. A method that adds a case returns how many rows that are."""

    def __init__(
        self,
        population: Population,
        rng: np.random.Generator,
        start_ms: int,
        end_ms: int,
        drift: Drift = NO_DRIFT,
    ) -> None:
        self.p, self.rng, self.start, self.end, self.drift = population, rng, start_ms, end_ms, drift
        self.parts: list[tuple[Ints, Ints, Ints, Floats, NDArray[np.bool_], str]] = []
        self._whose = np.cumsum(population.activity)

    def add(self, when: Any, who: Any, where: Any, amount: Any, online: Any, pattern: str) -> int:
        when, who, where, amount, online = np.broadcast_arrays(when, who, where, amount, online)
        self.parts.append(
            (when.astype(np.int64), who.astype(np.int64), where.astype(np.int64), amount, online, pattern)
        )
        return len(when)

    def amounts(self, who: Any, where: Any) -> Floats:
        noise = self.rng.normal(0.0, 0.55, np.broadcast(who, where).shape)
        return np.asarray(np.exp(self.p.log_amount[who] + self.p.price[where] + noise), dtype=np.float64)

    def customer(self) -> int:
        """A customer drawn by activity. A search in the running sums: thousands of weighted choices would cost more."""
        index = int(np.searchsorted(self._whose, self.rng.random()))
        return min(index, self.p.customers - 1)

    def moment(self, tail_ms: float = 0.0) -> int:
        """A time that leaves room for a case of that length."""
        return int(self.rng.integers(self.start, max(self.start + 1, self.end - int(tail_ms))))

    def moved(self, when: int) -> float:
        """Strength of the drift at a time."""
        return self.drift.strength if when >= self.drift.at else 0.0

    # Honest ---------------------------------------------------------------------------------------------------------

    def habits(self, count: int) -> int:
        """Everyday payments: mostly at favourites, around the customer's hour, now and then a big one."""
        p, rng = self.p, self.rng
        who = rng.choice(p.customers, count, p=p.activity)
        where = np.where(
            rng.random(count) < 0.8,
            p.favourites[who, rng.integers(0, p.favourites.shape[1], count)],
            rng.choice(p.merchants, count, p=p.popularity),
        )
        days = max(1, (self.end - self.start) // DAY)
        hour = np.where(rng.random(count) < 0.06, rng.random(count) * 24, rng.normal(p.peak_hour[who], 3.5))
        when = self.start + (rng.integers(0, days, count) + (hour % 24) / 24) * DAY
        big = np.where(rng.random(count) < 0.006, rng.uniform(4, 12, count), 1.0)
        moved = self.drift.here(when.astype(np.int64))
        return self.add(
            np.minimum(when, self.end - 1),
            who,
            where,
            self.amounts(who, where) * big * (1 + 0.5 * moved),
            rng.random(count) < p.online[who] + 0.3 * moved,
            "habit",
        )

    def spree(self) -> int:
        """An honest afternoon in the shops: several payments within two hours."""
        who, count = self.customer(), int(self.rng.integers(3, 8))
        where = self.rng.choice(self.p.merchants, count, p=self.p.popularity)
        when = self.moment(2 * HOUR) + self.rng.integers(0, 2 * HOUR, count)
        online = self.rng.random(count) < self.p.online[who]
        return self.add(when, who, where, self.amounts(who, where), online, "spree")

    def sale(self) -> int:
        """A merchant's honest busy day, so that a busy counterparty is no sign of fraud by itself."""
        count = int(self.rng.integers(10, 30))
        where = int(self.rng.choice(self.p.merchants, p=self.p.popularity))
        who = self.rng.choice(self.p.customers, count, p=self.p.activity)
        when = self.moment(10 * HOUR) + self.rng.integers(0, 10 * HOUR, count)
        return self.add(when, who, where, self.amounts(who, where), self.rng.random(count) < 0.5, "sale")

    # Stolen ---------------------------------------------------------------------------------------------------------

    def card_testing(self) -> int:
        """Stolen numbers are tried with small sums in quick order, then used once or twice."""
        rng, who = self.rng, self.customer()
        tries, uses = int(rng.integers(5, 15)), int(rng.integers(1, 3))
        count = tries + uses
        first = self.moment(HOUR)
        moved = self.moved(first)
        when = first + np.cumsum(rng.exponential(25_000 * (1 + 8 * moved), count)).astype(np.int64)
        where = rng.choice(self.p.merchants, count)
        where[:tries] = where[rng.integers(0, min(3, tries), tries)]
        tried = rng.uniform(0.5, 9.0, tries) * (1 + 3 * moved)
        used = self.amounts(who, where[tries:]) * rng.uniform(1.5, 4, uses)
        return self.add(
            when, who, where, np.concatenate([tried, used]), rng.random(count) < 0.9, "card_testing"
        )

    def account_takeover(self) -> int:
        """Someone else drains the account: strange merchants, sums out of habit, within hours, often at night."""
        rng, who = self.rng, self.customer()
        count = int(rng.integers(3, 9))
        first = self.moment(6 * HOUR)
        moved = self.moved(first)
        if rng.random() < 0.6 * (1 - min(1.0, moved)) and self.end - self.start > 2 * DAY:
            night = first // DAY * DAY + int(rng.integers(0, 5 * HOUR)) + 23 * HOUR
            first = min(night, self.end - 6 * HOUR)
        when = first + np.sort(rng.integers(0, 4 * HOUR, count))
        where = rng.choice(self.p.merchants, count)
        amount = self.amounts(who, where) * rng.uniform(1.5, 6.0 - 2.5 * min(1.0, moved), count)
        return self.add(when, who, where, amount, rng.random(count) < 0.75, "account_takeover")

    def compromised_terminal(self) -> int:
        """A merchant's terminal copies cards; they are abused there for weeks, each once or twice, at ordinary sums."""
        rng, count = self.rng, int(self.rng.integers(15, 45))
        length = min(30 * DAY, max(1, (self.end - self.start) // 2))
        since = self.moment(length)
        where = int(rng.integers(0, self.p.merchants))
        who = rng.choice(self.p.customers, count, p=self.p.activity)
        when = rng.integers(since, since + length, count)
        amount = self.amounts(who, where) * rng.uniform(0.8, 2.0, count)
        return self.add(when, who, where, amount, rng.random(count) < 0.6, "compromised_terminal")

    def velocity_burst(self) -> int:
        """A found card is used up before it is blocked: many ordinary payments in shops within the hour."""
        rng, who = self.rng, self.customer()
        count = int(rng.integers(6, 15))
        first = self.moment(2 * HOUR)
        gap = rng.uniform(60_000, 240_000) * (1 + 2 * self.moved(first))
        when = first + np.cumsum(rng.exponential(gap, count)).astype(np.int64)
        where = rng.choice(self.p.merchants, count, p=self.p.popularity)
        amount = self.amounts(who, where) * rng.uniform(0.8, 1.8, count)
        return self.add(when, who, where, amount, rng.random(count) < 0.2, "velocity_burst")

    def amount_anomaly(self) -> int:
        """One or two payments far beyond what the customer ever spends."""
        rng, who = self.rng, self.customer()
        count = int(rng.integers(1, 3))
        first = self.moment(6 * HOUR)
        when = first + np.sort(rng.integers(0, 6 * HOUR, count))
        where = rng.choice(self.p.merchants, count)
        high = 25.0 - 12.0 * min(1.0, self.moved(first))
        amount = self.amounts(who, where) * rng.uniform(8.0, high, count)
        return self.add(when, who, where, amount, rng.random(count) < 0.6, "amount_anomaly")

    def slow_mimicry(self) -> int:
        """The thief knows the habits: favourites, the usual hour, sums a little above, one payment every few days.

        Most of it can't be told from honest payments; a model that claims to find it all has seen the answers.
        """
        rng, who = self.rng, self.customer()
        count = int(rng.integers(5, 12))
        length = min(count * 3 * DAY, max(1, (self.end - self.start) // 2))
        first = self.moment(length)
        days = np.sort(rng.integers(first, first + length, count)) // DAY * DAY
        hour = rng.normal(self.p.peak_hour[who], 3.0, count) % 24
        where = self.p.favourites[who, rng.integers(0, self.p.favourites.shape[1], count)]
        amount = self.amounts(who, where) * rng.uniform(1.2, 2.5, count)
        when = days + (hour * HOUR).astype(np.int64)
        return self.add(when, who, where, amount, rng.random(count) < self.p.online[who], "slow_mimicry")

    def frauds(self, count: int) -> int:
        """Adds at least ``count`` fraudulent rows, the six patterns in about even parts; -> how many it added."""
        total = 0
        for number, pattern in enumerate(FRAUDS, start=1):
            add_case: Callable[[], int] = getattr(self, pattern)
            while total < count * number / len(FRAUDS):
                total += add_case()
        return total

    def rows(self, prefix: str) -> list[Row]:
        """All rows added so far, in order of time, inside the period."""
        when, who, where, amount = (np.concatenate([part[i] for part in self.parts]) for i in range(4))
        online = np.concatenate([part[4] for part in self.parts])
        patterns = [pattern for *part, pattern in self.parts for _ in range(len(part[0]))]
        when = np.clip(when, self.start, self.end - 1)
        cents = np.maximum(np.rint(amount * 100), 50).astype(np.int64)
        cards = {int(one): card_number(self.p.seed, int(one)) for one in np.unique(who)}
        order = np.argsort(when, kind="stable")
        columns = (values[order].tolist() for values in (when, who, where, cents, online))
        category = [CATEGORIES[i] for i in self.p.category.tolist()]
        ordered = (patterns[i] for i in order.tolist())
        return [
            {
                "transaction_id": f"{prefix}-{n:08d}",
                "timestamp": t,
                "amount": c / 100,
                "card": cards[by],
                "merchant_id": f"m{at:05d}",
                "category": category[at],
                "channel": "online" if remote else "pos",
                "is_fraud": int(pattern in FRAUDS),
                "pattern": pattern,
            }
            for n, (t, by, at, c, remote, pattern) in enumerate(zip(*columns, ordered, strict=True))
        ]
