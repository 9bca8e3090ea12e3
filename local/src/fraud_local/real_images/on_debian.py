"""The images built without Docker and without an image registry: by buildah, on Debian roots, from the same Dockerfiles.

buildah keeps what it makes below ``paths.BUILDAH``, apart from its user's own images. Standard library only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from fraud_local import build, paths
from fraud_local.real_images import build as images_build
from fraud_local.real_images import containers, roots
from fraud_local.real_images.containers import Tool
from fraud_local.real_images.recipes import RECIPES, Recipe
from fraud_local.shell import LocalError

# Never pulled: an image of this name was built here.
REGISTRY = "localhost/fraud-platform"
# On this machine's network, as its package registries may be reached from nowhere else, and with what uv has fetched before.
WHEELS = Path.home() / ".cache" / "uv"
OPTIONS = ("--network=host", "--pull=never", f"--volume={WHEELS}:/root/.cache/uv")
PROGRAMS = {"buildah": "buildah", "mmdebstrap": "mmdebstrap", "runc": "runc"}
ANYWHERE = "**/"


def tool() -> Tool:
    """buildah with a storage of its own; LocalError where this machine can't have it."""
    if os.geteuid() != 0:
        raise LocalError(
            "images on Debian roots are built by root; with Docker or podman, `make images` needs no root"
        )
    build.packages(PROGRAMS)
    WHEELS.mkdir(parents=True, exist_ok=True)
    storage = ("--root", str(paths.BUILDAH / "storage"), "--runroot", str(paths.BUILDAH / "run"))
    return Tool("buildah", (*storage, "--storage-driver", "overlay"))


def ignored(path: Path) -> bool:
    """Whether .dockerignore leaves the file of the clone out wherever it lies, so that it changes no image."""
    lines = (paths.CLONE / ".dockerignore").read_text().splitlines()
    patterns = [line.removeprefix(ANYWHERE) for line in lines if line.startswith(ANYWHERE)]
    parts = path.relative_to(paths.CLONE).parts
    return any(fnmatch(part, pattern) for part in parts for pattern in patterns)


def inputs(recipe: Recipe) -> Iterator[Path]:
    """The files that an image is made of: its Dockerfile, and what that copies."""
    yield recipe.dockerfile
    for source in re.findall(r"^COPY (?!--from)(\S+) ", recipe.dockerfile.read_text(), re.M):
        path = paths.CLONE / source
        below = sorted(path.rglob("*")) if path.is_dir() else [path]
        yield from (one for one in below if one.is_file() and not ignored(one))


def ensure() -> dict[str, Path]:
    """The images as archives, by name; built again only where a file of theirs has changed."""
    builder = tool()
    bases = roots.ensure(builder)
    paths.BUILT_IMAGES.mkdir(parents=True, exist_ok=True)
    archives = {recipe.name: paths.BUILT_IMAGES / f"{recipe.name}.tar" for recipe in RECIPES}
    for recipe in RECIPES:
        target = archives[recipe.name]
        names = [part for path in inputs(recipe) for part in (str(path.relative_to(paths.CLONE)), path)]
        key = build.digest(recipe.reference(REGISTRY), *(repr(root) for root in roots.ROOTS), *names)
        action = partial(_make, builder, recipe, bases, target)
        build.step(f"image-{recipe.name}", f"image {recipe.name}", key, target, action)
    # Layers of earlier builds, and of stages that only gave files: each build would leave some gigabytes of them.
    builder.run("rmi", "--prune", "--force")
    return archives


def _make(builder: Tool, recipe: Recipe, bases: Mapping[str, str], target: Path) -> None:
    reference = recipe.reference(REGISTRY)
    images_build.build(builder, recipe, reference, bases, OPTIONS)
    containers.save(builder, reference, target)
