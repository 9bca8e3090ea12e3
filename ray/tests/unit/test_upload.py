"""Files of history on their way to storage: whole ones arrive under their names, others leave nothing."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from pyarrow import fs

from fraud_ray.upload import CHUNK, UploadError, largest, upload

CSV = b"id,time,amount,card,shop,is_fraud\na1,1,1.00,4000,corner,0\n"


def parquet() -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"id": ["a1"]}), out)
    return out.getvalue()


def send(folder: Path, name: str, data: bytes) -> int:
    return upload(io.BytesIO(data), fs.LocalFileSystem(), str(folder / "history"), name)


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", CSV),
        ("a.csv.gz", gzip.compress(CSV)),
        ("2025/a.csv.gz", gzip.compress(CSV) + gzip.compress(CSV)),
        ("large.csv", CSV * (2 * CHUNK // len(CSV))),
        ("a.parquet", parquet()),
    ],
)
def test_a_whole_file_arrives_as_it_is(tmp_path: Path, name: str, data: bytes) -> None:
    """Byte for byte, under its name below the history's folder, and beside it lies nothing else."""
    assert send(tmp_path, name, data) == len(data)
    assert (tmp_path / "history" / name).read_bytes() == data
    assert names(tmp_path / "history") == [name]


@pytest.mark.parametrize(
    ("name", "data", "fault"),
    [
        ("a.csv", b"", "empty"),
        ("a.csv", CSV[:-5], "no line break"),
        ("a.csv.gz", gzip.compress(CSV)[:-3], "ends early"),
        ("a.csv.gz", CSV, "not gzip"),
        ("a.parquet", parquet()[:-9], "Parquet"),
        ("a.parquet", b"PAR1", "Parquet"),
    ],
)
def test_a_file_that_breaks_off_leaves_nothing(tmp_path: Path, name: str, data: bytes, fault: str) -> None:
    """What isn't whole is refused with what shows it, and no part of it stays."""
    with pytest.raises(UploadError, match=fault):
        send(tmp_path, name, data)
    assert names(tmp_path) == []


def test_a_source_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """An error of the source goes on to the caller, and no part stays."""

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        upload(Broken(), fs.LocalFileSystem(), str(tmp_path), "a.csv")
    assert names(tmp_path) == []


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    """The second file of a name is refused and the first stays."""
    send(tmp_path, "a.csv", CSV)
    with pytest.raises(UploadError, match="another name"):
        send(tmp_path, "a.csv", CSV * 2)
    assert (tmp_path / "history/a.csv").read_bytes() == CSV


def test_two_uploads_of_one_name_dont_mix(tmp_path: Path) -> None:
    """Each has a part of its own: the first to end is the file, whole, and the other is refused."""

    class Slow(io.BytesIO):
        """While it is read, another upload of the name comes and ends."""

        def read(self, size: int | None = -1) -> bytes:
            if self.tell() == 0:
                send(tmp_path, "a.csv", CSV * 2)
            return super().read(size)

    with pytest.raises(UploadError, match="another name"):
        upload(Slow(CSV), fs.LocalFileSystem(), str(tmp_path / "history"), "a.csv")
    assert (tmp_path / "history/a.csv").read_bytes() == CSV * 2
    assert names(tmp_path) == ["history/a.csv"]


@pytest.mark.parametrize("declared", [len(CSV), None])
def test_a_file_that_cant_be_moved_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, declared: int | None
) -> None:
    """Before anything is sent where its size is known, else when it has become too large; the refusal says to split it."""
    monkeypatch.setattr("fraud_ray.upload.largest", lambda _: len(CSV) - 1)
    source = io.BytesIO(CSV)
    with pytest.raises(UploadError, match="split it"):
        upload(source, fs.LocalFileSystem(), str(tmp_path), "a.csv", declared)
    assert (source.tell() == 0) is (declared is not None)
    assert names(tmp_path) == []


def test_an_object_store_moves_five_gibibytes_at_most() -> None:
    """Its one copy; a node's disk has no such bound."""
    store = fs.S3FileSystem(endpoint_override="127.0.0.1:9", scheme="http", anonymous=True)
    assert (largest(store), largest(fs.LocalFileSystem())) == (5 * 1024**3, None)


@pytest.mark.parametrize("name", ["a.txt", ".a.csv", "_old/a.csv", "2025//a.csv", "/a.csv", "../a.csv"])
def test_a_name_that_training_leaves_out_is_refused(tmp_path: Path, name: str) -> None:
    """A file under such a name would never be read, so it isn't taken."""
    with pytest.raises(UploadError, match="training"):
        send(tmp_path, name, CSV)
    assert names(tmp_path) == []
