"""KServe storage initializer for ``mlflow://models/<name>/<version>#sha256=<hex>``: ``python -m fraud_serving.initializer SRC DST``.

A detector with an MLflow of its own has it in the URI, ``<version>?server=<percent-encoded URL>#…``; else it is the platform's.
Downloads one fixed version's package, checks every file against the manifest and the manifest against the digest, and
only then puts the files in place. An alias is refused: replicas started at different times must serve the same model.
On failure the reason is the last line on standard output (KServe shows it) and the exit code is 1.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote

from fraud_contracts import log, model_package
from fraud_contracts.model_package import SOURCE, PackageError
from fraud_process.registry_access import log_in

_URI: Final = re.compile(r"mlflow://models/([^/#]+)/([1-9][0-9]*)(?:\?server=([^#]+))?#sha256=([0-9a-f]{64})")
# A server that is restarting is asked again for so long; the kubelet restarts us after that.
_RETRIES: Final = "4"
_CHUNK: Final = 1 << 20


class ModelUri(NamedTuple):
    name: str
    version: str
    digest: str
    server: str | None


def parse_model_uri(uri: str) -> ModelUri:
    """What the URI names; ValueError says what form is expected."""
    match = _URI.fullmatch(uri)
    if match is None:
        raise ValueError(f"{uri!r} is not of the form mlflow://models/<name>/<version>#sha256=<64 hex>")
    return ModelUri(match[1], match[2], match[4], unquote(match[3]) if match[3] else None)


def fetch(uri: str, target: Path) -> None:
    """Leaves the verified package in ``target``, or raises and leaves it as it was."""
    name, version, digest, server = parse_model_uri(uri)
    address = log_in(server)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", _RETRIES)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault(
        "HOME", tempfile.gettempdir()
    )  # an init container's user has none, MLflow asks for it
    # Imported late: it takes a second, and a malformed URI should be told at once.
    from mlflow.tracking import MlflowClient

    # Tells in words of a version that isn't there, and of a login that may not read it.
    MlflowClient(address, address).get_model_version(name, version)
    target.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that moving is a rename within one volume.
    with tempfile.TemporaryDirectory(dir=target, prefix=".incoming-") as scratch:
        folder = Path(scratch)
        _download(address, name, version, model_package.MANIFEST, folder)
        data = (folder / model_package.MANIFEST).read_bytes()
        for file in model_package.listed(model_package.read_manifest(data, f"sha256:{digest}")):
            _download(address, name, version, file, folder)
        manifest = model_package.verify(folder, f"sha256:{digest}")
        for file in (*manifest["files"], model_package.MANIFEST):
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(folder / file, target / file)
    origin = {"uri": uri, "name": name, "version": version, "digest": f"sha256:{digest}"}
    (target / SOURCE).write_text(json.dumps(origin))


def _download(address: str, name: str, version: str, path: str, folder: Path) -> None:
    """One file of the version, asked for as the model's: who may read that needs no right to the run that it was made in.

    The bytes come through the server; its object store may be out of our reach.
    """
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    query = {"name": name, "version": version, "path": path}
    answer = http_request(
        get_default_host_creds(address), "/model-versions/get-artifact", "GET", params=query, stream=True
    )
    if answer.status_code != 200:
        raise PackageError(f"{path} of version {version} of {name} can't be read: HTTP {answer.status_code}")
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as out:
        for part in answer.iter_content(_CHUNK):
            out.write(part)


def main(arguments: list[str]) -> int:
    log.setup()
    if len(arguments) != 2:
        print("usage: python -m fraud_serving.initializer SRC DST")  # noqa: T201 - KServe reads standard output
        return 2
    try:
        fetch(arguments[0], Path(arguments[1]))
    except Exception as error:  # whatever it was, it must be told and the Pod must not start
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"the model was not fetched: {text[:1000]}", flush=True)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
