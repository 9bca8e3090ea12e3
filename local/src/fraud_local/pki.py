"""The node's certificates and kubeconfigs, made anew each time it comes up. Standard library and the openssl program.

EC keys: made in a second, where RSA keys take several under load.
"""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fraud_local import paths
from fraud_local.shell import run


@dataclass(frozen=True)
class Certificate:
    """One leaf: file name, subject, and the names and addresses that it serves under."""

    name: str
    subject: str
    names: tuple[str, ...] = ()


CERTIFICATES = (
    Certificate(
        "apiserver",
        "/CN=kube-apiserver",
        (
            "DNS:kubernetes", "DNS:kubernetes.default", "DNS:kubernetes.default.svc",
            "DNS:kubernetes.default.svc.cluster.local", "DNS:localhost", "IP:127.0.0.1",
            f"IP:{paths.NODE_ADDRESS}", f"IP:{paths.API_SERVICE}",
        ),
    ),
    Certificate("kubelet", f"/O=system:nodes/CN=system:node:{paths.NODE}", (f"DNS:{paths.NODE}", f"IP:{paths.NODE_ADDRESS}")),
    Certificate("admin", "/O=system:masters/CN=admin"),
    Certificate("controller-manager", "/CN=system:kube-controller-manager"),
    Certificate("scheduler", "/CN=system:kube-scheduler"),
    Certificate("kube-proxy", "/CN=system:kube-proxy"),
    Certificate("apiserver-kubelet", "/O=system:masters/CN=apiserver-kubelet"),
    Certificate("webhook", "/CN=webhook", ("DNS:localhost", "IP:127.0.0.1", f"IP:{paths.NODE_ADDRESS}")),
)  # fmt: skip
KUBECONFIGS = ("kubelet", "admin", "controller-manager", "scheduler", "kube-proxy")
DAYS = 365


def extensions(certificate: Certificate) -> str:
    """The leaf's X.509 extensions, as openssl reads them."""
    lines = ["keyUsage=digitalSignature,keyEncipherment", "extendedKeyUsage=serverAuth,clientAuth"]
    if certificate.names:
        lines.append(f"subjectAltName={','.join(certificate.names)}")
    return "\n".join(lines) + "\n"


def kubeconfig(server: str, authority: bytes, certificate: bytes, key: bytes) -> str:
    """A kubeconfig with everything in it; JSON is YAML too."""

    def encoded(data: bytes) -> str:
        return base64.b64encode(data).decode()

    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "local",
                    "cluster": {"server": server, "certificate-authority-data": encoded(authority)},
                }
            ],
            "users": [
                {
                    "name": "local",
                    "user": {
                        "client-certificate-data": encoded(certificate),
                        "client-key-data": encoded(key),
                    },
                }
            ],
            "contexts": [{"name": "local", "context": {"cluster": "local", "user": "local"}}],
            "current-context": "local",
        },
        indent=1,
    )


def create(folder: Path) -> None:
    """Certificate authority, leaves, service-account key and kubeconfigs under ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    run(
        "openssl", "req", "-x509", *curve, "-days", str(DAYS), "-keyout", folder / "ca.key", "-out", folder / "ca.crt",
        "-subj", "/CN=fraud-platform-local",
    )  # fmt: skip
    run(
        "openssl",
        "genpkey",
        "-algorithm",
        "RSA",
        "-pkeyopt",
        "rsa_keygen_bits:2048",
        "-out",
        folder / "service-account.key",
    )
    run(
        "openssl",
        "pkey",
        "-in",
        folder / "service-account.key",
        "-pubout",
        "-out",
        folder / "service-account.pub",
    )

    def leaf(certificate: Certificate) -> None:
        base = folder / certificate.name
        base.with_suffix(".ext").write_text(extensions(certificate))
        run(
            "openssl", "req", *curve, "-keyout", base.with_suffix(".key"), "-out", base.with_suffix(".csr"),
            "-subj", certificate.subject,
        )  # fmt: skip
        run(
            "openssl", "x509", "-req", "-in", base.with_suffix(".csr"), "-CA", folder / "ca.crt", "-CAkey", folder / "ca.key",
            "-set_serial", str(CERTIFICATES.index(certificate) + 2), "-days", str(DAYS), "-out", base.with_suffix(".crt"),
            "-extfile", base.with_suffix(".ext"),
        )  # fmt: skip

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(leaf, CERTIFICATES))
    authority = (folder / "ca.crt").read_bytes()
    for name in KUBECONFIGS:
        text = kubeconfig(
            paths.API_URL,
            authority,
            (folder / f"{name}.crt").read_bytes(),
            (folder / f"{name}.key").read_bytes(),
        )
        target = folder / f"{name}.kubeconfig"
        target.write_text(text)
        target.chmod(0o600)
