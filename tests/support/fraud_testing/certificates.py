"""Certificates for servers that tests start with TLS: an authority of the test's own and a server's on loopback."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def missing() -> str | None:
    return None if shutil.which("openssl") else "openssl is not installed"


@dataclass(frozen=True)
class Certificates:
    """Files in one folder: the authority's certificate, the server's and its key."""

    folder: Path

    @property
    def authority(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def server(self) -> Path:
        return self.folder / "server.crt"

    @property
    def key(self) -> Path:
        return self.folder / "server.key"


def make(folder: Path) -> Certificates:
    """A new authority and a certificate of it for 127.0.0.1 and localhost, good for a day."""
    made = Certificates(folder)
    folder.mkdir(parents=True, exist_ok=True)
    authority_key = folder / "ca.key"
    _openssl("req", "-x509", *_CURVE, "-keyout", authority_key, "-out", made.authority, "-subj", "/CN=tests")
    request, names = folder / "server.csr", folder / "names"
    names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    _openssl("req", *_CURVE, "-keyout", made.key, "-out", request, "-subj", "/CN=localhost")
    signing = ("-CA", made.authority, "-CAkey", authority_key, "-CAcreateserial", "-days", "1")
    _openssl("x509", "-req", "-in", request, "-out", made.server, "-extfile", names, *signing)
    return made


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
