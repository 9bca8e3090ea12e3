"""`make publish`: a release's images for every processor, their SBOMs, and the chart that names them by digest, into a registry.

    python -m fraud_local.real_images.publish --registry HOST/PATH [--platforms linux/amd64,linux/arm64] [--container docker|buildah]

What it published lies in ``build/release``: ``images.json``, an SBOM for each image and processor, and the chart's package.
Standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fraud_local import paths
from fraud_local.real_images import build as images_build
from fraud_local.real_images import chart_package, containers, sbom
from fraud_local.real_images.containers import Tool
from fraud_local.real_images.recipes import RECIPES, Recipe
from fraud_local.shell import CommandError, LocalError, main, say
from fraud_local.version import code_version, project_version

OUT = paths.CLONE / "build" / "release"
PLATFORMS = "linux/amd64,linux/arm64"


@dataclass(frozen=True)
class Release:
    """Where it goes and how it is built: ``platforms`` joined by commas, ``bases`` by the Dockerfiles' arguments, the tool's options."""

    tool: Tool
    registry: str
    platforms: str
    bases: Mapping[str, str]
    options: Sequence[str] = ()

    @property
    def local(self) -> bool:
        """A registry of this machine speaks plain HTTP; every other must have TLS."""
        return re.match(r"(localhost|127\.0\.0\.1)(:\d+)?(/|$)", self.registry) is not None


def publish(release: Release) -> Path:
    """All of a release; the path of the chart's package."""
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    images = {recipe.name: push(release, recipe) for recipe in RECIPES}
    document = {
        "version": project_version(), "code": code_version(), "platforms": release.platforms.split(","),
        "bases": {name: release.bases[name] for name in images_build.BASES if name in release.bases}, "images": images,
    }  # fmt: skip
    (OUT / "images.json").write_text(json.dumps(document, indent=1) + "\n")
    for name, image in images.items():
        for platform in release.platforms.split(","):
            target = OUT / f"{name}-{platform.replace('/', '-')}.cdx.json"
            sbom.write_published(image, platform, code_version(), target, release.local)
    package = chart_package.package(release.registry, images, OUT)
    chart_package.push(package, f"oci://{release.registry}/charts", release.local)
    say(f"published under {release.registry}: {len(images)} images and the chart {project_version()}")
    return package


def push(release: Release, recipe: Recipe) -> str:
    """Builds and pushes an image; its name by the digest that stands for all its platforms."""
    reference = recipe.reference(release.registry)
    say(f"{reference} for {release.platforms} ...")
    answer = OUT / f"{recipe.name}.answer"
    forget(release, recipe)
    for command in push_commands(release, recipe, answer):
        release.tool.show(*command)
    digest = re.search(r"sha256:[0-9a-f]{64}", _digest_text(answer.read_text()))
    if digest is None:
        raise LocalError(f"{release.tool.name} told no digest of {reference}")
    answer.unlink()
    return f"{release.registry}/{recipe.name}@{digest[0]}"


def forget(release: Release, recipe: Recipe) -> None:
    """Takes away buildah's list of an image's platforms; a build adds to one that is there, and pushes what an earlier one had."""
    if release.tool.name != "buildah":
        return
    reference = recipe.reference(release.registry)
    try:
        release.tool.run("manifest", "exists", reference)
    except CommandError as error:
        if error.code != 1:  # 1 is its word for no
            raise
        return
    release.tool.run("manifest", "rm", reference)


def push_commands(release: Release, recipe: Recipe, answer: Path) -> list[list[str]]:
    """The tool's subcommands that build an image for all platforms and push it; its digest ends in the file ``answer``."""
    reference, tool = recipe.reference(release.registry), release.tool.name
    arguments = images_build.build_arguments(recipe, release.bases)
    options = [f"--platform={release.platforms}", *release.options]
    if tool == "docker":
        options += ["--push", f"--metadata-file={answer}", f"--tag={reference}"]
        return [["buildx", *containers.build_arguments(tool, recipe.dockerfile, arguments, options)]]
    options.append(f"--manifest={reference}")
    secure = f"--tls-verify={str(not release.local).lower()}"
    push = ["manifest", "push", "--all", secure, f"--digestfile={answer}", reference, f"docker://{reference}"]
    return [containers.build_arguments(tool, recipe.dockerfile, arguments, options), push]


def _digest_text(answer: str) -> str:
    """Where the digest stands: buildx writes a document with others beside it, buildah the digest alone."""
    return str(json.loads(answer)["containerimage.digest"]) if answer.startswith("{") else answer


def command() -> None:
    parser = argparse.ArgumentParser(prog="make publish")
    parser.add_argument("--registry", required=True, help="such as registry.example.com/fraud-platform")
    parser.add_argument("--platforms", default=PLATFORMS, help="joined by commas")
    parser.add_argument("--container", default="", help="docker (with buildx) or buildah")
    options = parser.parse_args()
    if not re.fullmatch(r"[a-z0-9.-]+(:\d+)?(/[a-z0-9._-]+)+", options.registry):
        raise LocalError(
            f"REGISTRY={options.registry}: it must be host/path, in small letters and without a tag"
        )
    tool = containers.choose(options.container)
    if tool.name == "podman":
        raise LocalError(
            "images for several processors are published by docker or buildah: CONTAINER=buildah"
        )
    publish(Release(tool, options.registry, options.platforms, os.environ))


if __name__ == "__main__":
    main(command)
