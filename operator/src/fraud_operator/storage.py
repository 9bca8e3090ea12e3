"""What a storage URI may be on this platform. Pure; ``buckets`` asks the object store itself."""

from __future__ import annotations

import posixpath
import re
from typing import Final

from fraud_contracts import object_store
from fraud_contracts.errors import SpecError
from fraud_operator.settings import StorageSettings

NODE_SCHEME: Final = "file://"
FIELD: Final = "spec.storage.uri"
# As AWS has it; most other stores allow no more.
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
# Every library writes these characters of a key as they are; of others each has its own spelling.
_FOLDER: Final = re.compile(r"[A-Za-z0-9_=.-]+")


def faults(uri: str, default: bool, settings: StorageSettings) -> list[SpecError]:
    """What is wrong with a detector's URI, which is the platform's ``default`` or the spec's own; nothing where all is well."""
    if not uri:
        return [SpecError(FIELD, "the platform has no default storage; give s3://bucket/folder")]
    message = _node_fault(uri, settings.node_folder) if uri.startswith(NODE_SCHEME) else _bucket_fault(uri)
    if message is None:
        return []
    subject = f"the platform's default {uri}" if default else uri
    return [SpecError(FIELD, f"{subject} {message}")]


def _node_fault(uri: str, root: str) -> str | None:
    if not root:
        return "is a folder of one node, which this platform doesn't allow: write s3://bucket/folder, or switch the chart's storage.nodeFolder on"
    path = uri.removeprefix(NODE_SCHEME)
    below = path.startswith(f"{root.rstrip('/')}/")
    if not below or posixpath.normpath(path) != path or path.startswith("//"):
        example = f"{NODE_SCHEME}{root.rstrip('/')}/NAME"
        return f"doesn't lie below the platform's folder: write {example}, with no .. in it, or s3://bucket/folder"
    return None


def _bucket_fault(uri: str) -> str | None:
    place = object_store.place(uri)
    if place is None or not _BUCKET.fullmatch(place.bucket) or ".." in place.bucket:
        return "names no bucket: write s3://bucket/folder, a bucket's name in lower-case letters, digits and dashes"
    parts = uri.removeprefix(object_store.SCHEME).split("/")[1:]
    if any(part in (".", "..") or not _FOLDER.fullmatch(part) for part in parts):
        return "has a folder that not all libraries spell alike: write letters, digits and -_.= between single slashes"
    return None
