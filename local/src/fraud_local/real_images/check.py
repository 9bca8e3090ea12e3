"""`make images-check`: what the images hold and whether their programs start, with sizes and SBOMs.

    python -m fraud_local.real_images.check [--container docker|podman]

Without a container tool named, the images are built first, from the same Dockerfiles, by buildah on Debian roots in place of the
base images (root of a Debian machine). With one, those that `make images` built are checked. Standard library only.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from fraud_local import paths
from fraud_local.real_images import archive, containers, on_debian, sbom
from fraud_local.real_images.confined import confined
from fraud_local.real_images.containers import Tool
from fraud_local.real_images.recipes import RECIPES, Recipe
from fraud_local.shell import LocalError, main, say
from fraud_local.version import code_version

OUT = paths.CLONE / "build" / "images"
IMPORT_ALL = """
import importlib, pkgutil, sys
for package in sys.argv[1:]:
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        importlib.import_module(module.name)
"""


def check(tool: Tool, recipe: Recipe, reference: str, file: Path) -> list[str]:
    """What is wrong with an image whose docker-archive is ``file``; prints its sizes and writes its SBOM."""
    content = archive.read(file)
    wrong = archive.problems(recipe, content, recipe.lock.read_text(), os.environ)
    wrong += _failed_starts(tool, recipe, reference, content)
    target = OUT / f"{recipe.name}.cdx.json"
    sbom.write(file, reference.rpartition(":")[0], code_version(), target)
    kinds = sbom.counts(target.read_text())
    wrong += [
        f"{recipe.name}: its SBOM names no {sbom.KINDS[kind]}"
        for kind in _expected(recipe)
        if not kinds[kind]
    ]
    say(f"{recipe.name}: {sum(content.files.values()) / 1e6:,.0f} MB in {len(content.layers)} layers")
    parts = ", ".join(f"{number} {sbom.KINDS[kind]}" for kind, number in kinds.items())
    say(f"  SBOM: {target.relative_to(paths.CLONE)} ({parts})")
    return wrong


def _expected(recipe: Recipe) -> tuple[str, ...]:
    return ("pypi", "deb", "maven") if recipe.name == "flink" else ("pypi", "deb")


def _failed_starts(tool: Tool, recipe: Recipe, reference: str, content: archive.ImageContent) -> list[str]:
    imports = [("python", "-c", IMPORT_ALL, *recipe.packages)] if recipe.packages else []
    failed = []
    with confined(tool, reference, content.settings) as image:
        for command in [*imports, *recipe.starts]:
            code, output = image.run(command)
            if code:
                shown = " ".join(command).replace(IMPORT_ALL, "import all of")
                failed.append(f"{recipe.name}: `{shown}` ended with {code}: {output.strip()[-1500:]}")
    return failed


def command() -> None:
    parser = argparse.ArgumentParser(prog="make images-check")
    parser.add_argument(
        "--container", default="", help="docker or podman: check what make images built with it"
    )
    name = parser.parse_args().container
    wrong = []
    if name:
        tool = containers.choose(name)
        OUT.mkdir(parents=True, exist_ok=True)
        for recipe in RECIPES:
            with tempfile.TemporaryDirectory(dir=OUT) as folder:
                file = Path(folder) / "image.tar"
                containers.save(tool, recipe.reference(), file)
                wrong += check(tool, recipe, recipe.reference(), file)
    else:
        archives = on_debian.ensure()
        for recipe in RECIPES:
            reference = recipe.reference(on_debian.REGISTRY)
            wrong += check(on_debian.tool(), recipe, reference, archives[recipe.name])
    if wrong:
        raise LocalError("the images aren't as they must be:\n" + "\n".join(f"  - {one}" for one in wrong))
    say(f"{len(RECIPES)} images: as they must be")


if __name__ == "__main__":
    main(command)
