"""An image's software bill of materials: its Python packages, Debian packages and jars, as CycloneDX by syft. Standard library only."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from fraud_local import build, paths
from fraud_local.shell import run

MODULE = paths.LOCAL / "sbom"
# As the identifiers of components name the kinds of packages, and as people do.
KINDS = {"pypi": "Python packages", "deb": "Debian packages", "maven": "jars"}


def tool() -> Path:
    """syft, compiled from its pinned module the first time, which takes minutes."""
    files = [MODULE / "go.mod", MODULE / "go.sum"]

    def compile_syft() -> None:
        paths.SBOM_TOOL.parent.mkdir(parents=True, exist_ok=True)
        run(
            "nice", "-n", "5", "go", "build", "-buildvcs=false", "-mod=readonly", "-ldflags=-s -w",
            "-o", paths.SBOM_TOOL, "github.com/anchore/syft/cmd/syft", cwd=MODULE, env={"CGO_ENABLED": "0"},
        )  # fmt: skip

    build.step(
        "sbom", "syft (Go; minutes the first time)", build.digest(*files), paths.SBOM_TOOL, compile_syft
    )
    return paths.SBOM_TOOL


def write(archive: Path, name: str, version: str, target: Path) -> None:
    """The SBOM of the image in a docker-archive, under that name and version."""
    _scan(f"docker-archive:{archive}", name, version, target, {})


def write_published(image: str, platform: str, version: str, target: Path, plain_http: bool) -> None:
    """The SBOM of an image in its registry, which holds one for each platform."""
    insecure = {"SYFT_REGISTRY_INSECURE_USE_HTTP": "true"} if plain_http else {}
    _scan(f"registry:{image}", image.partition("@")[0], version, target, insecure, "--platform", platform)


def _scan(
    source: str, name: str, version: str, target: Path, environ: Mapping[str, str], *options: str
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    run(
        tool(), "scan", source, "--quiet", "--source-name", name, "--source-version", version, *options,
        "--output", f"cyclonedx-json={target}", env={"SYFT_CHECK_FOR_APP_UPDATE": "false", **environ},
    )  # fmt: skip


def counts(text: str) -> dict[str, int]:
    """How many components of each kind an SBOM names."""
    identifiers = (str(one.get("purl", "")) for one in json.loads(text).get("components", []))
    kinds = Counter(match[1] for match in (re.match(r"pkg:([a-z]+)/", one) for one in identifiers) if match)
    return {kind: kinds[kind] for kind in KINDS}
