"""Files are read as they are meant, or refused: what looks like a row and isn't one never shifts its cells."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from fraud_testing.history_files import HEADER, NOW, load, refusal, row, text

DATA = Path(__file__).parents[1] / "data"


@pytest.mark.parametrize(
    ("case", "reason"),
    [("03-extra-cell.csv", "surplus_cells"), ("03-backslash-quote.csv", "broken_quotes")],
)
def test_a_comma_or_a_quote_that_is_not_quoted_never_moves_the_label(
    tmp_path: Path, case: str, reason: str
) -> None:
    """A fraud whose merchant holds a bare comma, or Spark's backslash quotes, is refused and counted with its line, not
    taken for honest because another column moved to the label's place."""
    imported = load(tmp_path, {case: (DATA / case).read_bytes(), "good.csv": text(row(9))})
    assert [event["id"] for event in imported.events] == ["t9"]
    assert imported.refused == {reason: 1}
    assert imported.examples[0].startswith(f"{case} line 2: ")


def test_a_row_with_too_few_cells_is_refused(tmp_path: Path) -> None:
    """What it lacks is nobody's to guess, wherever the cells are missing."""
    imported = load(tmp_path, {"a.csv": text("t1,1780000000000,12.50,4000001,m-1,1", row(2))})
    assert ([event["id"] for event in imported.events], imported.refused) == (["t2"], {"missing_cells": 1})
    assert imported.examples == ["a.csv line 2: 6 cells where the header has 7"]


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param((row(1, '"Joe'), row(2), row(3, 'Bob 24"')), id="a later quote ends it"),
        pytest.param((row(1, '"Joe'), row(2), row(3, '"Bob"')), id="another quoted cell"),
        pytest.param((row(1, '"Joe'), row(2), row(3)), id="the end of the file"),
        pytest.param((row(1, '"Joe\\""'), row(2), row(3, 'Bob 24"')), id="a backslash before it"),
        pytest.param((row(1, '"Joe'), row(2, "A, B"), row(3, 'C, D"', 1)), id="a comma more in each"),
        pytest.param((row(1, '"Joe'), row(2, "A, B"), f't3,{NOW},12.50,4000001,Bob",1'), id="a cell fewer"),
        pytest.param((row(1, '"Joe'), f"t2,{NOW},1,4,m-1,0", row(3, 'C, D"', 1)), id="fewer and more"),
    ],
)
def test_rows_swallowed_by_a_quote_are_counted(tmp_path: Path, rows: tuple[str, ...]) -> None:
    """A quote that nothing closes takes the rows after it into its cell: each counts as refused, and none gets another's label."""
    imported = load(tmp_path, {"a.csv": text(row(0, fraud=1), *rows, row(4))})
    assert {event["id"] for event in imported.events} <= {"t0", "t4"}
    assert len(imported.events) + sum(imported.refused.values()) == imported.files["a.csv"] == 5
    assert imported.fraud[0]


def test_a_cell_of_several_lines_is_a_cell(tmp_path: Path) -> None:
    """Properly quoted commas, quotes and line ends are read as they are meant; a header may be quoted, too."""
    header = ",".join(f'"{name}"' for name in HEADER.split(","))
    name = '"Joe ""the"" Diner,\nInc\n"'
    imported = load(tmp_path, {"a.csv": "\n".join((header, row(1, name, 1), row(2), "")).encode()})
    assert ([event["id"] for event in imported.events], imported.fraud.tolist()) == (
        ["t1", "t2"],
        [True, False],
    )
    assert not imported.refused


@pytest.mark.parametrize("name", ["12 High St\nLondon, UK", "A, B\r\nC, D, E\r\nF", "a\rb"])
def test_an_address_of_several_lines_is_a_cell(tmp_path: Path, name: str) -> None:
    """Lines that couldn't be rows, for all their commas, belong to the quoted cell; so do other line ends."""
    imported = load(tmp_path, {"a.csv": text(row(1, f'"{name}"', 1), row(2))})
    assert (imported.fraud.tolist(), imported.refused) == ([True, False], {})


def test_an_early_column_swallows_no_rows(tmp_path: Path) -> None:
    """There most of the first row lies in the cell, and little of the last; lacking cells hide them no better."""
    header = "transaction_id,merchant_name,timestamp,amount,card,merchant_id,is_fraud"
    joined = [
        (f't1,"Joe,{NOW},1,4,m,0', f't2,""x\ny",{NOW},1,4,m,1'),
        (f't3,"Joe,{NOW},1,4,m,0', f'Inc",{NOW},1,4,m,1'),
        (f't4,"Joe,{NOW},1,4,0', f'Inc",{NOW},1,4,m,1'),
    ]
    rows = [f"t0,Bob,{NOW},1,4,m,0", *(line for pair in joined for line in pair), f"t5,Bob,{NOW},1,4,m,0"]
    imported = load(tmp_path, {"a.csv": "\n".join([header, *rows, ""]).encode()})
    assert [event["id"] for event in imported.events] == ["t0", "t5"]
    assert imported.refused == {"broken_quotes": 7}


def test_a_quoted_second_column_of_several_lines_is_a_cell(tmp_path: Path) -> None:
    """Its last line holds all but one of the row's cells and is no row for that."""
    first, *others = HEADER.split(",")
    header = f"{first},note,{','.join(others)}"
    line = row(1, fraud=1).replace("t1,", 't1,"Flat 3, 12 High St\nLondon, UK",')
    imported = load(tmp_path, {"a.csv": f"{header}\n{line}\n".encode()})
    assert (imported.fraud.tolist(), imported.refused) == ([True], {})


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    """Spreadsheets write one before the first column's name."""
    assert len(load(tmp_path, {"a.csv": b"\xef\xbb\xbf" + text(row(1))}).events) == 1


def test_a_repeated_column_is_refused_by_name(tmp_path: Path) -> None:
    """Which of the two amounts was meant can't be known, in CSV or in Parquet."""
    case = "05-column-twice.csv"
    assert (
        refusal(tmp_path / "a", {case: (DATA / case).read_bytes()}) == f"{case} has the column amount twice"
    )
    (tmp_path / "b" / "history").mkdir(parents=True)
    names = HEADER.replace("merchant_name", "amount").split(",")
    columns = [pyarrow.array([value]) for value in ("t1", NOW, 12.5, "4", "m", 777.0, True)]
    table = pyarrow.Table.from_arrays(columns, names=names)
    pyarrow.parquet.write_table(table, tmp_path / "b" / "history" / "a.parquet")
    assert refusal(tmp_path / "b", {}) == "a.parquet has the column amount twice"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (text(row(1)).replace(b",", b";"), "transaction_id, timestamp, amount, card, is_fraud"),
        (text(row(1)).replace(b"amount", b"Amount"), "lacks the columns amount"),
        (b"", "a.csv is empty"),
        (text(), "a.csv"),
        (text(row(1)).decode().encode("utf-16-le"), "lacks the columns"),
        (text(row(1)).decode().encode("utf-16"), "a.csv can't be read"),
    ],
)
def test_a_file_that_is_no_table_of_the_event_is_refused_with_what_it_lacks(
    tmp_path: Path, data: bytes, message: str
) -> None:
    """Another delimiter, names written otherwise, nothing at all, only a header, another encoding: the error names the file."""
    assert message in refusal(tmp_path, {"a.csv": data})


def test_a_bad_file_beside_good_ones_is_no_gap(tmp_path: Path) -> None:
    """The import ends, instead of training on the others."""
    assert "b.csv lacks the columns" in refusal(tmp_path, {"a.csv": text(row(1)), "b.csv": b"x,y\n1,2\n"})


def test_a_row_with_a_nul_byte_is_refused(tmp_path: Path) -> None:
    """Of a write that broke off, say; whatever cell it lies in."""
    imported = load(tmp_path, {"a.csv": text(row(1, "B\0b"), row(2), "\0" * 100)})
    assert (len(imported.events), imported.refused) == (1, {"nul_byte": 2})


def test_a_compressed_file_that_ends_early_names_the_line(tmp_path: Path) -> None:
    """However many of its rows can still be read."""
    data = gzip.compress(text(*(row(n) for n in range(900))))
    assert "a.csv.gz can't be read after line " in refusal(tmp_path, {"a.csv.gz": data[: len(data) // 2]})


def test_a_parquet_file_that_lacks_a_column_is_refused(tmp_path: Path) -> None:
    """As a CSV file is."""
    (tmp_path / "history").mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "history" / "a.parquet")
    assert "a.parquet lacks the columns transaction_id" in refusal(tmp_path, {})


def test_files_of_one_name_in_two_folders_are_both_read(tmp_path: Path) -> None:
    """Warehouses write a folder a month, each with its part-0."""
    imported = load(tmp_path, {"may/p.csv": text(row(1)), "june/p.csv": text(row(2), row(3))})
    assert imported.files == {"june/p.csv": 2, "may/p.csv": 1}


def test_a_delta_table_is_refused(tmp_path: Path) -> None:
    """Its folder keeps files of rows that were changed or deleted since; only its log knows which."""
    assert "Delta" in refusal(tmp_path, {"t/a.csv": text(row(1)), "t/_delta_log/00000.json": b"{}"})


def copies(*labels: tuple[int, int | None]) -> dict[str, bytes]:
    """One payment in several copies of a table, a file each: its label, and when that became known."""
    files = {}
    for n, (fraud, known_at) in enumerate(labels):
        line = f"{row(1, fraud=fraud)},{'' if known_at is None else NOW + known_at}"
        files[f"{n}.csv"] = f"{HEADER},known\n{line}\n".encode()
    return files


@pytest.mark.parametrize(
    ("labels", "fraud", "known_at"),
    [
        pytest.param(((0, 10), (1, 20)), True, 20, id="reported later"),
        pytest.param(((1, 20), (0, 10)), True, 20, id="in whatever order the copies lie"),
        pytest.param(((1, 20), (0, 30)), False, 30, id="taken back"),
        pytest.param(((1, 20), (1, 10)), True, 10, id="two reports of one fraud: from the first on"),
        pytest.param(((1, 5), (0, 10), (1, 20)), True, 20, id="taken back and reported again"),
        pytest.param(((1, 20), (0, 10), (1, 5)), True, 20, id="the same, backwards"),
        pytest.param(((0, None), (1, 20)), True, 20, id="undated, then dated"),
        pytest.param(((1, 20), (0, None)), True, 20, id="an undated label is older than a dated one"),
    ],
)
def test_the_label_that_became_known_last_stands(
    tmp_path: Path, labels: tuple[tuple[int, int | None], ...], fraud: bool, known_at: int
) -> None:
    """Copies of a table give a payment different labels: the last one stands, the others are counted."""
    imported = load(tmp_path, copies(*labels))
    assert (imported.fraud.tolist(), imported.known_at.tolist()) == ([fraud], [NOW + known_at])
    assert sum(imported.refused.values()) == len(labels) - 1
    changed = len({fraud for fraud, _ in labels}) > 1
    assert bool(imported.refused["label_changed"]) == changed


def test_without_dates_the_later_rows_label_stands(tmp_path: Path) -> None:
    """Honest in the first copy, fraud in the second: a fraud, and the change is counted."""
    case = "04-label-changed.csv"
    imported = load(tmp_path, {case: (DATA / case).read_bytes()})
    assert (imported.fraud.tolist(), imported.refused) == ([True], {"label_changed": 1})
    assert imported.examples == [
        f"{case} line 3: the id was seen before with another label; the later word holds"
    ]
    assert [label["id"] for label in imported.labels()] == ["t1"]


def test_labels_as_words_are_read_or_refused(tmp_path: Path) -> None:
    """True and false in their usual spellings; any other word is nobody's label."""
    lines = [
        f"t{n},{NOW},1,4,m,Bob,{word}" for n, word in enumerate(("TRUE", "f", "yes", "0.0", "fraud", ""))
    ]
    imported = load(tmp_path, {"a.csv": text(*lines)})
    assert (imported.fraud.tolist(), imported.refused) == ([True, False, True, False], {"invalid_label": 2})


def test_another_body_under_one_id_is_counted_and_the_first_is_kept(tmp_path: Path) -> None:
    """It is another payment: its label says nothing of the first one."""
    other = row(1, fraud=1).replace("12.50", "99.00")
    imported = load(tmp_path, {"a.csv": text(row(1), other)})
    assert (imported.fraud.tolist(), imported.refused) == ([False], {"id_reused": 1})


@pytest.mark.parametrize("before", ["\n\n", "\r\n", "  \n", ",,,\n", "\ufeff\n"])
def test_empty_lines_before_the_header_are_passed_over(tmp_path: Path, before: str) -> None:
    """As those between rows are; a refused row has the file's own line number."""
    imported = load(tmp_path, {"a.csv": before.encode() + text(row(1), "t2")})
    assert ([event["id"] for event in imported.events], imported.refused) == (["t1"], {"missing_cells": 1})
    assert imported.examples[0].startswith(f"a.csv line {3 + before.count(chr(10))}: ")


def test_a_file_of_empty_lines_is_empty(tmp_path: Path) -> None:
    """The error says so, instead of listing what its header lacks."""
    assert "a.csv is empty" in refusal(tmp_path, {"a.csv": b"\n \n,,\n"})


def test_hidden_files_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Files and folders that begin with _ or . are left out, as warehouses expect, but not without a word."""
    hidden = {"_a.csv": text(row(1)), ".b.parquet": b"", "_old/c.csv.gz": b"", "_SUCCESS": b""}
    message = refusal(tmp_path, hidden)
    assert "3 are left out whose name or folder begins with _ or ." in message
    assert len(load(tmp_path, {"a.csv": text(row(2))}).events) == 1
    warnings = [record.__dict__["data"] for record in caplog.records if "begins with" in record.message]
    assert warnings == [{"files": 3}, {"files": 3}]
