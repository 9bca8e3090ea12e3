"""Whether there is memory for what there is to learn from: asked before anything is read, and again when rows and keys are known."""

from __future__ import annotations

import logging
import math
import os
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pyarrow
import pyarrow.parquet
from deltalake.exceptions import DeltaError
from pyarrow import fs

from fraud_contracts import lake
from fraud_contracts.config import DetectorConfig
from fraud_contracts.training_end import EndReason
from fraud_contracts.training_memory import GIB, TrainingSize, needed, peak, rows_that_fit
from fraud_ray.errors import TrainingError
from fraud_ray.history_files import PARQUET, locate
from fraud_ray.lake import ReadTo
from fraud_ray.lake_scan import Scan
from fraud_ray.training_history import TrainingHistory

LOG = logging.getLogger(__name__)
_CGROUP: Final = Path("/sys/fs/cgroup")
_SAMPLE: Final = 2**20  # bytes of a CSV file that are counted before it is read
# A file's first lines may be shorter than the others: only what is surely too much is refused for its first lines.
_SURE: Final = 0.8


@dataclass(frozen=True)
class Room:
    """``memory``: bytes that the container may use. ``trials``: how many may run at a time in it; 0 without a search."""

    memory: int
    trials: int

    @classmethod
    def here(cls, root: Path = _CGROUP) -> Room:
        """This container's: its limits, else the machine's memory and processors."""
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        limit = _number(root / "memory.max") or _number(root / "memory" / "memory.limit_in_bytes") or machine
        quota, period = _number(root / "cpu.max"), _number(root / "cpu.max", 1)
        cores = quota / period if quota and period else os.cpu_count() or 1
        return cls(min(limit, machine), max(1, math.floor(cores)))

    def check(self, size: TrainingSize, files: int, decisions: int, path: str, about: bool) -> None:
        """TrainingError where the rows don't fit; ``about``: their number is an estimate."""
        size = replace(size, trials=min(size.trials, self.trials))
        need = peak(size)
        LOG.info("memory", extra={"data": {"rows": size.rows, "needed": need, "limit": self.memory}})
        if needed(size) <= self.memory:
            return
        enough = math.ceil(needed(size) / GIB)
        raise TrainingError(
            EndReason.TOO_MANY_ROWS,
            f"{'about ' if about else ''}{files:,} rows of files and {decisions:,} of the lake need {need / GIB:.1f} GiB, and training "
            f"has {self.memory / GIB:.1f}: some {rows_that_fit(self.memory, size):,} rows would fit. Set resources.limits.memory of "
            f"Training in spec.components to {enough}Gi, or put less history below {path} (spec.model.train.history.path)",
        )


def _number(path: Path, part: int = 0) -> int | None:
    """A part of a file of the kernel's; None where it isn't there or says that there is no limit."""
    try:
        return int(path.read_text().split()[part])
    except (OSError, ValueError, IndexError):
        return None


def size_of(config: DetectorConfig, features: int, rows: int) -> TrainingSize:
    spec = config.spec
    assert spec.model.train is not None
    return TrainingSize(
        rows, features, len(spec.entities), len(spec.event.fields), trials=spec.model.train.trials
    )


def check_before(config: DetectorConfig, features: int, room: Room, upto: ReadTo | None) -> None:
    """TrainingError where what files and lake hold can't fit, by their metadata and first lines.

    An id may be in both, and how many keys there are isn't known: what passes here may be too much later.
    """
    assert config.spec.model.train is not None
    path = config.spec.model.train.history.path
    files, decisions = _rows_of_files(config.storage_uri, path), _rows_of_lake(config, upto)
    size = replace(
        size_of(config, features, max(files, decisions)), read=files + decisions, decisions=decisions
    )
    room.check(size, files, decisions, path, about=True)


def check_after(config: DetectorConfig, features: int, room: Room, past: TrainingHistory) -> None:
    """TrainingError where what was imported doesn't fit beside its vectors."""
    assert config.spec.model.train is not None
    rows, decisions = len(past.events), int((past.decided >= 0).sum())
    size = replace(size_of(config, features, rows), keys=past.keys(), read=0, decisions=decisions)
    room.check(size, rows - decisions, decisions, config.spec.model.train.history.path, about=False)


def _rows_of_files(storage_uri: str, path: str) -> int:
    """Rows of the history's files; of CSV as many as there surely are. What can't be read is the import's to tell."""
    try:
        system, paths = locate(storage_uri, path)
    except TrainingError:
        return 0
    return sum(_rows_of_file(system, name, one) for name, one in paths.items())


def _rows_of_file(system: fs.FileSystem, name: str, path: str) -> int:
    try:
        if name.endswith(PARQUET):
            with system.open_input_file(path) as source:
                return int(pyarrow.parquet.ParquetFile(source).metadata.num_rows)
        size = system.get_file_info(path).size
        with system.open_input_stream(path, compression=None) as stream:
            head: bytes = stream.read(_SAMPLE)
        read = len(head)
        if name.endswith(".gz"):
            unpack = zlib.decompressobj(zlib.MAX_WBITS | 16)
            head = unpack.decompress(head)
            read -= len(unpack.unused_data)
        lines = head.count(b"\n")
        return lines if read >= size else int(_SURE * size / max(1, read) * lines)
    except (OSError, zlib.error, pyarrow.ArrowException):
        return 0


def _rows_of_lake(config: DetectorConfig, upto: ReadTo | None) -> int:
    try:
        scan = Scan.open(lake.table(config.storage_uri, lake.DECISIONS))
        if scan is None:
            return 0
        rows = sum(
            count or 0 for count in scan.table.get_add_actions(flatten=True).column("num_records").to_pylist()
        )
    except (DeltaError, OSError):
        return 0
    return rows if upto is None else min(rows, sum(upto.get(lake.DECISIONS, {}).values()))
