"""Keeps what every container of the node logs, since the kubelet removes a Pod's logs with the Pod.

The kubelet's files are opened as they appear and copied as they grow: neither a Pod's end nor a rotation takes a line away. A kind
cluster keeps its files in a container of its own, so there nothing is followed.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

INTERVAL = 0.2


def kept(folder: Path, pod: dict[str, Any], container: str, restart: int) -> Path:
    """Where below ``folder`` the log of one start of a Pod's container lies: the kubelet's own names."""
    meta = pod["metadata"]
    return folder / f"{meta['namespace']}_{meta['name']}_{meta['uid']}" / container / f"{restart}.log"


class Follower:
    """Copies ``source``, the kubelet's folder of logs, to ``target`` every ``interval`` seconds until it is stopped."""

    def __init__(self, source: Path, target: Path, interval: float = INTERVAL) -> None:
        self._source, self._target, self._interval = source, target, interval
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(1, "container-logs")
        self._done: Future[None] | None = None
        # By device and inode: the kubelet renames a full log, and a new one takes its name.
        self._open: dict[tuple[int, int], tuple[BinaryIO, Path]] = {}

    def start(self) -> None:
        self._done = self._pool.submit(self._run)

    def stop(self) -> None:
        """Takes what is there until now and ends; raises the OSError for which a log could not be kept."""
        self._stopping.set()
        self._pool.shutdown()
        if self._done is not None:
            self._done.result()

    def _run(self) -> None:
        with ExitStack() as files:
            while not self._stopping.wait(self._interval):
                self._sweep(files)
            self._sweep(files)

    def _sweep(self, files: ExitStack) -> None:
        self._copy()  # first, so that a full log's end comes before the beginning of its successor
        for folder, _, names in os.walk(self._source):
            for name in names:
                if name.endswith(".log"):
                    self._take(Path(folder) / name, files)
        self._copy()

    def _take(self, path: Path, files: ExitStack) -> None:
        try:
            stat = path.stat()
            if (stat.st_dev, stat.st_ino) in self._open:
                return
            stream = files.enter_context(path.open("rb"))
        except FileNotFoundError:
            return  # it went between the listing and now: whoever misses it tells of a gap
        self._open[stat.st_dev, stat.st_ino] = stream, self._target / path.relative_to(self._source)

    def _copy(self) -> None:
        # Kept open to the end: who has removed a file may still let its writer go on.
        for stream, copy in self._open.values():
            if data := stream.read():
                copy.parent.mkdir(parents=True, exist_ok=True)
                with copy.open("ab") as out:
                    out.write(data)
