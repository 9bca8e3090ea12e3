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
SECRET_FIELD: Final = "spec.storage.secretRef"  # noqa: S105 - the field's name
# As AWS has it; most other stores allow no more.
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
# Every library writes these characters of a key as they are; of others each has its own spelling.
_FOLDER: Final = re.compile(r"[A-Za-z0-9_=.-]+")


def default_uri(identity: str, settings: StorageSettings) -> str:
    """A detector's own folder of the platform's storage; empty where the platform has none. ``identity`` is <namespace>.<name>."""
    parent = settings.uri.rstrip("/")
    return f"{parent}/{identity}" if parent else ""


def faults(
    uri: str, identity: str, settings: StorageSettings, *, default: bool = False, with_keys: bool = False
) -> list[SpecError]:
    """What is wrong with a detector's URI, which is the platform's ``default`` or the spec's own; nothing where all is well.

    ``with_keys``: the spec names a Secret that opens it. Without one the platform's keys or role do, and these reach what other
    detectors keep, too: they are lent for the detector's own folder and no other.
    """
    if not uri:
        return [SpecError(FIELD, "the platform has no default storage; give s3://bucket/folder")]
    node, own = uri.startswith(NODE_SCHEME), default_uri(identity, settings)
    message = _node_fault(uri, identity, settings) if node else _bucket_fault(uri)
    if message is not None:
        subject = f"the platform's default {uri}" if default else uri
        return [SpecError(FIELD, f"{subject} {message}")]
    if node or with_keys or f"{uri}/".startswith(f"{own}/"):
        return []
    keys = " and ".join(object_store.REQUIRED_KEYS)
    lent = f"; the platform's own keys or role are lent for {own} alone" if own else ""
    return [SpecError(SECRET_FIELD, f"is missing: name a Secret with {keys} that opens {uri}{lent}")]


def _node_fault(uri: str, identity: str, settings: StorageSettings) -> str | None:
    if not settings.node_folder:
        return "is a folder of one node, which this platform doesn't allow: write s3://bucket/folder, or switch the chart's storage.nodeFolder on"
    root = f"{NODE_SCHEME}{settings.node_folder.rstrip('/')}/"
    if uri == f"{root}{identity}":
        return None
    # One level and no deeper: what a Pod mounts it may fill, also with a link to some other folder of the node.
    by_default = uri == default_uri(identity, settings) and uri.startswith(root)
    if by_default and posixpath.normpath(uri.removeprefix(NODE_SCHEME)) == uri.removeprefix(NODE_SCHEME):
        return None
    return (
        f"isn't the detector's own folder below the platform's: write {root}{identity}, or s3://bucket/folder"
    )


def _bucket_fault(uri: str) -> str | None:
    place = object_store.place(uri)
    if place is None or not _BUCKET.fullmatch(place.bucket) or ".." in place.bucket:
        return "names no bucket: write s3://bucket/folder, a bucket's name in lower-case letters, digits and dashes"
    parts = uri.removeprefix(object_store.SCHEME).split("/")[1:]
    if any(part in (".", "..") or not _FOLDER.fullmatch(part) for part in parts):
        return "has a folder that not all libraries spell alike: write letters, digits and -_.= between single slashes"
    return None
