"""What the demo puts into the object store and fetches from it, on a store in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import MemoryStore

from fraud_local.demo.bucket import Bucket, detector_folder


class Cluster:
    """A cluster whose operator has this storage."""

    def get(self, *_: str) -> dict[str, Any]:
        settings = {"storage": {"uri": "s3://fraud-platform"}}
        return {"data": {"platform.json": json.dumps(settings)}}


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    memory = MemoryStore()

    @contextmanager
    def opened(_: Bucket) -> Iterator[MemoryStore]:
        yield memory

    monkeypatch.setattr(Bucket, "_open", opened)
    return memory


def test_files_go_where_they_are_looked_for(store: MemoryStore, tmp_path: Path) -> None:
    """History lies in the detector's folder of the platform's storage, which the operator's settings name."""
    bucket = Bucket(Cluster(), "fraud-platform")  # type: ignore[arg-type]  # a fake of Kubectl
    (tmp_path / "rows").write_bytes(b"rows")
    bucket.put({f"{detector_folder('ns', 'cards')}/history/demo.csv.gz": tmp_path / "rows"})
    assert bucket.uri == "s3://fraud-platform"
    assert obstore.get(store, "ns.cards/history/demo.csv.gz").bytes() == b"rows"


def test_the_evidence_comes_back_and_nothing_else(store: MemoryStore, tmp_path: Path) -> None:
    """Every object of one folder is a file of its name; a folder that isn't there is none."""
    bucket = Bucket(Cluster(), "fraud-platform")  # type: ignore[arg-type]
    for name in ("demo/evidence/a.json", "demo/evidence/b.jsonl.gz", "demo/live.jsonl.gz"):
        obstore.put(store, name, name.encode())
    bucket.fetch("demo/evidence", tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "a.json": "demo/evidence/a.json",
        "b.jsonl.gz": "demo/evidence/b.jsonl.gz",
    }
    bucket.fetch("demo/nothing", tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
