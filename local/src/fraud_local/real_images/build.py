"""`make images`: the images from their Dockerfiles, with the container tool at hand.

    python -m fraud_local.real_images.build [--container docker|podman|buildah]

Base images are the Dockerfiles' own. Where they have to be others, as behind a proxy, the environment says so by the
Dockerfiles' names: PYTHON_IMAGE, BUILD_IMAGE, MAVEN_IMAGE. Standard library only.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence

from fraud_local.real_images import containers
from fraud_local.real_images.recipes import RECIPES, Recipe
from fraud_local.shell import main, say
from fraud_local.version import code_version

BASES = ("PYTHON_IMAGE", "BUILD_IMAGE", "MAVEN_IMAGE")


def base_images(recipe: Recipe, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment's base images that the Dockerfile has use for."""
    used = re.findall(r"^ARG (\w+)", recipe.dockerfile.read_text(), re.M)
    return {name: environ[name] for name in BASES if name in used and environ.get(name)}


def build_arguments(recipe: Recipe, bases: Mapping[str, str]) -> dict[str, str]:
    """What a Dockerfile is told: its base images, and which code this is."""
    return {**base_images(recipe, bases), "CODE_VERSION": code_version()}


def build(
    tool: containers.Tool,
    recipe: Recipe,
    reference: str,
    bases: Mapping[str, str],
    options: Sequence[str] = (),
) -> None:
    """One image under that name, with the tool's ``options``; LocalError where it fails."""
    say(f"{reference} ...")
    naming = ["--tag", reference, *options]
    tool.show(
        *containers.build_arguments(tool.name, recipe.dockerfile, build_arguments(recipe, bases), naming)
    )


def command() -> None:
    parser = argparse.ArgumentParser(prog="make images")
    parser.add_argument(
        "--container", default="", help="docker, podman or buildah; else the first that answers"
    )
    tool = containers.choose(parser.parse_args().container)
    for recipe in RECIPES:
        build(tool, recipe, recipe.reference(), os.environ)
    say(f"{len(RECIPES)} images, by {tool.name}")


if __name__ == "__main__":
    main(command)
