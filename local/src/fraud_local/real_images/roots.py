"""Debian roots in place of the Dockerfiles' base images, for machines that reach Debian's packages but no image registry.

A root holds what its base image brings: the same Debian, Python 3.11 or Maven, but no compiler, as every package that needs one has
a wheel for amd64. What a build has to know of this machine (its
certificate authorities, package index and proxy) is in the build's root alone, and of that no image keeps anything. Standard
library only.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shlex import quote

from fraud_local import build, paths
from fraud_local.real_images.containers import Tool
from fraud_local.shell import run

# The Debian of the Dockerfiles' base image; its Python is 3.11.
SUITE = "bookworm"
FOLDER = paths.BUILDAH / "roots"
# As Debian's own slim images: a package that needs a manual's folder fails here as it would there.
SLIM = (
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
)
AUTHORITIES = Path("/usr/local/share/ca-certificates")
AUTHORITIES_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
MACHINE_FILES = (Path("/etc/pip.conf"), Path("/etc/uv/uv.toml"), Path.home() / ".m2" / "settings.xml")
MACHINE_VARIABLES = re.compile(
    r"(PIP_(EXTRA_)?INDEX_URL|PIP_DEFAULT_TIMEOUT|UV_(DEFAULT_)?INDEX(_URL)?|(https?|no)_proxy)", re.I
)
# Programs that bring a list of authorities of their own take this machine's instead.
TRUST = {"PIP_CERT": AUTHORITIES_BUNDLE, "SSL_CERT_FILE": AUTHORITIES_BUNDLE}


@dataclass(frozen=True)
class Root:
    """A base image made of Debian packages; ``machine``: it gets this machine's authorities and settings."""

    argument: str
    name: str
    packages: tuple[str, ...]
    machine: bool = False

    @property
    def reference(self) -> str:
        return f"localhost/fraud-platform-root/{self.name}:{SUITE}"


# Debian splits distutils off; the Python of the base image has it.
PYTHON = ("ca-certificates", "netbase", "tzdata", "python3.11", "python3-distutils")
ROOTS = (
    # Python as a library, which the stream's JVM loads, is a package of its own, too.
    Root("PYTHON_IMAGE", "python", (*PYTHON, "libpython3.11")),
    Root("BUILD_IMAGE", "python-build", (*PYTHON, "python3-pip"), machine=True),
    Root("MAVEN_IMAGE", "maven", ("ca-certificates", "maven", "openjdk-17-jdk-headless"), machine=True),
)


def machine_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """What of the environment says how packages are reached from here."""
    return {name: value for name, value in environ.items() if MACHINE_VARIABLES.fullmatch(name)} | TRUST


def options(root: Root, files: Mapping[Path, str]) -> list[str]:
    """How mmdebstrap makes the root. ``files`` are copied to folders of the machine's roots."""
    if not root.machine:
        return list(SLIM)
    copies = [
        f'mkdir -p "$1"{quote(folder)} && cp {quote(str(file))} "$1"{quote(folder)}'
        for file, folder in files.items()
    ]
    # Debian forbids pip outside of an environment; in the image of a build nothing is there to be protected.
    commands = [
        *copies,
        'chroot "$1" update-ca-certificates',
        'rm -f "$1"/usr/lib/python3.*/EXTERNALLY-MANAGED',
    ]
    return [f"--customize-hook={command}" for command in commands]


def machine_files() -> dict[Path, str]:
    """This machine's authorities and settings of package clients, each with the folder that it goes to."""
    table = {file: str(AUTHORITIES) for file in sorted(AUTHORITIES.glob("*.crt"))}
    home = str(Path.home())
    for file in MACHINE_FILES:
        if file.exists():
            folder = str(file.parent)
            table[file] = f"/root{folder.removeprefix(home)}" if folder.startswith(f"{home}/") else folder
    return table


def mmdebstrap(packages: Sequence[str], options: Sequence[str], target: Path) -> None:
    """A Debian root with those packages and no recommended ones, as a tar file."""
    run(
        "nice", "-n", "5", "mmdebstrap", "--quiet", "--variant=apt", '--aptopt=Apt::Install-Recommends "false"',
        f"--include={','.join(packages)}", *options, SUITE, target,
    )  # fmt: skip


def ensure(tool: Tool) -> dict[str, str]:
    """Makes the roots that aren't there yet, and gives the name of each by the Dockerfiles' argument."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for root in ROOTS:
        files = machine_files() if root.machine else {}
        environ = machine_variables(os.environ) if root.machine else {}
        marker = FOLDER / root.name
        made_by = options(root, files)
        key = build.digest(repr((root, made_by, sorted(environ.items()))), *sorted(files))
        action = partial(_make, tool, root, made_by, environ, marker)
        build.step(f"image-root-{root.name}", f"Debian root {root.name}", key, marker, action)
    return {root.argument: root.reference for root in ROOTS}


def _make(tool: Tool, root: Root, made_by: list[str], environ: Mapping[str, str], marker: Path) -> None:
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        target = Path(folder) / "root.tar"
        mmdebstrap(root.packages, made_by, target)
        container = tool.run("from", "scratch").strip()
        try:
            tool.run("add", container, target, "/")
            settings = [part for item in environ.items() for part in ("--env", "=".join(item))]
            tool.run("config", *settings, "--cmd", '["bash"]', container)
            tool.run("commit", "--quiet", container, root.reference)
        finally:
            tool.run("rm", container)
    marker.touch()
