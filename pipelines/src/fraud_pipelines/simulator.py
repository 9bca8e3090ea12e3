"""Labelled payments that look like a bank's: people with habits, merchants, six kinds of fraud, and labels that come late.

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
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypedDict

import numpy as np

from fraud_contracts import outputs
from fraud_pipelines.labels import KNOWN, PATTERN
from fraud_pipelines.simulated_payments import DAY, FRAUDS, HOUR, Payments, Row
from fraud_pipelines.simulated_people import NO_DRIFT, Drift, Population

FIELDS: Final = (
    "transaction_id",
    "timestamp",
    "amount",
    "card",
    "merchant_id",
    "category",
    "channel",
    "is_fraud",
)
# Median days until a source speaks; the spread is that of a log-normal distribution.
DELAYS: Final[Mapping[str, float]] = {"chargeback": 3.0, "analyst": 0.25}
_DELAY_SPREAD: Final = 0.6
_BY_ANALYST: Final = 0.35  # of the frauds; the rest is heard of by a chargeback
_NEVER: Final = 0.02  # of the frauds; nobody ever reports them
_MISJUDGED: Final = 0.05  # of the analyst's first words, both ways; the true word follows
_SUSPECTED: Final = 0.002  # of the honest payments; an analyst looks at them
# A run of minutes has no room for the patterns that take weeks.
_QUICK: Final = ("card_testing", "account_takeover", "velocity_burst", "amount_anomaly")


class SentReport(TypedDict):
    """A label report, as ``POST /v1/labels`` takes it, with the time at which it is sent."""

    id: str
    label: str
    source: str
    claimed: int
    sent: int


def population(seed: int, rows: int, days: float) -> Population:
    return Population.natural(seed, rows, days)


def simulate(
    rows: int,
    seed: int,
    days: int,
    start_ms: int,
    fraud_rate: float = 0.01,
    people: Population | None = None,
    drift: Drift = NO_DRIFT,
) -> list[Row]:
    """Exactly ``rows`` transactions over ``days`` from ``start_ms``, sorted by time, about ``fraud_rate`` of them fraud."""
    people = people or population(seed, rows, days)
    maker = Payments(people, np.random.default_rng([seed, 2]), start_ms, start_ms + days * DAY, drift)
    rows_left = rows - maker.frauds(max(1, min(rows // 2, round(rows * fraud_rate))))
    for share, case in ((0.04, maker.spree), (0.03, maker.sale)):
        wanted_rows = rows_left * share
        while wanted_rows > 0 and rows_left > 100:
            added = case()
            wanted_rows, rows_left = wanted_rows - added, rows_left - added
    maker.habits(max(0, rows_left))
    return maker.rows(f"s{seed}")[:rows]


def live(
    people: Population, rate: float, seconds: float, start_ms: int, run: int, fraud_rate: float = 0.01
) -> Iterator[Row]:
    """Traffic at ``rate`` per second from ``start_ms``; honest customers take turns, so that none pays in a hurry.

    When all customers of ``people`` have paid, new ones without a past follow. Of the frauds there are the patterns that
    last minutes to hours, compressed into the time. ``run`` tells ids of two runs apart.
    """
    end_ms = start_ms + max(1, round(seconds * 1000))
    total = max(1, round(rate * seconds))
    maker = Payments(people, np.random.default_rng([people.seed, 3, run]), start_ms, end_ms)
    rng = maker.rng
    fraud_rows = 0
    while fraud_rows < round(total * fraud_rate):
        fraud_rows += int(getattr(maker, _QUICK[int(rng.integers(0, len(_QUICK)))])())
    for i, (when, *rest, pattern) in enumerate(maker.parts):
        scale = min(1.0, 0.5 * (end_ms - start_ms) / max(1, int(when[-1] - when[0])))
        pressed = when[0] + (when - when[0]) * scale
        maker.parts[i] = (np.minimum(pressed.astype(np.int64), end_ms - 1), *rest, pattern)
    count = max(0, total - fraud_rows)
    turn = np.concatenate(
        [rng.permutation(people.customers), np.arange(people.customers, max(count, people.customers))]
    )[:count]
    habits_of = turn % people.customers  # a new customer has the habits of an earlier one
    where = people.favourites[habits_of, rng.integers(0, people.favourites.shape[1], count)]
    maker.add(
        rng.integers(start_ms, end_ms, count),
        turn,
        where,
        maker.amounts(habits_of, where),
        rng.random(count) < people.online[habits_of],
        "habit",
    )
    yield from maker.rows(f"l{people.seed}-{run}")


def reports(rows: Sequence[Row], seed: int, delays: Mapping[str, float] = DELAYS) -> list[SentReport]:
    """The reports of analysts and card holders on the rows, in the order in which they are sent, each after its source's delay.

    Some frauds nobody reports. An analyst errs at times; a second report then corrects the first.
    """
    rng = np.random.default_rng([seed, 4])
    sent_reports: list[SentReport] = []

    def send(row: Row, fraud: bool, source: str, since: int) -> int:
        wait = delays[source] * float(np.exp(rng.normal(0.0, _DELAY_SPREAD)))
        sent = since + max(1, round(wait * DAY))
        label = "fraud" if fraud else "legitimate"
        sent_reports.append(
            {
                "id": row["transaction_id"],
                "label": label,
                "source": source,
                "claimed": sent - HOUR,
                "sent": sent,
            }
        )
        return sent

    for row, drawn in zip(rows, rng.random(len(rows)).tolist(), strict=True):
        fraud, when = bool(row["is_fraud"]), row["timestamp"]
        if not fraud and drawn >= _SUSPECTED:
            continue
        if fraud and drawn < _NEVER:
            continue
        if fraud and drawn >= _NEVER + _BY_ANALYST:
            send(row, True, "chargeback", when)
            continue
        right = rng.random() >= _MISJUDGED
        first = send(row, fraud == right, "analyst", when)
        if not right:
            send(row, fraud, "chargeback" if fraud else "analyst", first)
    return sorted(sent_reports, key=lambda one: (one["sent"], one["id"]))


def labelled_as_of(
    rows: Sequence[Row], sent_reports: Sequence[SentReport], at_ms: int
) -> list[dict[str, Any]]:
    """The rows as a bank's history has them at ``at_ms``: with the label that stands by then, and when it became known."""
    standing: dict[str, SentReport] = {}
    for one in sent_reports:
        if one["sent"] <= at_ms:
            before = standing.get(one["id"])
            if before is None or before["label"] != one["label"]:
                standing[one["id"]] = one
    labelled = []
    for row in rows:
        label = standing.get(row["transaction_id"])
        fraud = label is not None and label["label"] == "fraud"
        known_at = label["sent"] if label is not None and fraud else ""
        labelled.append({**row, "is_fraud": int(fraud), KNOWN: known_at})
    return labelled


def write_csv(
    rows: Sequence[Mapping[str, Any]], path: Path, known_times: bool = False, patterns: bool = False
) -> None:
    """The history file that training imports; gzip without a time stamp, so that equal rows give equal bytes."""
    text = io.StringIO(newline="")
    fields = [*FIELDS, *([KNOWN] if known_times else []), *([PATTERN] if patterns else [])]
    writer = csv.DictWriter(text, fields, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    if patterns:
        rows = [{**row, PATTERN: row["pattern"] if row["pattern"] in FRAUDS else ""} for row in rows]
    writer.writerows(rows)
    data = text.getvalue().encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data, 6, mtime=0) if path.suffix == ".gz" else data)


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m fraud_pipelines.simulator", description="Write a labelled history."
    )
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--end-ms", type=int, default=None, help="end of the history; now where absent")
    parser.add_argument("--fraud-rate", type=float, default=0.01)
    parser.add_argument("--drift", type=float, default=0.0, help="how much behaviour changes: 0 none, 1 much")
    parser.add_argument(
        "--drift-at", type=float, default=0.5, help="when, as a part of the days (default 0.5)"
    )
    parser.add_argument(
        "--as-known", action="store_true", help="labels as they are known at the end, with when"
    )
    parser.add_argument("--patterns", action="store_true", help=f"add the column {PATTERN}, to judge by")
    parser.add_argument("--reports", type=Path, help="write the label reports here, one JSON object a line")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    for path in (options.out, options.reports):
        if path is None:
            continue
        if path.exists() or path.is_symlink():
            parser.error(f"{path} is there already: remove it or give another name")
        file = outputs.in_the_way(path)
        if file is not None:
            parser.error(f"{file} is no folder")
    if options.reports is not None and options.reports.resolve() == options.out.resolve():
        parser.error(f"{options.out} can't be both: give --reports another name")
    return options


def main(argv: list[str] | None = None) -> int:
    options = _options(argv)
    end_ms = options.end_ms if options.end_ms is not None else int(time.time() * 1000)
    start_ms = end_ms - options.days * DAY
    drift = Drift(start_ms + round(options.drift_at * options.days * DAY), options.drift)
    rows = simulate(options.rows, options.seed, options.days, start_ms, options.fraud_rate, drift=drift)
    sent_reports = reports(rows, options.seed)
    history: Sequence[Mapping[str, Any]] = (
        labelled_as_of(rows, sent_reports, end_ms) if options.as_known else rows
    )
    write_csv(history, options.out, known_times=options.as_known, patterns=options.patterns)
    if options.reports is not None:
        options.reports.parent.mkdir(parents=True, exist_ok=True)
        options.reports.write_text("".join(json.dumps(one) + "\n" for one in sent_reports))
    frauds = sum(row["is_fraud"] for row in rows)
    sys.stdout.write(f"{options.out}: {len(rows)} rows, {frauds} fraudulent, {options.days} days\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
