"""Training's inputs in an object store: the files of history, and the lake's tables."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator

import pyarrow
import pytest
from deltalake import write_deltalake
from pyarrow import fs

from fraud_contracts import lake as places
from fraud_contracts import object_store
from fraud_pipelines.events import Tokeniser
from fraud_ray import history
from fraud_ray.errors import TrainingError
from fraud_ray.history_files import file_system
from fraud_ray.training_history import TrainingHistory
from fraud_ray.upload import UploadError, upload
from fraud_testing import history_files, objects

pytestmark = pytest.mark.integration
TOKENS = Tokeniser(bytes(32))


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[objects.Server]:
    with objects.server_of_environment(monkeypatch) as running:
        yield running


def put(store: objects.Server, name: str, data: bytes) -> None:
    """As a person's own client would: through the store."""
    system = fs.S3FileSystem(**object_store.arrow_options(store.environment))
    with system.open_output_stream(f"{objects.BUCKET}/{name}", compression=None) as out:
        out.write(data)


def load(uri: str) -> TrainingHistory:
    return history.load(history_files.spec(), uri, TOKENS, history_files.NOW)


def test_history_is_read_from_a_bucket(store: objects.Server) -> None:
    """CSV and gzipped CSV below the detector's folder become events; a neighbour's files don't."""
    first, second = (history_files.text(*(history_files.row(n) for n in part)) for part in ((1, 2), (3,)))
    put(store, "ns.cards/history/a.csv", first)
    put(store, "ns.cards/history/deep/b.csv.gz", gzip.compress(second))
    put(store, "ns.cards-too/history/c.csv", history_files.text(history_files.row(9)))
    loaded = load(f"{store.uri}/ns.cards")
    assert [event["id"] for event in loaded.events] == ["t1", "t2", "t3"]
    assert loaded.files == {"a.csv": 2, "deep/b.csv.gz": 1}


def test_a_folder_without_files_is_no_history(store: objects.Server) -> None:
    """Nothing there yet is told as such, with the place, and a bucket that isn't there as one that can't be listed."""
    with pytest.raises(TrainingError, match=r"no history: s3://fraud/ns\.cards/history holds no"):
        load(f"{store.uri}/ns.cards")
    with pytest.raises(TrainingError) as caught:
        load("s3://another-bucket/ns.cards")
    assert "s3://another-bucket/ns.cards/history" in str(caught.value)


def test_what_is_uploaded_is_trained_from(store: objects.Server) -> None:
    """A whole file arrives alone and is read; one that breaks off leaves nothing, and one that is there isn't replaced."""
    system, folder = file_system(f"{store.uri}/ns.cards/history")
    whole, broken = history_files.text(history_files.row(1)), history_files.text(history_files.row(2))[:-1]
    assert upload(io.BytesIO(whole), system, folder, "deep/a.csv") == len(whole)
    for name, data in (("b.csv", broken), ("deep/a.csv", whole)):
        with pytest.raises(UploadError):
            upload(io.BytesIO(data), system, folder, name)
    assert [name for name in store.objects() if "history" in name] == ["ns.cards/history/deep/a.csv"]
    assert [event["id"] for event in load(f"{store.uri}/ns.cards").events] == ["t1"]


def test_the_lakes_folder_is_no_history(store: objects.Server) -> None:
    """A Delta table in the bucket is refused as history, as it is on a node's disk."""
    uri = f"{store.uri}/ns.cards/history"
    options = places.storage_options(uri, store.environment)
    write_deltalake(uri, pyarrow.table({"a": [1]}), storage_options=options)
    with pytest.raises(TrainingError, match="is a Delta table"):
        load(f"{store.uri}/ns.cards")
