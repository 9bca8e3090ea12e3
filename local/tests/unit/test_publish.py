"""A release's parts that need no registry: commands, digests, the chart's values, the tag."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from fraud_local import paths, version
from fraud_local.real_images import bases, chart_package, publish
from fraud_local.real_images.containers import Tool
from fraud_local.real_images.recipes import RECIPES
from fraud_local.shell import CommandError, LocalError

DIGEST = f"sha256:{'0' * 64}"
CHART = paths.CLONE / "charts" / "fraud-platform"


def release(tool: str, registry: str = "registry.example.com/pay") -> publish.Release:
    return publish.Release(Tool(tool), registry, "linux/amd64,linux/arm64", {"PYTHON_IMAGE": "p@sha256:1"})


def test_docker_builds_all_platforms_and_pushes_in_one() -> None:
    """buildx writes the digest of all platforms together into the file that it is given."""
    (command,) = publish.push_commands(release("docker"), RECIPES[0], Path("/answer"))
    assert command[:2] == ["buildx", "build"]
    wanted = {"--platform=linux/amd64,linux/arm64", "--push", "--metadata-file=/answer"}
    assert wanted <= set(command)
    assert "PYTHON_IMAGE=p@sha256:1" in command
    assert f"--tag=registry.example.com/pay/operator:{version.project_version()}" in command


@pytest.mark.parametrize(
    ("registry", "secure"),
    [
        ("registry.example.com/pay", "true"),
        ("localhost.example.com/pay", "true"),
        ("localhost:5000/pay", "false"),
        ("127.0.0.1:5000/pay", "false"),
    ],
)
def test_buildah_builds_a_list_and_pushes_it(registry: str, secure: str) -> None:
    """Only a registry of this machine may do without TLS."""
    build, push = publish.push_commands(release("buildah", registry), RECIPES[0], Path("/answer"))
    reference = f"{registry}/operator:{version.project_version()}"
    assert f"--manifest={reference}" in build
    assert push[:3] == ["manifest", "push", "--all"]
    assert {f"--tls-verify={secure}", "--digestfile=/answer", f"docker://{reference}"} <= set(push)


@dataclass(frozen=True)
class Buildah(Tool):
    """It has one list, or fails in another way."""

    name: str = "buildah"
    code: int = 0
    commands: list[tuple[str, ...]] = field(default_factory=list)

    def run(self, *arguments: str | Path) -> str:
        self.commands.append(tuple(map(str, arguments)))
        if self.code and "exists" in arguments:
            raise CommandError(("buildah",), self.code, "")
        return ""


@pytest.mark.parametrize(("code", "removed"), [(0, True), (1, False)])
def test_an_earlier_builds_list_goes_first(code: int, removed: bool) -> None:
    """buildah would add to it, and push images of another build; where there is none there is nothing to do."""
    tool = Buildah(code=code)
    publish.forget(publish.Release(tool, "registry.example.com/pay", "linux/amd64", {}), RECIPES[0])
    reference = RECIPES[0].reference("registry.example.com/pay")
    assert (("manifest", "rm", reference) in tool.commands) is removed


def test_a_storage_that_cant_be_asked_is_an_error() -> None:
    """It isn't taken for one without a list."""
    with pytest.raises(CommandError):
        publish.forget(publish.Release(Buildah(code=125), "r.example.com/p", "linux/amd64", {}), RECIPES[0])


def test_a_digest_is_read_from_either_tool() -> None:
    """buildx writes a document, in which other digests stand too; buildah the digest alone."""
    document = {"containerimage.config.digest": "sha256:other", "containerimage.digest": DIGEST}
    assert publish._digest_text(json.dumps(document)) == DIGEST
    assert publish._digest_text(f"{DIGEST}\n").strip() == DIGEST


IMAGES = {recipe.name: f"registry.example.com/pay/{recipe.name}@{DIGEST}" for recipe in RECIPES}


def test_a_released_chart_names_every_image() -> None:
    """Ours by registry and digest, sinks and console as the image that they share, the trial stores' from their projects."""
    upstream = (CHART / "upstream-images.yaml").read_text()
    text = chart_package.released_values(
        (CHART / "values.yaml").read_text(), "registry.example.com/pay", IMAGES, upstream
    )
    images = yaml.safe_load(text)["images"]
    assert images["registry"] == "registry.example.com/pay" and images["tag"] == ""
    assert set(images["digests"].values()) == {DIGEST}
    assert {"redis", "postgres", "prometheus", "objects"} == images["overrides"].keys()
    schema: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    names = {*images["digests"], *images["overrides"]}
    assert names == set(images["names"]) == set(schema["definitions"]["image"]["enum"])


def test_values_without_a_place_for_the_images_are_refused() -> None:
    """A release whose chart named none of its images would be found out by its users only."""
    with pytest.raises(LocalError, match="registry"):
        chart_package.released_values("images: {}\n", "registry.example.com/pay", IMAGES, "    redis: r:7\n")


def test_base_images_are_those_of_all_dockerfiles() -> None:
    """A name stands for one image in every Dockerfile, with its registry and a tag, and without a digest."""
    defaults = bases.defaults()
    assert defaults.keys() == {"PYTHON_IMAGE", "BUILD_IMAGE", "MAVEN_IMAGE"}
    assert all(re.fullmatch(r"docker\.io/library/[a-z]+:[\w.-]+", image) for image in defaults.values())


def test_a_tag_is_that_of_the_version() -> None:
    """What isn't v and the chart's version is refused with the one that it would be."""
    version.require_tag(f"v{version.project_version()}")
    for tag in ("", version.project_version(), "v0"):
        with pytest.raises(LocalError, match=re.escape(f"its tag is v{version.project_version()}")):
            version.require_tag(tag)
