"""The certificates that the Strimzi stand-in makes, as PEM: the authorities of a cluster, and what they vouch for. By the openssl program.

Subjects are Strimzi's: the brokers know each other and the entity operators by them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fraud_local.shell import run

DAYS = 365
_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


@dataclass(frozen=True)
class KeyPair:
    """A private key and its certificate."""

    key: str = field(repr=False)
    certificate: str


def principal(name: str) -> str:
    """How Kafka calls the bearer of a certificate."""
    return f"CN={name},O=io.strimzi"


def _subject(name: str) -> str:
    return f"/O=io.strimzi/CN={name}"


def authority(name: str) -> KeyPair:
    """One that vouches for others, such as ``cluster-ca v0``."""
    with tempfile.TemporaryDirectory() as folder:
        key, certificate = Path(folder, "key"), Path(folder, "crt")
        run(
            "openssl", "req", "-x509", *_CURVE, "-days", str(DAYS), "-subj", _subject(name),
            "-keyout", key, "-out", certificate,
        )  # fmt: skip
        return KeyPair(key.read_text(), certificate.read_text())


def vouched(by: KeyPair, name: str, hosts: Sequence[str] = ()) -> KeyPair:
    """A certificate for servers under ``hosts`` and for clients."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {part: Path(folder, part) for part in ("ca.crt", "ca.key", "key", "csr", "ext", "crt")}
        paths["ca.crt"].write_text(by.certificate)
        paths["ca.key"].write_text(by.key)
        extensions = "extendedKeyUsage=serverAuth,clientAuth\n"
        if hosts:
            extensions += f"subjectAltName={','.join(f'DNS:{host}' for host in hosts)}\n"
        paths["ext"].write_text(extensions)
        run("openssl", "req", *_CURVE, "-subj", _subject(name), "-keyout", paths["key"], "-out", paths["csr"])
        run(
            "openssl", "x509", "-req", "-in", paths["csr"], "-CA", paths["ca.crt"], "-CAkey", paths["ca.key"],
            "-CAcreateserial", "-days", str(DAYS), "-extfile", paths["ext"], "-out", paths["crt"],
        )  # fmt: skip
        return KeyPair(paths["key"].read_text(), paths["crt"].read_text())
