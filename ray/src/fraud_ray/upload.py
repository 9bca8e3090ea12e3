"""Puts a file of labelled payments where training looks for it: ``python -m fraud_ray.upload NAME [URL]``.

It comes from an address, else from standard input, which a broken connection ends as if the file had ended. So the file gets its
name only once it is seen to be whole; until then it has one of its own that training leaves out. No file that is there is replaced:
training takes each once, and a second one under a name would change what a model was made from. Two uploads of one name that end at
the same moment aren't told apart, as Arrow can't ask a store to rename on a condition.
"""

from __future__ import annotations

import argparse
import http.client
import os
import secrets
import sys
import urllib.request
import zlib
from collections.abc import Mapping
from typing import BinaryIO, Final, cast

from pyarrow import fs

from fraud_contracts import log, names
from fraud_contracts.config import DetectorConfig, load_config
from fraud_contracts.errors import FraudError
from fraud_ray.history_files import SUFFIXES, file_system

CHUNK: Final = 1 << 20
TIMEOUT: Final = 60.0
# A file of an object store gets its name by one copy, which may have no more bytes than this.
LARGEST_COPY: Final = 5 << 30
# zlib's number for: a gzip file, found by its header.
_GZIP: Final = 31
_PARQUET: Final = b"PAR1"


class UploadError(FraudError):
    """Nothing was uploaded; the message says why and what to do."""


class Wholeness:
    """Tells from its bytes, as they pass, whether a file of history is all there."""

    def __init__(self, name: str) -> None:
        self.size = 0
        self._suffix = next(suffix for suffix in reversed(SUFFIXES) if name.endswith(suffix))
        self._head = self._tail = b""
        self._gzip = zlib.decompressobj(_GZIP)

    def add(self, chunk: bytes) -> None:
        """UploadError where it is no such file at all."""
        self.size += len(chunk)
        self._head = (self._head + chunk[:4])[:4]
        self._tail = (self._tail + chunk[-4:])[-4:]
        if self._suffix != ".csv.gz":
            return
        try:
            while chunk:
                if self._gzip.eof:  # a gzip file may be several, one after another
                    self._gzip = zlib.decompressobj(_GZIP)
                self._gzip.decompress(chunk)
                chunk = self._gzip.unused_data
        except zlib.error as error:
            raise UploadError(f"the file is not gzip, though its name says so: {error}") from error

    def fault(self) -> str:
        """What shows that its end is missing; empty where it is whole."""
        if self.size == 0:
            return "it is empty"
        if self._suffix == ".parquet" and not (
            self._head == self._tail == _PARQUET and self.size > len(_PARQUET)
        ):
            return "it doesn't begin and end as a Parquet file does"
        if self._suffix == ".csv.gz" and not self._gzip.eof:
            return "its gzip data ends early"
        if self._suffix == ".csv" and self._tail[-1:] != b"\n":
            return "its last line has no line break; add one if the file is whole"
        return ""


def check_name(name: str) -> None:
    """UploadError for a name that training would not read."""
    if not name.endswith(SUFFIXES):
        raise UploadError(f"{name!r}: training reads files whose names end in {', '.join(SUFFIXES)}")
    if any(part.startswith((".", "_")) or not part for part in name.split("/")):
        raise UploadError(
            f"{name!r}: training leaves out names and folders that begin with . or _, and none may be empty"
        )


def largest(system: fs.FileSystem) -> int | None:
    """The bytes that a file may have there; None where there is no such bound."""
    return LARGEST_COPY if isinstance(system, fs.S3FileSystem) else None


def check_size(size: int, most: int | None) -> None:
    """UploadError for a file that is too large."""
    if most is not None and size > most:
        raise UploadError(
            f"the file has more than {most} bytes, which an object store doesn't copy to a file's name at once: split it into files of "
            "names of their own; training reads them all"
        )


def check_free(system: fs.FileSystem, target: str) -> None:
    """UploadError where a file is there already."""
    if system.get_file_info(target).type is not fs.FileType.NotFound:
        raise UploadError(f"{target} is there already: give the file another name")


def upload(source: BinaryIO, system: fs.FileSystem, folder: str, name: str, size: int | None = None) -> int:
    """The bytes written to ``<folder>/<name>``. ``size``: those that the source says it has.

    UploadError where a file of that name is there already, where it is too large, or where the source isn't whole.
    """
    check_name(name)
    most, target = largest(system), f"{folder}/{name}"
    parent, _, last = target.rpartition("/")
    check_size(size or 0, most)
    check_free(system, target)
    if isinstance(system, fs.LocalFileSystem):
        system.create_dir(parent)
    # Of this upload alone: another one of the name has its own.
    part, whole = f"{parent}/.{last}.{secrets.token_hex(8)}.part", Wholeness(name)
    # An object store's file comes into being when the stream is closed, also where the source broke off.
    try:
        with system.open_output_stream(part, compression=None) as out:
            while chunk := source.read(CHUNK):
                whole.add(chunk)
                check_size(whole.size, most)
                out.write(chunk)
        if size is not None and whole.size < size:
            raise UploadError(f"the source broke off after {whole.size} of {size} bytes")
        if fault := whole.fault():
            raise UploadError(f"the file is not whole: {fault}. {whole.size} bytes came")
        check_free(system, target)
        system.move(part, target)
    except BaseException:
        if system.get_file_info(part).type is not fs.FileType.NotFound:
            system.delete_file(part)
        raise
    return whole.size


def place(config: DetectorConfig) -> tuple[fs.FileSystem, str, str]:
    """The file system of a detector's storage, and the folder of its history: its path there, and its URI."""
    train = config.spec.model.train
    if train is None:
        raise UploadError(f"{config.identity} trains no model: spec.model.train is not set")
    uri = f"{config.storage_uri.rstrip('/')}/{train.history.path.strip('/')}"
    system, folder = file_system(uri)
    return system, folder, uri


def fetch(url: str) -> tuple[BinaryIO, int | None]:
    """What lies at an address, and how many bytes its server says that it has."""
    if not url.startswith(("http://", "https://")):
        raise UploadError(
            f"{url!r}: give an address that begins with http:// or https://, or none and the file itself on standard input"
        )
    answer = urllib.request.urlopen(url, timeout=TIMEOUT)  # noqa: S310 - checked above
    return cast(BinaryIO, answer), answer.length


def main(arguments: list[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    parser = argparse.ArgumentParser(prog="fraud_ray.upload", description=__doc__)
    parser.add_argument("name", help="under which training finds the file")
    parser.add_argument("url", nargs="?", help="of the file; standard input where absent")
    options = parser.parse_args(arguments)
    log.setup()
    try:
        config = load_config(environ)
        check_name(options.name)
        system, folder, uri = place(config)
        if options.url:
            source, declared = fetch(options.url)
            with source:
                size = upload(source, system, folder, options.name, declared)
        else:
            size = upload(sys.stdin.buffer, system, folder, options.name)
    except (FraudError, OSError, http.client.HTTPException) as error:
        sys.stdout.write(f"not uploaded: {error}\n")
        return 1
    sys.stdout.write(
        f"{uri}/{options.name}: {size} bytes. Training looks for it within half an hour, or at once with: kubectl -n {config.namespace} "
        f"annotate --overwrite {names.PLURAL} {config.name} {names.TRAIN_ANNOTATION}=1\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
