"""`make base-images`: the Dockerfiles' base images with the digests that their tags have now, a line each, as NAME=image.

    python -m fraud_local.real_images.bases

Docker asks the registry; nothing is pulled. `make images` and `make publish` take the lines as environment variables. Standard
library only.
"""

from __future__ import annotations

import re

from fraud_local.real_images import build as images_build
from fraud_local.real_images.recipes import RECIPES
from fraud_local.shell import LocalError, main, run

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def defaults() -> dict[str, str]:
    """The base images that the Dockerfiles name, by argument; LocalError where two of them disagree."""
    images: dict[str, str] = {}
    for recipe in RECIPES:
        for name, image in re.findall(r"^ARG (\w+)=([^\s$]+)$", recipe.dockerfile.read_text(), re.M):
            if name in images_build.BASES and images.setdefault(name, image) != image:
                raise LocalError(f"{recipe.dockerfile}: {name} is {image} here and {images[name]} elsewhere")
    return images


def pinned(image: str) -> str:
    """The image with the digest that its tag has now; LocalError where the registry's answer holds none."""
    answer = run("docker", "buildx", "imagetools", "inspect", image, "--format", "{{json .Manifest}}")
    match = DIGEST.search(answer)
    if match is None:
        raise LocalError(f"the registry gave no digest for {image}: {answer[:300]}")
    return f"{image}@{match[0]}"


def command() -> None:
    for name, image in defaults().items():
        print(f"{name}={pinned(image)}")


if __name__ == "__main__":
    main(command)
