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
from fraud_local.real_images.recipes import REGISTRY
from fraud_local.shell import LocalError, run
from fraud_local.version import CHART, project_version

# Images of the chart that are another's under a name of their own.
SAME = {"sinks": "serving", "console": "serving"}


def helm() -> str:
    """helm of PATH, else the node's; LocalError where there is none."""
    program = shutil.which("helm", path=f"{paths.NODE_BIN}:/usr/local/bin:/usr/bin:/bin") or shutil.which(
        "helm"
    )
    if program is None:
        raise LocalError("helm is not on PATH; install it, or let `make cluster-up` build it")
    return program


def digests(images: Mapping[str, str]) -> dict[str, str]:
    """The digest of every image of ours by the chart's names, from the published references."""
    own = {name: reference.partition("@")[2] for name, reference in images.items()}
    return {**own, **{name: own[image] for name, image in SAME.items()}}


def trial_stores(upstream: str) -> dict[str, str]:
    """Full references of the trial stores' images, from the text of upstream-images.yaml."""
    stores = dict(re.findall(r"^    (\w+): (\S+)$", upstream, re.M))
    if not stores:
        raise LocalError("upstream-images.yaml names no image")
    return stores


def released_values(values: str, registry: str, images: Mapping[str, str], upstream: str) -> str:
    """The text of values.yaml with a release's images as defaults; LocalError where it has no place for them.

    Ours have their registry apart from their digests, so that who has a mirror names that alone.
    """
    defaults = {
        f"  registry: {REGISTRY}\n": f"  registry: {registry}\n",
        "  digests: {}\n": f"  digests: {json.dumps(digests(images))}\n",
        "  overrides: {}\n": f"  overrides: {json.dumps(trial_stores(upstream))}\n",
    }
    for line, released in defaults.items():
        if values.count(line) != 1:
            raise LocalError(f"the chart's values have no line {line.strip()!r} for a release's images")
        values = values.replace(line, released)
    return values


def package(registry: str, images: Mapping[str, str], target: Path) -> Path:
    """The chart with the images that were published there as its defaults, packed by helm into ``target``."""
    with tempfile.TemporaryDirectory() as folder:
        chart = Path(folder) / CHART.name
        shutil.copytree(CHART, chart)
        file, upstream = chart / "values.yaml", (CHART / "upstream-images.yaml").read_text()
        file.write_text(released_values(file.read_text(), registry, images, upstream))
        run(helm(), "package", chart, "--destination", target)
    return target / f"{CHART.name}-{project_version()}.tgz"


def push(archive: Path, registry: str, local: bool) -> None:
    """The package as an OCI artefact below ``registry``, which begins with oci://."""
    run(helm(), "push", archive, registry, *(["--plain-http"] if local else []))
