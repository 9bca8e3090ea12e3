"""The chart as a release has it: its images by digest, the trial stores' from their projects, so that it needs no file beside it.

Standard library only: the values are changed as text.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fraud_local import paths
from fraud_local.shell import LocalError, run
from fraud_local.version import CHART, project_version

# Images of the chart that are another's under a name of their own.
SAME = {"sinks": "serving", "console": "serving"}
EMPTY = "  overrides: {}\n"


def helm() -> str:
    """helm of PATH, else the node's; LocalError where there is none."""
    program = shutil.which("helm", path=f"{paths.NODE_BIN}:/usr/local/bin:/usr/bin:/bin") or shutil.which(
        "helm"
    )
    if program is None:
        raise LocalError("helm is not on PATH; install it, or let `make cluster-up` build it")
    return program


def overrides(images: Mapping[str, str], upstream: str) -> dict[str, str]:
    """Full references for every image of the chart: ours as published, the trial stores' from upstream-images.yaml."""
    stores = dict(re.findall(r"^    (\w+): (\S+)$", upstream, re.M))
    if not stores:
        raise LocalError("upstream-images.yaml names no image")
    return {**images, **{name: images[image] for name, image in SAME.items()}, **stores}


def package(images: Mapping[str, str], target: Path) -> Path:
    """The chart with those images as its defaults, packed by helm into ``target``; LocalError where the values have no place for them."""
    with tempfile.TemporaryDirectory() as folder:
        chart = Path(folder) / CHART.name
        shutil.copytree(CHART, chart)
        values = (chart / "values.yaml").read_text()
        if values.count(EMPTY) != 1:
            raise LocalError(f"the chart's values have no line {EMPTY.strip()!r} for the images' digests")
        references = overrides(images, (CHART / "upstream-images.yaml").read_text())
        (chart / "values.yaml").write_text(values.replace(EMPTY, f"  overrides: {json.dumps(references)}\n"))
        run(helm(), "package", chart, "--destination", target)
    return target / f"{CHART.name}-{project_version()}.tgz"


def push(archive: Path, registry: str, local: bool) -> None:
    """The package as an OCI artefact below ``registry``, which begins with oci://."""
    run(helm(), "push", archive, registry, *(["--plain-http"] if local else []))
