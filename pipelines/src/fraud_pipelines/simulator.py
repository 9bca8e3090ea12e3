"""Labelled payments that look like a shop's or a bank's: people with habits, merchants, and three kinds of fraud.

Seeded: the same arguments give the same rows. Fraud is made to be seen through windows (bursts, amounts out of habit,
counterparties gone bad) and hardly through a single row; honest sprees, big purchases and sales keep it from being easy.
``simulate`` gives a history at a natural pace; ``live`` gives traffic of any rate in which no honest customer hurries.

    python -m fraud_pipelines.simulator --rows 60000 --seed 7 --days 60 --out history.csv.gz
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypedDict

import numpy as np
from numpy.typing import NDArray

FIELDS: Final = (
    "transaction_id",
    "timestamp",
    "amount",
    "customer_id",
    "merchant_id",
    "category",
    "channel",
    "is_fraud",
)
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
_HOUR: Final = 3_600_000
_DAY: Final = 24 * _HOUR

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Row(TypedDict):
    """One transaction; ``pattern`` says how it came about and is in no file."""

    transaction_id: str
    timestamp: int
    amount: float
    customer_id: str
    merchant_id: str
    category: str
    channel: str
    is_fraud: int
    pattern: str


@dataclass(frozen=True)
class Population:
    """Who pays and where; depends on the seed and the sizes only, so a history and live traffic share it."""

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
        popularity = 1.0 / np.arange(1, merchants + 1) ** 0.7
        popularity = rng.permutation(popularity / popularity.sum())
        activity = rng.gamma(1.5, 1.0, customers) + 0.05
        return cls(
            seed=seed,
            activity=np.asarray(activity / activity.sum(), dtype=np.float64),
            log_amount=rng.normal(3.2, 0.5, customers),
            peak_hour=rng.normal(15.0, 3.0, customers),
            online=rng.beta(2.0, 4.0, customers),
            favourites=rng.choice(merchants, (customers, 6), p=popularity),
            category=category,
            popularity=np.asarray(popularity, dtype=np.float64),
            price=_PRICE[category] + rng.normal(0.0, 0.25, merchants),
        )

    @property
    def customers(self) -> int:
        return len(self.activity)

    @property
    def merchants(self) -> int:
        return len(self.category)


class _Batch:
    """Columns of transactions in the making."""

    def __init__(self) -> None:
        self.parts: list[tuple[Ints, Ints, Ints, Floats, NDArray[np.bool_], str]] = []

    def add(self, when: Any, who: Any, where: Any, amount: Any, online: Any, pattern: str) -> int:
        when, who, where, amount, online = np.broadcast_arrays(when, who, where, amount, online)
        self.parts.append(
            (when.astype(np.int64), who.astype(np.int64), where.astype(np.int64), amount, online, pattern)
        )
        return len(when)


class _Maker:
    """Draws transactions between two times; each method adds one pattern and says how many rows it made."""

    def __init__(self, population: Population, rng: np.random.Generator, start_ms: int, end_ms: int) -> None:
        self.p, self.rng, self.start, self.end = population, rng, start_ms, end_ms
        self.batch = _Batch()

    def amounts(self, who: Any, where: Any) -> Floats:
        noise = self.rng.normal(0.0, 0.55, np.broadcast(who, where).shape)
        return np.asarray(np.exp(self.p.log_amount[who] + self.p.price[where] + noise), dtype=np.float64)

    def customer(self) -> int:
        return int(self.rng.choice(self.p.customers, p=self.p.activity))

    def moment(self, tail_ms: float = 0.0) -> int:
        return int(self.rng.integers(self.start, max(self.start + 1, self.end - int(tail_ms))))

    def habits(self, count: int) -> int:
        """Everyday payments: mostly at favourites, around the customer's hour."""
        p, rng = self.p, self.rng
        who = rng.choice(p.customers, count, p=p.activity)
        where = np.where(
            rng.random(count) < 0.8,
            p.favourites[who, rng.integers(0, p.favourites.shape[1], count)],
            rng.choice(p.merchants, count, p=p.popularity),
        )
        days = max(1, (self.end - self.start) // _DAY)
        hour = np.where(rng.random(count) < 0.06, rng.random(count) * 24, rng.normal(p.peak_hour[who], 3.5))
        when = self.start + (rng.integers(0, days, count) + (hour % 24) / 24) * _DAY
        big = np.where(rng.random(count) < 0.006, rng.uniform(4, 12, count), 1.0)
        return self.batch.add(
            np.minimum(when, self.end - 1),
            who,
            where,
            self.amounts(who, where) * big,
            rng.random(count) < p.online[who],
            "habit",
        )

    def spree(self) -> int:
        """An honest afternoon in the shops: several payments within two hours."""
        who, count = self.customer(), int(self.rng.integers(3, 8))
        where = self.rng.choice(self.p.merchants, count, p=self.p.popularity)
        when = self.moment(2 * _HOUR) + self.rng.integers(0, 2 * _HOUR, count)
        online = self.rng.random(count) < self.p.online[who]
        return self.batch.add(when, who, where, self.amounts(who, where), online, "spree")

    def sale(self, count: int) -> int:
        """A merchant's honest rush hour, so that a busy counterparty is no sign of fraud by itself."""
        where = int(self.rng.choice(self.p.merchants, p=self.p.popularity))
        who = self.rng.choice(self.p.customers, count, p=self.p.activity)
        when = self.moment(_HOUR) + self.rng.integers(0, _HOUR, count)
        return self.batch.add(
            when, who, where, self.amounts(who, where), self.rng.random(count) < 0.5, "sale"
        )

    def card_testing(self) -> int:
        """Stolen card numbers are tried with small sums in quick order, then used once or twice."""
        rng, who = self.rng, self.customer()
        tries, uses = int(rng.integers(5, 15)), int(rng.integers(1, 3))
        count = tries + uses
        when = self.moment(_HOUR) + np.cumsum(rng.exponential(25_000, count)).astype(np.int64)
        where = rng.choice(self.p.merchants, count)
        where[:tries] = where[rng.integers(0, min(3, tries), tries)]
        amount = np.concatenate(
            [rng.uniform(0.5, 9.0, tries), self.amounts(who, where[tries:]) * rng.uniform(1.5, 4, uses)]
        )
        return self.batch.add(when, who, where, amount, rng.random(count) < 0.9, "card_testing")

    def takeover(self) -> int:
        """Someone else drains the account: strange merchants, sums out of habit, within hours, often at night."""
        rng, who = self.rng, self.customer()
        count = int(rng.integers(3, 9))
        first = self.moment(6 * _HOUR)
        if rng.random() < 0.6 and self.end - self.start > 2 * _DAY:
            first = min(
                first // _DAY * _DAY + int(rng.integers(0, 5 * _HOUR)) + 23 * _HOUR, self.end - 6 * _HOUR
            )
        when = first + np.sort(rng.integers(0, 4 * _HOUR, count))
        where = rng.choice(self.p.merchants, count)
        amount = self.amounts(who, where) * rng.uniform(1.5, 6.0, count)
        return self.batch.add(when, who, where, amount, rng.random(count) < 0.75, "takeover")

    def compromised(self, count: int, since: int, until: int) -> int:
        """A merchant whose customers' cards are abused there for weeks, each once or twice, at ordinary sums."""
        rng = self.rng
        where = int(rng.integers(0, self.p.merchants))
        who = rng.choice(self.p.customers, count, p=self.p.activity)
        when = rng.integers(since, max(since + 1, until), count)
        amount = self.amounts(who, where) * rng.uniform(0.8, 2.0, count)
        return self.batch.add(when, who, where, amount, rng.random(count) < 0.6, "compromised")

    def frauds(self, count: int) -> int:
        """About ``count`` fraudulent rows of the three patterns in even parts."""
        made = 0
        for pattern in (self.card_testing, self.takeover):
            share = 0
            while share < count / 3:
                share += pattern()
            made += share
        while made < count:
            length = min(30 * _DAY, max(1, (self.end - self.start) // 2))
            since = self.moment(length)
            size = int(self.rng.integers(15, 60))
            made += self.compromised(min(size, count - made), since, min(self.end, since + length))
        return made

    def rows(self, prefix: str) -> list[Row]:
        """Everything made so far in order of time, inside the period."""
        columns = [np.concatenate([part[i] for part in self.batch.parts]) for i in range(5)]
        patterns = [pattern for *part, pattern in self.batch.parts for _ in range(len(part[0]))]
        when = np.clip(columns[0], self.start, self.end - 1)
        cents = np.maximum(np.rint(columns[3] * 100), 50).astype(np.int64)
        out: list[Row] = []
        for n, i in enumerate(np.argsort(when, kind="stable").tolist()):
            where, pattern = int(columns[2][i]), patterns[i]
            out.append(
                {
                    "transaction_id": f"{prefix}-{n:08d}",
                    "timestamp": int(when[i]),
                    "amount": int(cents[i]) / 100,
                    "customer_id": f"c{int(columns[1][i]):07d}",
                    "merchant_id": f"m{where:05d}",
                    "category": CATEGORIES[self.p.category[where]],
                    "channel": "online" if columns[4][i] else "pos",
                    "is_fraud": int(pattern in FRAUDS),
                    "pattern": pattern,
                }
            )
        return out


FRAUDS: Final = ("card_testing", "takeover", "compromised")


def population(seed: int, rows: int, days: float) -> Population:
    """Sizes for a natural pace: a customer pays about every third day, a merchant is paid several times a day."""
    customers = max(50, round(rows / max(days, 1) / 0.35))
    return Population.make(seed, customers, max(30, round(customers / 8)))


def simulate(
    rows: int, seed: int, days: int, start_ms: int, fraud_rate: float = 0.01, people: Population | None = None
) -> list[Row]:
    """Exactly ``rows`` transactions over ``days`` from ``start_ms``, sorted by time, about ``fraud_rate`` of them fraud."""
    people = people or population(seed, rows, days)
    maker = _Maker(people, np.random.default_rng([seed, 2]), start_ms, start_ms + days * _DAY)
    left = rows - maker.frauds(max(1, min(rows // 2, round(rows * fraud_rate))))
    sprees = left * 0.04
    while sprees > 0 and left > 8:
        made = maker.spree()
        sprees, left = sprees - made, left - made
    sales = rows * 0.03
    while sales > 0 and left > 100:
        made = maker.sale(int(maker.rng.integers(20, 60)))
        sales, left = sales - made, left - made
    maker.habits(max(0, left))
    return maker.rows(f"s{seed}")[:rows]


def live(
    people: Population, rate: float, seconds: float, start_ms: int, run: int, fraud_rate: float = 0.01
) -> Iterator[Row]:
    """Traffic at ``rate`` per second from ``start_ms``; honest customers take turns, so that none pays in a hurry.

    When all known customers have paid, new ones follow, without a past. Fraud comes in bursts of the first two patterns
    that fit into the time. ``run`` tells ids of two runs apart.
    """
    end_ms = start_ms + max(1, round(seconds * 1000))
    total = max(1, round(rate * seconds))
    maker = _Maker(people, np.random.default_rng([people.seed, 3, run]), start_ms, end_ms)
    rng = maker.rng
    made = 0
    while made < round(total * fraud_rate):
        made += maker.card_testing() if rng.random() < 0.6 else maker.takeover()
    for i, (when, *rest, pattern) in enumerate(maker.batch.parts):
        # Patterns last minutes to hours by nature; here they must fit into the run.
        pressed = when[0] + (when - when[0]) * min(
            1.0, 0.5 * (end_ms - start_ms) / max(1, int(when[-1] - when[0]))
        )
        maker.batch.parts[i] = (np.minimum(pressed.astype(np.int64), end_ms - 1), *rest, pattern)
    count = max(0, total - made)
    turn = np.concatenate(
        [rng.permutation(people.customers), np.arange(people.customers, max(count, people.customers))]
    )[:count]
    known = turn % people.customers  # a new customer has some known one's habits
    where = people.favourites[known, rng.integers(0, people.favourites.shape[1], count)]
    maker.batch.add(
        rng.integers(start_ms, end_ms, count),
        turn,
        where,
        maker.amounts(known, where),
        rng.random(count) < people.online[known],
        "habit",
    )
    yield from maker.rows(f"l{people.seed}-{run}")


def write_csv(rows: list[Row], path: Path) -> None:
    """The history file that training imports; gzip without a time stamp, so that equal rows give equal bytes."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, FIELDS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    data = text.getvalue().encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data, 6, mtime=0) if path.suffix == ".gz" else data)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m fraud_pipelines.simulator", description="Write a labelled history."
    )
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--end-ms", type=int, default=None, help="end of the history; now where absent")
    parser.add_argument("--fraud-rate", type=float, default=0.01)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(argv)
    end_ms = given.end_ms if given.end_ms is not None else int(time.time() * 1000)
    rows = simulate(given.rows, given.seed, given.days, end_ms - given.days * _DAY, given.fraud_rate)
    write_csv(rows, given.out)
    frauds = sum(row["is_fraud"] for row in rows)
    sys.stdout.write(f"{given.out}: {len(rows)} rows, {frauds} fraudulent, {given.days} days\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
