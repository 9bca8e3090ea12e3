"""The simulator: reproducible, in order, in the stated amount, and its files can be imported."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

from fraud_pipelines.simulator import FIELDS, FRAUDS, live, main, population, simulate

START = 1_780_000_000_000
DAY = 86_400_000


def test_equal_arguments_give_equal_rows() -> None:
    """Seeds decide everything; another seed gives other payments."""
    assert simulate(2_000, 3, 20, START) == simulate(2_000, 3, 20, START)
    assert simulate(2_000, 3, 20, START) != simulate(2_000, 4, 20, START)


def test_a_history_is_whole() -> None:
    """Rows are as many as asked, in order of time, inside the period, with unique ids and exact cents."""
    rows = simulate(5_000, 1, 30, START)
    times = [row["timestamp"] for row in rows]
    assert len(rows) == 5_000
    assert times == sorted(times)
    assert times[0] >= START
    assert times[-1] < START + 30 * DAY
    assert len({row["transaction_id"] for row in rows}) == 5_000
    assert all(round(row["amount"] * 100) / 100 == row["amount"] > 0 for row in rows)


def test_each_pattern_of_fraud_occurs() -> None:
    """About one row in a hundred is fraud, and every pattern has its part."""
    rows = simulate(20_000, 1, 60, START)
    frauds = [row for row in rows if row["is_fraud"]]
    assert 180 <= len(frauds) <= 230
    for pattern in FRAUDS:
        assert sum(row["pattern"] == pattern for row in frauds) >= 40


def test_honest_customers_do_not_hurry_in_live_traffic() -> None:
    """Whatever the rate, an honest customer pays once until all others have; new customers follow."""
    people = population(1, 5_000, 30)
    rows = list(live(people, 50, 20, START, run=1))
    honest = [row["customer_id"] for row in rows if not row["is_fraud"]]
    assert len(rows) == 1_000
    assert len(set(honest)) == len(honest)
    assert any(row["is_fraud"] for row in rows)
    assert all(START <= row["timestamp"] < START + 20_000 for row in rows)
    assert not {row["transaction_id"] for row in live(people, 50, 20, START, run=2)} & {
        row["transaction_id"] for row in rows
    }


def test_the_file_is_what_training_reads(tmp_path: Path) -> None:
    """The command writes a gzipped CSV with the documented columns, byte for byte the same each time."""
    first, second = tmp_path / "a" / "h.csv.gz", tmp_path / "b.csv.gz"
    for path in (first, second):
        assert (
            main(["--rows", "500", "--seed", "5", "--days", "10", "--end-ms", str(START), "--out", str(path)])
            == 0
        )
    assert first.read_bytes() == second.read_bytes()
    rows = list(csv.DictReader(io.StringIO(gzip.decompress(first.read_bytes()).decode())))
    assert tuple(rows[0]) == FIELDS
    assert len(rows) == 500
