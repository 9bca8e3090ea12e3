"""Where the files of history lie: on a node or in an object store, and which of them count."""

from __future__ import annotations

import logging
import os
from typing import Final

from pyarrow import fs

from fraud_contracts import object_store
from fraud_contracts.training_end import EndReason
from fraud_ray.errors import TrainingError

LOG = logging.getLogger(__name__)
PARQUET: Final = ".parquet"
SUFFIXES: Final = (".csv", ".csv.gz", PARQUET)
_DELTA_LOG: Final = "_delta_log"
# With pauses that double up to twenty seconds: a store that is away for a minute fails no training.
_S3_ATTEMPTS: Final = 10


def file_system(uri: str) -> tuple[fs.FileSystem, str]:
    """The file system of a URI, and its path there."""
    place = object_store.place(uri)
    if place is None:
        system, path = fs.FileSystem.from_uri(uri)
        return system, path
    patience = fs.AwsStandardS3RetryStrategy(max_attempts=_S3_ATTEMPTS)
    system = fs.S3FileSystem(**object_store.arrow_options(os.environ), retry_strategy=patience)
    return system, f"{place.bucket}/{place.folder}"


def locate(storage_uri: str, path: str) -> tuple[fs.FileSystem, dict[str, str]]:
    """The file system of a storage URI (file:// or s3://) and the history files below ``path`` by their names there, sorted."""
    uri = f"{storage_uri.rstrip('/')}/{path.strip('/')}"
    try:
        system, root = file_system(uri)
        infos = system.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
        if not infos:  # the path may be one file
            infos = [info for info in [system.get_file_info(root)] if info.type is fs.FileType.File]
    except (OSError, ValueError) as error:
        raise TrainingError(EndReason.HISTORY_UNREADABLE, f"{uri} can't be listed: {error}") from error
    paths = {
        info.path.removeprefix(root).strip("/") or info.base_name: info.path
        for info in infos
        if info.type is fs.FileType.File
    }
    delta = next((name for name in paths if _DELTA_LOG in name.split("/")), None)
    if delta is not None:
        raise TrainingError(
            EndReason.HISTORY_UNREADABLE,
            f"{delta.partition(_DELTA_LOG)[0] or uri} is a Delta table: beside its rows its folder holds those that were changed or "
            "deleted since; export the table to Parquet files",
        )
    hidden = [name for name in paths if any(part.startswith((".", "_")) for part in name.split("/"))]
    good = {name: paths[name] for name in sorted(paths) if name.endswith(SUFFIXES) and name not in hidden}
    other = len(paths) - len(good) - len(hidden)
    if other:
        LOG.warning("files of other kinds are left out", extra={"data": {"files": other, "kinds": SUFFIXES}})
    left_out = sum(name.endswith(SUFFIXES) for name in hidden)
    if left_out:
        LOG.warning(
            "files whose name or folder begins with _ or . are left out", extra={"data": {"files": left_out}}
        )
    if not good:
        note = f" ({left_out} are left out whose name or folder begins with _ or .)" if left_out else ""
        raise TrainingError(
            EndReason.NO_HISTORY,
            f"no history: {uri} holds no {', '.join(SUFFIXES)} file{note}; put labelled transactions there",
        )
    return system, good
