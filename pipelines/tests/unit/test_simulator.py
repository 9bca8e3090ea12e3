"""The simulator: reproducible, in order, in the stated amount, its labels late, and its files can be imported."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from fraud_pipelines.labels import KNOWN, PATTERN
from fraud_pipelines.simulated_payments import Row
from fraud_pipelines.simulated_people import Drift, card_number
from fraud_pipelines.simulator import (
    FIELDS,
    FRAUDS,
    labelled_as_of,
    live,
    main,
    population,
    reports,
    simulate,
)

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
    """About one row in a hundred is fraud, and each of the six patterns has about a sixth of it."""
    rows = simulate(20_000, 1, 60, START)
    frauds = Counter(row["pattern"] for row in rows if row["is_fraud"])
    assert set(frauds) == set(FRAUDS)
    assert 200 <= sum(frauds.values()) <= 240
    assert min(frauds.values()) >= 20


def test_patterns_are_what_they_are_called() -> None:
    """Card testing starts small and quick, a burst is quick, an anomaly is dear, mimicry takes days at favourites."""
    rows = simulate(40_000, 2, 60, START, fraud_rate=0.03)
    usual = float(np.median([row["amount"] for row in rows if row["pattern"] == "habit"]))
    by: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for row in rows:
        of = by.setdefault(row["pattern"], {})
        of.setdefault(row["card"], []).append((row["timestamp"], row["amount"]))

    def gap(pattern: str) -> float:
        """Median minutes between two payments of one card."""
        cases = by[pattern].values()
        return float(np.median([(b - a) / 60_000 for case in cases for (a, _), (b, _) in pairwise(case)]))

    def price(pattern: str) -> float:
        return float(np.median([amount for case in by[pattern].values() for _, amount in case])) / usual

    assert gap("card_testing") < 2
    assert gap("velocity_burst") < 10
    assert gap("slow_mimicry") > 12 * 60
    assert price("card_testing") < 0.5
    assert price("amount_anomaly") > 6
    assert 0.8 < price("slow_mimicry") < 3
    merchants = Counter(row["merchant_id"] for row in rows if row["pattern"] == "compromised_terminal")
    assert min(merchants.values()) >= 5


def test_card_numbers_are_valid_and_one_per_customer() -> None:
    """16 digits, the check digit right, never one number for two customers, whatever the seed."""
    for seed in (0, 7, 10**9):
        numbers = [card_number(seed, customer) for customer in range(20_000)]
        assert len(set(numbers)) == len(numbers)
        for number in numbers[:2_000]:
            doubled = [int(d) * (2 - i % 2) for i, d in enumerate(number)]
            assert len(number) == 16
            assert sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0


def test_no_merchant_has_much_of_the_traffic() -> None:
    """As in card data, the busiest of hundreds of merchants has under 1 %: both doors meet on one key as rarely as there."""
    rows = simulate(30_000, 1, 60, START)
    shares = np.array(sorted(Counter(row["merchant_id"] for row in rows).values())) / len(rows)
    assert len(shares) > 400
    assert shares[-1] < 0.01
    assert float(shares @ shares) < 0.0033


def test_drift_changes_what_comes_after_it() -> None:
    """From its date on honest sums rise and card testing is slower; what is before it stays in distribution."""
    at = START + 30 * DAY
    calm, moved = (simulate(30_000, 3, 60, START, 0.02, drift=Drift(at, f)) for f in (0.0, 1.0))

    def mean(rows: list[Row], after: bool) -> float:
        sums = [r["amount"] for r in rows if r["pattern"] == "habit" and (r["timestamp"] >= at) == after]
        return float(np.mean(sums))

    assert abs(mean(moved, False) / mean(calm, False) - 1) < 0.05
    assert mean(moved, True) / mean(calm, True) > 1.3


def test_labels_come_late_and_are_corrected() -> None:
    """Each source has its own delay; most frauds are reported in the end; a wrong first word is followed by the true one."""
    rows = simulate(20_000, 1, 60, START, fraud_rate=0.05)
    sent_reports = reports(rows, 1)
    assert sent_reports == reports(rows, 1)
    assert [one["sent"] for one in sent_reports] == sorted(one["sent"] for one in sent_reports)
    when = {row["transaction_id"]: row["timestamp"] for row in rows}
    wait = {
        source: np.median([one["sent"] - when[one["id"]] for one in sent_reports if one["source"] == source])
        / DAY
        for source in ("analyst", "chargeback")
    }
    assert 0.1 < wait["analyst"] < 0.6
    assert 2 < wait["chargeback"] < 4
    standing = {one["id"]: one["label"] == "fraud" for one in sent_reports}
    truth = {row["transaction_id"]: bool(row["is_fraud"]) for row in rows}
    assert all(truth[event_id] == fraud for event_id, fraud in standing.items())
    assert 0.9 < sum(standing.values()) / sum(truth.values()) < 1
    assert any(n > 1 for n in Counter(one["id"] for one in sent_reports).values())


def test_a_history_holds_the_labels_reported_by_then() -> None:
    """Frauds not yet reported look honest; the known time lies between the payment and the moment of the export."""
    rows = simulate(20_000, 1, 60, START, fraud_rate=0.05)
    end = START + 60 * DAY
    labelled = labelled_as_of(rows, reports(rows, 1), end)
    late = sum(a["is_fraud"] and not b["is_fraud"] for a, b in zip(rows, labelled, strict=True))
    assert 0 < late < 0.15 * sum(row["is_fraud"] for row in rows)
    assert all(row["timestamp"] < row[KNOWN] <= end for row in labelled if row["is_fraud"])


def test_honest_customers_do_not_hurry_in_live_traffic() -> None:
    """Whatever the rate, an honest customer pays once until all others have; new customers follow."""
    people = population(1, 5_000, 30)
    rows = list(live(people, 50, 20, START, run=1))
    honest = [row["card"] for row in rows if not row["is_fraud"]]
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


def test_what_is_to_judge_by_is_written_only_on_request(tmp_path: Path) -> None:
    """The pattern is a column of its own and in no file that doesn't ask for it; reports are JSON lines."""
    out, report_file = tmp_path / "h.csv", tmp_path / "r.jsonl"
    arguments = ["--rows", "12000", "--end-ms", str(START), "--patterns", "--as-known"]
    assert main([*arguments, "--reports", str(report_file), "--out", str(out)]) == 0
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert tuple(rows[0]) == (*FIELDS, KNOWN, PATTERN)
    assert {row[PATTERN] for row in rows} == {"", *FRAUDS}
    assert {json.loads(line)["source"] for line in report_file.read_text().splitlines()} == {
        "analyst",
        "chargeback",
    }


@pytest.mark.parametrize("option", ["--out", "--reports"])
def test_a_file_that_is_there_is_never_written_over(
    tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may be somebody's history: the command ends before it writes anything, and names it."""
    (tmp_path / "mine.csv").write_text("years of payments")
    others = {"--out": "out.csv", "--reports": "reports.jsonl", option: "mine.csv"}
    arguments = [part for name, file in others.items() for part in (name, str(tmp_path / file))]
    with pytest.raises(SystemExit):
        main(["--rows", "100", *arguments])
    assert "mine.csv is there already" in capsys.readouterr().err
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"mine.csv": "years of payments"}


@pytest.mark.parametrize("option", ["--out", "--reports"])
@pytest.mark.parametrize("place", ["file/below/it", "link", "same"])
def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    tmp_path: Path, option: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Below a file, through a link that leads nowhere yet, or one place for both: the command names it and writes nothing."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    others = {"--out": "same", "--reports": "same"} if place == "same" else {"--out": "o", "--reports": "r"}
    others[option] = place
    arguments = [part for name, file in others.items() for part in (name, str(tmp_path / file))]
    with pytest.raises(SystemExit):
        main(["--rows", "100", *arguments])
    assert str(tmp_path / place.partition("/")[0]) in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


def test_folders_of_both_files_are_made(tmp_path: Path) -> None:
    """That of the reports, too."""
    out, report_file = tmp_path / "a" / "h.csv", tmp_path / "b" / "r.jsonl"
    assert (
        main(["--rows", "100", "--end-ms", str(START), "--reports", str(report_file), "--out", str(out)]) == 0
    )
    assert out.exists()
    assert report_file.exists()
