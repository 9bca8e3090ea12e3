"""An earlier version of the platform beside this one on the node: its chart, and development images that its sources fill.

It runs in the environments of this version: what an upgrade of the product changes is its own code, chart and records.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Final

import yaml

from fraud_local import images, node, paths, version
from fraud_local.shell import LocalError

# The last commit before a detector could have two streaming jobs (docs/decisions/0019): until a release is tagged, what people may run.
COMMIT: Final = "7962a85"
TAG: Final = "earlier"
SOURCE: Final = "flink/src/fraud_flink/job.py"
PROGRAM: Final = f"{paths.POD_CLONE}/{SOURCE}"
FOLDER: Final = paths.CLONE / "build" / TAG


def unpack() -> Path:
    """Its files, in ``build/``; returns the folder of its chart."""
    made = subprocess.run(
        ["git", "-C", paths.CLONE, "archive", COMMIT], check=False, capture_output=True, timeout=60
    )
    if made.returncode:
        raise LocalError(
            f"commit {COMMIT} isn't in this clone, which the upgrade begins with: clone with all history, or `git fetch --unshallow`"
        )
    shutil.rmtree(FOLDER, ignore_errors=True)
    with tarfile.open(fileobj=io.BytesIO(made.stdout)) as tar:
        tar.extractall(FOLDER, filter="data")
    # The streaming job's program is named by its path, which is in the image else: here the clone of this version lies there.
    settings = FOLDER / "operator" / "src" / "fraud_operator" / "settings.py"
    text = settings.read_text()
    if PROGRAM not in text:
        raise LocalError(f"{settings} doesn't name {PROGRAM}: say in {Path(__file__).name} where it is now")
    settings.write_text(
        text.replace(PROGRAM, f"{paths.POD_CLONE}/{FOLDER.relative_to(paths.CLONE)}/{SOURCE}")
    )
    return FOLDER / version.CHART.relative_to(paths.CLONE)


def load_images() -> None:
    """Its images are on the node afterwards, with a tag of their own. Those without our code are this version's."""
    archives = []
    for image in images.development_images():
        if not image.sources:
            continue
        own = {name: (FOLDER / image.name / name).read_bytes() for name in image.files}
        sources = tuple(f"{FOLDER.relative_to(paths.CLONE)}/{source}" for source in image.sources)
        archive = FOLDER / f"{image.name}-{TAG}.tar"
        archive.write_bytes(images.archive(replace(image, tag=TAG, sources=sources, files=own)))
        archives.append(archive)
    node.import_images(archives)


def repositories() -> set[str]:
    """The images that run our code, without a tag."""
    return {image.reference.rpartition(":")[0] for image in images.development_images() if image.sources}


def values() -> list[str]:
    """For helm: its tag, but for the trial's stores, MLflow and what else has none of our code."""
    named = yaml.safe_load((version.CHART / "values.yaml").read_text())["images"]["names"].values()
    others = [image for image in images.development_images() if not image.sources and image.name in named]
    overrides = (f"images.overrides.{image.name}={image.reference}" for image in others)
    return [part for value in (f"images.tag={TAG}", *overrides) for part in ("--set", value)]
