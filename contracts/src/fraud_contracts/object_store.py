"""The object store as every process is told of it: an ``s3://`` URI, and AWS's own environment variables for the rest.

Each library that a component uses (Delta's, Arrow's, Hadoop's, the operator's) has a form of its own for endpoint and region; what
these forms are made from is here, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

SCHEME: Final = "s3://"
ACCESS_KEY: Final = "AWS_ACCESS_KEY_ID"
SECRET_KEY: Final = "AWS_SECRET_ACCESS_KEY"  # noqa: S105 - the variable's name
REGION: Final = "AWS_REGION"
ENDPOINT: Final = "AWS_ENDPOINT_URL"
# Of a Secret with an object store's keys: those that it must have, and all.
REQUIRED_KEYS: Final = (ACCESS_KEY, SECRET_KEY)
KEYS: Final = (*REQUIRED_KEYS, REGION, ENDPOINT)
# Stores other than AWS's ask for some region, too: it is part of a request's signature.
DEFAULT_REGION: Final = "us-east-1"


@dataclass(frozen=True)
class Place:
    """A bucket and a folder in it; ``folder`` has no slash at either end and is empty for the whole bucket."""

    bucket: str
    folder: str


def place(uri: str) -> Place | None:
    """Of an ``s3://`` URI; None for any other."""
    if not uri.startswith(SCHEME):
        return None
    bucket, _, folder = uri.removeprefix(SCHEME).partition("/")
    return Place(bucket, folder.strip("/"))


def is_plain_http(environ: Mapping[str, str]) -> bool:
    """Whether the endpoint asks for HTTP without TLS."""
    return environ.get(ENDPOINT, "").startswith("http://")


def arrow_options(environ: Mapping[str, str]) -> dict[str, str]:
    """Arguments of pyarrow's S3FileSystem, which finds the keys in the environment by itself."""
    options = {"region": environ.get(REGION) or DEFAULT_REGION}
    endpoint = environ.get(ENDPOINT)
    if endpoint:
        parts = urlsplit(endpoint)
        options |= {"scheme": parts.scheme, "endpoint_override": parts.netloc}
    return options
