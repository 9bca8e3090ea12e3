"""Import of history: every kind of file, and every bad row counted under its reason."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from fraud_contracts.detector import DetectorSpec, parse_spec
from fraud_pipelines.events import Tokeniser
from fraud_ray import history
from fraud_ray.errors import TrainingError
from fraud_ray.training_history import TrainingHistory

NOW = 1_790_000_000_000
DAY = 86_400_000
TOKENS = Tokeniser(bytes(32))
HEADER = "id,time,amount,card,shop,is_fraud"


def spec(**event: Any) -> DetectorSpec:
    return parse_spec(
        {
            "event": {
                "id": {"field": "id"},
                "time": {"field": "time"},
                "amount": {"field": "amount"},
                "sensitive": ["card"],
                **event,
            },
            "entities": [
                {"name": "customer", "field": "card"},
                {"name": "counterparty", "field": "shop", "labelDelay": "7d"},
            ],
        }
    )


def write(folder: Path, name: str, *lines: str) -> None:
    (folder / "history").mkdir(exist_ok=True)
    data = "\n".join((HEADER, *lines, "")).encode()
    (folder / "history" / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)


def load(folder: Path, by: DetectorSpec | None = None) -> TrainingHistory:
    return history.load(by or spec(), f"file://{folder}", TOKENS, NOW)


def test_files_of_all_kinds_make_one_history_in_order_of_time(tmp_path: Path) -> None:
    """CSV, gzipped CSV and Parquet rows, in whatever order, come out by time, tokenised, with exact amounts."""
    write(tmp_path, "b.csv", f"a3,{NOW - 1000},8.27,4000,corner,0")
    write(tmp_path, "a.csv.gz", f"a1,{NOW - 3000},1,4000,corner,1")
    table = {
        "id": ["a2"],
        "time": [datetime.fromtimestamp((NOW - 2000) / 1000, UTC)],
        "amount": [Decimal("2.50")],
        "card": [4000],
        "shop": ["corner"],
        "is_fraud": [False],
    }
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "history" / "c.parquet")
    (tmp_path / "history" / "notes.txt").write_text("not history")
    (tmp_path / "history" / "_SUCCESS.csv").write_text("")
    imported = load(tmp_path)
    assert [event["id"] for event in imported.events] == ["a1", "a2", "a3"]
    assert [event["amount"] for event in imported.events] == [100, 250, 827]
    assert imported.fraud.tolist() == [True, False, False]
    assert {event["entities"]["customer"] for event in imported.events} == {TOKENS.token("card", "4000")}
    assert imported.files == {"a.csv.gz": 1, "b.csv": 1, "c.parquet": 1}
    assert not imported.refused


def test_labels_are_known_after_the_delay_unless_the_file_says_when(tmp_path: Path) -> None:
    """Without a known column a label counts from the longest label delay on; the labels come in that order."""
    write(tmp_path, "a.csv", f"a1,{NOW - 9 * DAY},1,c,s,1", f"a2,{NOW - 8 * DAY},1,c,s,1")
    assert [label["known"] for label in load(tmp_path).labels()] == [NOW - 2 * DAY, NOW - DAY]
    text = f"{HEADER},known\na1,{NOW - 9 * DAY},1,c,s,1,{NOW - DAY}\na2,{NOW - 8 * DAY},1,c,s,1,{NOW - 3 * DAY}\n"
    (tmp_path / "history" / "a.csv").write_text(text)
    assert [label["id"] for label in load(tmp_path).labels()] == ["a2", "a1"]


def test_bad_rows_are_counted_and_shown(tmp_path: Path) -> None:
    """Each refused row has a reason; an example names file, line and field, never the value."""
    write(
        tmp_path,
        "a.csv",
        f"a1,{NOW},8.27,4000,corner,0",
        f"a1,{NOW},8.27,4000,corner,0",
        f"a1,{NOW},9.99,4000,corner,0",
        f"a2,{NOW},secret,4000,corner,0",
        f"a3,{NOW},1.234,4000,corner,0",
        f"a4,{NOW + DAY},1,4000,corner,0",
        f"a5,{NOW},1,,corner,0",
        f"a6,{NOW},1,4000,corner,maybe",
        "a7",
    )
    imported = load(tmp_path)
    assert len(imported.events) == 1
    assert imported.refused == {
        "repeat": 1,
        "id_reused": 1,
        "wrong_type": 1,
        "invalid_amount": 1,
        "time_in_future": 1,
        "missing_field": 1,
        "missing_cells": 1,
        "invalid_label": 1,
    }
    assert "a.csv line 5: amount must be a number" in imported.examples
    assert "secret" not in str(imported.examples)


@pytest.mark.parametrize("name", [None, "notes.txt", "a.csv"])
def test_no_usable_history_is_an_error(tmp_path: Path, name: str | None) -> None:
    """No folder, no file of a known kind, or no good row: the error says what to do."""
    if name:
        write(tmp_path, name, "x,y,z")
    with pytest.raises(TrainingError) as caught:
        load(tmp_path)
    assert caught.value.reason == "NoHistory"


def test_rows_of_another_currency_are_refused(tmp_path: Path) -> None:
    """Amounts of other currencies than the detector's are counted as wrong_currency and never added up."""
    (tmp_path / "history").mkdir()
    rows = "".join(
        f"a{i},{NOW - 1000},{amount},c,s,0,{currency}\n"
        for i, (amount, currency) in enumerate([(10000, "JPY"), (100, "EUR"), (12.345, "KWD"), (5, "ZZZ")])
    )
    (tmp_path / "history" / "a.csv").write_text(f"{HEADER},cur\n{rows}")
    event = {"amount": {"field": "amount", "currency": "EUR", "currencyField": "cur"}}
    imported = load(tmp_path, spec(**event))
    assert [(e["amount"], e["currency"]) for e in imported.events] == [(10_000, "EUR")]
    assert imported.refused == {"wrong_currency": 3}


def test_a_broken_file_ends_the_import(tmp_path: Path) -> None:
    """A file that can't be read ends the run, instead of training on what was left of it."""
    write(tmp_path, "a.csv.gz", f"a1,{NOW},1,c,s,0")
    path = tmp_path / "history" / "a.csv.gz"
    path.write_bytes(path.read_bytes()[:-12])
    (tmp_path / "history" / "b.parquet").write_bytes(b"no parquet")
    with pytest.raises(TrainingError) as caught:
        load(tmp_path)
    assert caught.value.reason == "HistoryUnreadable"
