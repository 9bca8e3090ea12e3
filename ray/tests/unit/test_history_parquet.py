"""What is read of a Parquet file: rows, dates and labels of whatever type means one, and nothing of columns nobody needs."""

from __future__ import annotations

import io
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from fraud_testing.history_files import HEADER, NOW, load, row, text


def parquet(**columns: Any) -> bytes:
    """Two payments, the first of them a fraud, with these columns instead or beside."""
    table = {
        "transaction_id": ["t1", "t2"],
        "timestamp": [NOW - 2_000, NOW - 1_000],
        "amount": [12.5, 12.5],
        "card": ["4", "4"],
        "merchant_id": ["m", "m"],
        "merchant_name": ["Bob", "Bob"],
        "is_fraud": [1, 0],
    }
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({**table, **columns}), sink)
    return sink.getvalue()


LATE = 253_402_300_800_000_000  # the year 10000, in microseconds
BEYOND_PYTHON = [
    pytest.param(pyarrow.array([0, LATE], pyarrow.timestamp("us")), id="year 10000"),
    pytest.param(pyarrow.array([0, 3_000_000], pyarrow.date32()), id="date"),
    pytest.param(pyarrow.array([0, 2**62], pyarrow.duration("s")), id="duration"),
    pytest.param(pyarrow.array([0, 1], pyarrow.timestamp("us", "Mars/Base")), id="zone"),
    pytest.param(
        pyarrow.StructArray.from_arrays([pyarrow.array([1, 2]), pyarrow.array([3, 4])], names=["x", "x"]),
        id="a name twice",
    ),
]


@pytest.mark.parametrize("values", BEYOND_PYTHON)
def test_parquet_columns_that_nobody_needs_are_not_read(tmp_path: Path, values: pyarrow.Array) -> None:
    """Whatever they hold, the payments are."""
    imported = load(tmp_path, {"a.parquet": parquet(**{"merchant_name": values, "timestamp.x": values})})
    assert (imported.fraud.tolist(), imported.refused) == ([True, False], {})


@pytest.mark.parametrize("column", ["timestamp", "merchant_id", "known"])
def test_a_parquet_row_that_no_python_value_can_hold_is_refused(tmp_path: Path, column: str) -> None:
    """It counts with its column's name, and the rows beside it are read."""
    times = pyarrow.array(
        [(NOW - 1) * 1000 if column != "merchant_id" else None, LATE], pyarrow.timestamp("us", "UTC")
    )
    imported = load(tmp_path, {"a.parquet": parquet(**{column: times})})
    assert (imported.fraud.tolist(), imported.refused) == ([True], {"unreadable_value": 1})
    assert imported.examples == [f"a.parquet row 2: {column} holds what can't be read"]


def test_parquet_times_finer_than_a_microsecond_are_times(tmp_path: Path) -> None:
    """As a data frame writes them; digits below the millisecond are cut."""
    times = pyarrow.array(
        [(NOW - 1) * 10**6 + 5, (NOW - 1) * 10**6 + 999_999], pyarrow.timestamp("ns", "UTC")
    )
    imported = load(tmp_path, {"a.parquet": parquet(timestamp=times, known=times)})
    assert [event["time"] for event in imported.events] == imported.known_at.tolist() == [NOW - 1, NOW - 1]


@pytest.mark.parametrize("cell", ["9" * 5_000, "9" * 30, "253402300800000", "١٧٩٠٠٠٠٠٠٠٠٠٠", "0x10", "1.5"])
def test_a_date_that_is_none_is_refused(tmp_path: Path, cell: str) -> None:
    """Too long, after the year 9999, of other digits, or no number: the row counts as invalid_known."""
    lines = (f"{HEADER},known", f"{row(1)},{cell}", f"{row(2)},", "")
    imported = load(tmp_path, {"a.csv": "\n".join(lines).encode()})
    assert ([event["id"] for event in imported.events], imported.refused) == (["t2"], {"invalid_known": 1})


def test_whole_floats_are_dates(tmp_path: Path) -> None:
    """A data frame makes floats of a column with gaps, and nan of a gap."""
    lines = (f"{HEADER},known", f"{row(1)},{NOW}.0", f"{row(2)},", "")
    files = {
        "a.csv": "\n".join(lines).encode(),
        "b.parquet": parquet(transaction_id=["t3", "t4"], known=[float(NOW), float("nan")]),
        "c.parquet": parquet(transaction_id=["t5", "t6"], known=[Decimal(NOW), None]),
    }
    imported = load(tmp_path, files)
    assert not imported.refused
    assert {
        event["id"] for event, at in zip(imported.events, imported.known_at, strict=True) if at == NOW
    } == {
        "t1",
        "t3",
        "t5",
    }


@pytest.mark.parametrize(
    "labels",
    [
        [Decimal("1.00"), Decimal("0.00")],
        [b"1", b"0"],
        [1.0, 0.0],
        [True, False],
        ["1.00", "0"],
        pyarrow.array(["true", "false"]).dictionary_encode(),
    ],
)
def test_whatever_type_is_clearly_one_or_nought_is_a_label(tmp_path: Path, labels: Any) -> None:
    """Of a Parquet column of any type."""
    imported = load(tmp_path, {"a.parquet": parquet(is_fraud=labels)})
    assert (imported.fraud.tolist(), imported.refused) == ([True, False], {})


@pytest.mark.parametrize("label", [0.5, float("nan"), 2, -1, b"\xff", None, "y", "0.1"])
def test_whatever_is_neither_is_no_label(tmp_path: Path, label: Any) -> None:
    """It's nobody's to guess."""
    imported = load(tmp_path, {"a.parquet": parquet(is_fraud=[label, label]), "b.csv": text(row(9))})
    assert (len(imported.events), imported.refused) == (1, {"invalid_label": 2})
