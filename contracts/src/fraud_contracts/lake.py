"""The lake's place and tables: what the sink writes and training reads, below ``<storage.uri>/lake``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fraud_contracts import object_store

DECISIONS: Final = "decisions"
LABELS: Final = "labels"


def table(storage_uri: str, name: str) -> str:
    return f"{storage_uri.rstrip('/')}/lake/{name}"


def storage_options(uri: str, environ: Mapping[str, str]) -> dict[str, str] | None:
    """For S3: a commit never overwrites another one, and plain HTTP is allowed only where AWS_ENDPOINT_URL says http."""
    if object_store.place(uri) is None:
        return None
    options = {"aws_conditional_put": "etag"}
    if object_store.is_plain_http(environ):
        options["aws_allow_http"] = "true"
    return options
