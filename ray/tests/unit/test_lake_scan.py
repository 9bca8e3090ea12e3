"""A table of the lake in batches: the rows that a plain reader of the whole table would keep, each time in the same order."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from deltalake import write_deltalake

from fraud_contracts import lake_snapshot
from fraud_ray.lake_scan import Scan

TOPIC = "payments.cards.decisions.v1"
SCHEMA = pyarrow.schema(
    [
        ("n", pyarrow.int64()),
        ("id", pyarrow.string()),
        ("topic", pyarrow.string()),
        ("topic_id", pyarrow.string()),
        ("partition", pyarrow.int32()),
        ("offset", pyarrow.int64()),
        ("appended", pyarrow.int64()),
    ]
)


def stored(
    folder: Path, rng: random.Random, without: tuple[str, ...] = ()
) -> tuple[Scan, list[dict[str, Any]]]:
    """A table of several files, and its rows in a reader's order."""
    schema = pyarrow.schema([field for field in SCHEMA if field.name not in without])
    number = 0
    for _ in range(3):
        rows = []
        for _ in range(rng.randrange(1, 30)):
            row = {
                "n": number,
                "id": f"i{rng.randrange(12)}",
                "topic": TOPIC,
                "topic_id": rng.choice([None, "A", "B"]),
                "partition": rng.randrange(2),
                "offset": rng.randrange(20),
                "appended": rng.choice([None, 0, 5, 6]),
            }
            rows.append({name: value for name, value in row.items() if name not in without})
            number += 1
        write_deltalake(str(folder), pyarrow.Table.from_pylist(rows, schema), mode="append")
    scan = Scan.open(str(folder))
    assert scan is not None
    return scan, scan.table.to_pyarrow_table().to_pylist()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("without", [(), ("topic_id", "appended")])
def test_the_decisions_that_stand_are_those_of_the_rule(
    tmp_path: Path, seed: int, without: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the snapshot's rows, one an id, the one that the log took first; in the order of the ids' first rows."""
    monkeypatch.setattr("fraud_ray.lake_scan._BATCH", 7)
    scan, rows = stored(tmp_path, random.Random(seed), without)
    read_to = {f"{TOPIC}/0/A": 12, f"{TOPIC}/1/A": 8, f"{TOPIC}/1/B": 20}
    full = [{**dict.fromkeys(SCHEMA.names), **row} for row in rows]
    kept = [row for row in full if lake_snapshot.within(read_to, row, "A")]
    places = scan.places(read_to, "A")
    assert (len(places), scan.rows) == (len(kept), len(rows))
    standing = [rows[i]["n"] for i in places.standing().tolist()]
    assert standing == [row["n"] for row in lake_snapshot.standing_decisions(kept)]


def test_every_reading_has_the_same_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row numbers of one reading hold in the next; a column that isn't there is null."""
    monkeypatch.setattr("fraud_ray.lake_scan._BATCH", 7)
    scan, rows = stored(tmp_path, random.Random(1))
    for columns in (("n", "vector"), ("n", "id", "set")):
        numbers: list[int] = []
        for start, batch in scan.batches(columns):
            assert start == len(numbers)
            numbers += batch.column("n").to_pylist()
            assert batch.column(columns[-1]).null_count == batch.num_rows
        assert numbers == [row["n"] for row in rows]


def test_no_table_is_none(tmp_path: Path) -> None:
    """A detector whose lake sink has written nothing yet."""
    assert Scan.open(str(tmp_path / "none")) is None
