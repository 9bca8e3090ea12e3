"""Finds the savepoints and checkpoints of streaming jobs in a detector's storage, when a job is to be made anew.

A bucket is searched on a thread of its own; a pass reads the answer, and a pass that finds none yet comes again. What one answer
said holds until it is forgotten.
"""

from __future__ import annotations

import logging
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import obstore
from obstore import exceptions
from obstore.store import S3Store

from fraud_contracts import names
from fraud_operator.buckets import Bucket, open_bucket
from fraud_operator.detector import DetectorKey
from fraud_operator.lineage import StoredState

LOG: Final = logging.getLogger(__name__)
# A pass waits so long for an answer, which saves it a second pass where the store is near.
_MOMENT: Final = 0.5
FLINK_FOLDER: Final = "flink"
# What Flink writes last into a savepoint's or a checkpoint's folder: with it the rest is whole.
_METADATA: Final = "_metadata"
# How that begins: a fixed number, the format's version, the number of the checkpoint, by which savepoints are counted too.
_HEADER: Final = struct.Struct(">IIq")
_MAGIC: Final = 0x4960672D
# So many are offered: a job tries each for some minutes.
OFFERED: Final = 10


@dataclass
class StoredStates:
    """Safe to use from several threads. ``search`` is asked with a bucket that opens the detector's folder, and a stream."""

    search: Callable[[Bucket, str], StoredState] = field(default_factory=lambda: search)
    pool: Executor = field(default_factory=lambda: ThreadPoolExecutor(2, "states"))
    # By detector and stream: a detector may have two jobs.
    _asked: dict[tuple[DetectorKey, str], tuple[str, Future[StoredState]]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self, key: DetectorKey, bucket: Bucket, stream: str) -> StoredState | None:
        """None while the answer is on its way, and after a failed search: the next look begins another one."""
        question = str(bucket.key)
        with self._lock:
            asked = self._asked.get((key, stream))
            if asked is None or asked[0] != question:
                asked = self._asked[key, stream] = question, self.pool.submit(self.search, bucket, stream)
        wait([asked[1]], _MOMENT)
        if not asked[1].done():
            return None
        error = asked[1].exception()
        if error is None:
            return asked[1].result()
        LOG.warning("states not found", extra={"data": {"bucket": bucket.words, "error": str(error)}})
        self.forget(key, stream)
        return None

    def forget(self, key: DetectorKey, stream: str | None = None) -> None:
        """What was found is out of date once a job is at work; that of all streams where none is named."""
        with self._lock:
            for asked in [one for one in self._asked if one[0] == key and stream in (None, one[1])]:
                del self._asked[asked]


def search(bucket: Bucket, stream: str) -> StoredState:
    """Asks the object store: one request for the list of streams, then some for each job that the stream ever had."""
    store = open_bucket(bucket)
    streams = [
        known for name in folders(store, FLINK_FOLDER) if (known := names.parse_stream(name)) is not None
    ]
    base = f"{FLINK_FOLDER}/{stream}"
    snapshots = [f"{base}/savepoints/{name}" for name in folders(store, f"{base}/savepoints")]
    for job in folders(store, f"{base}/checkpoints"):
        of_job = f"{base}/checkpoints/{job}"
        snapshots += [f"{of_job}/{name}" for name in folders(store, of_job) if name.startswith("chk-")]
    whole = sorted((age, path) for path in snapshots if (age := _age(store, path)) is not None)
    return StoredState(
        tuple(f"{bucket.uri}/{path}" for _, path in whole[: -OFFERED - 1 : -1]),
        tuple(names.stream(*one) for one in sorted(streams, key=lambda one: one[1], reverse=True)),
        max((generation for found, generation in streams if found == stream[:6]), default=0),
    )


def folders(store: S3Store, path: str) -> Iterator[str]:
    """Names of what lies directly in a folder; nothing where it isn't there."""
    listed = obstore.list_with_delimiter(store, path)
    return (prefix.rstrip("/").rpartition("/")[2] for prefix in listed["common_prefixes"])


def _age(store: S3Store, path: str) -> tuple[int, datetime] | None:
    """What snapshots of one stream are ordered by; None of one that was never finished.

    Its checkpoint's number goes first: a job that is restored counts on from it, so it rises whatever a clock says. It is 0 where
    the file doesn't begin as Flink's do.
    """
    try:
        got = obstore.get(store, f"{path}/{_METADATA}", options={"range": (0, _HEADER.size)})
        head, written = bytes(got.bytes()), got.meta["last_modified"]
    except (FileNotFoundError, exceptions.NotFoundError):
        return None
    if len(head) < _HEADER.size:
        return 0, written
    magic, _, number = _HEADER.unpack(head)
    return number if magic == _MAGIC else 0, written
