"""What doesn't fit into the Pod's memory is refused before it is read, and what is held of a row stays small."""

from __future__ import annotations

import gc
import gzip
import random
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from fraud_contracts.config import DetectorConfig
from fraud_contracts.training_memory import GIB, MIB, needed, peak, rows_that_fit
from fraud_pipelines.events import Tokeniser
from fraud_pipelines.features import compile_detector
from fraud_pipelines.simulator import simulate, write_csv
from fraud_ray import dataset, history, room, train
from fraud_ray.errors import TrainingError
from fraud_ray.room import Room, check_after, check_before
from fraud_testing import detectors

START = 1_780_000_000_000
AS_OF = START + 70 * 86_400_000
TOKENS = Tokeniser(bytes(32))
SPEC: dict[str, Any] = {
    **detectors.SIMULATED,
    "model": {"train": {"trials": 2, "minLabels": 50}},
}
FEATURES = compile_detector(detectors.document(SPEC).spec)
WIDTH = len(FEATURES.names)
SMALL = Room(1300 * MIB, 0)


def config(folder: Path) -> DetectorConfig:
    return detectors.document(SPEC, storage_uri=f"file://{folder}")


def put(folder: Path, name: str, data: bytes) -> None:
    (folder / "history").mkdir(exist_ok=True)
    (folder / "history" / name).write_bytes(data)


@pytest.mark.parametrize(
    ("files", "room"),
    [
        ({"memory.max": "4294967296\n", "cpu.max": "250000 100000\n"}, Room(4 * GIB, 2)),
        ({"memory.max": "4294967296\n", "cpu.max": "50000 100000\n"}, Room(4 * GIB, 1)),
        ({"memory/memory.limit_in_bytes": "1073741824\n", "cpu.max": "100000 100000"}, Room(GIB, 1)),
    ],
)
def test_the_containers_limits_are_the_room(tmp_path: Path, files: dict[str, str], room: Room) -> None:
    """Of either kind of cgroup; a part of a core still runs one trial."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert Room.here(tmp_path) == room


def test_without_a_limit_the_machine_is_the_room(tmp_path: Path) -> None:
    """A cgroup that says max, and a machine without cgroups."""
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert Room.here(tmp_path) == Room.here(tmp_path / "none")
    assert Room.here(tmp_path).memory > GIB // 8


def test_parquet_files_are_counted_by_their_metadata(tmp_path: Path) -> None:
    """A training of more rows than fit ends before one is read: the file lacks all columns, and that isn't the reason."""
    table = pyarrow.table({"a": pyarrow.nulls(8_000_000, pyarrow.bool_())})
    (tmp_path / "history").mkdir()
    pyarrow.parquet.write_table(table, tmp_path / "history" / "h.parquet")
    with pytest.raises(TrainingError) as caught:
        train.run(
            config(tmp_path), TOKENS, AS_OF, lambda _: 0, lambda *_: ({}, 0, []), lambda *_: "1", room=SMALL
        )
    assert caught.value.reason == "TooManyRows"
    size = room.size_of(config(tmp_path), WIDTH, 8_000_000)
    fits = rows_that_fit(SMALL.memory, replace(size, trials=0, read=8_000_000))
    assert 0 < fits < 8_000_000
    for part in (
        "8,000,000 rows of files and 0 of the lake",
        f"some {fits:,} rows would fit",
        "resources.limits.memory of Training in spec.components",
        "spec.model.train.history.path",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize("name", ["h.csv", "h.csv.gz"])
def test_csv_files_are_counted_by_their_size_and_first_lines(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not more than there are, and most of them, compressed or not."""
    rng = random.Random(1)
    data = b"".join(b"%d,%d,some text\n" % (n, rng.randrange(10**9)) for n in range(20_000))
    put(tmp_path, name, gzip.compress(data) if name.endswith(".gz") else data)
    monkeypatch.setattr(room, "_SAMPLE", 20_000)
    assert 0.6 * 20_000 < room._rows_of_files(f"file://{tmp_path}", "history/") < 20_000


def test_what_can_not_be_counted_is_the_imports_to_tell(tmp_path: Path) -> None:
    """Nothing there, no Parquet, no gzip: no row is known of, and the check passes."""
    check_before(config(tmp_path), WIDTH, SMALL, None)
    put(tmp_path, "a.parquet", b"none")
    put(tmp_path, "b.csv.gz", b"none")
    check_before(config(tmp_path), WIDTH, SMALL, None)


def test_what_fits_is_not_refused(tmp_path: Path) -> None:
    """A training whose memory is looked at ends as one whose isn't."""
    rows = simulate(3_000, 5, 60, START, fraud_rate=0.05)
    write_csv(rows, tmp_path / "history" / "h.csv")
    past = history.load(config(tmp_path).spec, f"file://{tmp_path}", TOKENS, AS_OF)
    check_before(config(tmp_path), WIDTH, SMALL, None)
    check_after(config(tmp_path), WIDTH, SMALL, past)
    keys = {(name, one["entities"][name]) for one in past.events for name in one["entities"]}
    assert past.keys() == len(keys)
    size = replace(room.size_of(config(tmp_path), WIDTH, 3_000), trials=0, keys=len(keys), read=0)
    with pytest.raises(TrainingError, match="3,000 rows of files") as caught:
        check_after(config(tmp_path), WIDTH, Room(needed(size) - 1, 0), past)
    assert caught.value.reason == "TooManyRows"
    check_after(config(tmp_path), WIDTH, Room(needed(size), 0), past)
    assert peak(size) < needed(size)


def held(folder: Path, count: int) -> int:
    """Bytes at the peak of import and replay of so many rows, matrix and Arrow's columns with them."""
    write_csv(simulate(count, 5, 60, START), folder / "history" / "h.csv")
    by = config(folder)
    gc.collect()
    before = pyarrow.total_allocated_bytes()
    tracemalloc.start()
    past = history.load(by.spec, by.storage_uri, TOKENS, AS_OF)
    arrow = pyarrow.total_allocated_bytes() - before
    dataset.build(by.spec, FEATURES, past, AS_OF, 1, lambda profiles: sum(1 for _ in profiles))
    python = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return python + arrow


def test_a_row_is_no_object(tmp_path: Path) -> None:
    """A further row holds its vector and some hundred bytes, states of the replay with it: not thousands of bytes of objects."""
    few, many = held(tmp_path / "few", 9_000), held(tmp_path / "many", 24_000)
    assert (many - few) / 15_000 - 4 * WIDTH < 400
