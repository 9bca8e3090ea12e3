"""Looks for planted card numbers in storage, in the demo's Pod: every object's bytes, what is packed in them, Parquet decoded.

Storage is a bucket, or a folder of this machine in tests. An object that vanishes meanwhile, as those of Flink's old checkpoints do,
is none.
"""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import IO

import pyarrow
import pyarrow.dataset
from pyarrow import fs

from fraud_contracts import object_store
from fraud_local.demo.leaks import LeakReport, Needles, contents

_BATCH = 500
_CHUNK = 8 * 2**20
_ATTEMPTS = 10


def file_system(uri: str, environ: Mapping[str, str]) -> tuple[fs.FileSystem, str]:
    """The file system of a storage URI, and its path there."""
    place = object_store.place(uri)
    if place is None:
        return fs.LocalFileSystem(), uri.removeprefix("file://")
    patience = fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS)
    keys = {
        "access_key": environ.get(object_store.ACCESS_KEY),
        "secret_key": environ.get(object_store.SECRET_KEY),
    }
    system = fs.S3FileSystem(**keys, **object_store.arrow_options(environ), retry_strategy=patience)
    return system, f"{place.bucket}/{place.folder}".rstrip("/")


def listed(system: fs.FileSystem, root: str, beside: Iterable[str] = ()) -> Iterator[tuple[str, str]]:
    """(name below the root, path) of every object but those in one of ``beside``, in order."""
    passed = tuple(f"{name.strip('/')}/" for name in beside)
    for info in sorted(system.get_file_info(fs.FileSelector(root, recursive=True)), key=lambda one: one.path):
        name = info.path.removeprefix(root).lstrip("/")
        if info.type is fs.FileType.File and not name.startswith(passed):
            yield name, info.path


def _fetched(system: fs.FileSystem, path: str) -> IO[bytes]:
    """The object as a file of this machine: what is packed in it is read in small pieces, of which each would be a request."""
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - the reader closes it
    with system.open_input_stream(path) as stream:
        shutil.copyfileobj(stream, copy, _CHUNK)
    copy.seek(0)
    return copy


def objects(
    needles: Needles, uri: str, environ: Mapping[str, str], report: LeakReport, beside: Iterable[str]
) -> None:
    """Every object below the URI, its name too. ``beside`` are folders that hold the numbers by right."""
    report.visit("storage")
    system, root = file_system(uri, environ)
    for name, path in listed(system, root, beside):
        report.search(needles, "storage", name, name.encode())
        try:
            for data in contents(partial(_fetched, system, path)):
                report.search(needles, "storage", name, data)
        except FileNotFoundError:
            continue
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile, gzip.BadGzipFile) as error:
            report.miss(f"storage/{name}", error)


def lake(
    needles: Needles, uri: str, environ: Mapping[str, str], report: LeakReport, beside: Iterable[str]
) -> None:
    """Parquet below the URI, decoded: its pages are compressed and its strings are in dictionaries."""
    report.visit("lake")
    system, root = file_system(uri, environ)
    for name, path in listed(system, root, beside):
        if not name.endswith(".parquet"):
            continue
        try:
            table = pyarrow.dataset.dataset(path, format="parquet", filesystem=system)
            for batch in table.to_batches(batch_size=_BATCH):
                data = json.dumps(batch.to_pylist(), default=str, ensure_ascii=False).encode()
                report.search(needles, "lake", name, data)
        except FileNotFoundError:
            continue
