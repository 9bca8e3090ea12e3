"""The shipped images: Dockerfiles, names, the commands that build them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from fraud_local import build, paths, version
from fraud_local.real_images import build as images_build
from fraud_local.real_images import containers
from fraud_local.real_images.recipes import RECIPES, Recipe
from fraud_local.shell import LocalError

CHART = paths.CLONE / "charts" / "fraud-platform" / "Chart.yaml"
by_name = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)


def test_every_component_has_a_recipe() -> None:
    """An image is built for each component that has a lock, from that component's folder."""
    assert {recipe.name: recipe.folder for recipe in RECIPES} == build.COMPONENTS


@by_name
def test_a_dockerfile_takes_nothing_that_no_lock_names(recipe: Recipe) -> None:
    """Packages come from the image's lock and the build's, each checked by hash; our wheels resolve none."""
    text = recipe.dockerfile.read_text()
    assert f"COPY {recipe.folder}/requirements.txt " in text
    assert "COPY requirements-build.txt " in text
    assert text.count("--require-hashes") == 2
    installs = re.findall(r"(?:uv )?pip (?:install|wheel|sync) .*", text.replace("\\\n", ""))
    assert all("--require-hashes" in one or "--no-deps" in one for one in installs)


@by_name
def test_a_dockerfile_copies_its_sources_and_is_not_root(recipe: Recipe) -> None:
    """What is copied is there, the wheels are those of the recipe, and the user is a number, as runAsNonRoot asks."""
    text = recipe.dockerfile.read_text()
    copied = re.findall(r"^COPY (?!--from)(\S+) ", text, re.M)
    assert [source for source in copied if not (paths.CLONE / source).exists()] == []
    assert {s for s in copied if (paths.CLONE / s / "pyproject.toml").exists()} == set(recipe.sources)
    assert re.findall(r"^USER (.+)$", text, re.M) == ["1000"]
    assert "PYTHONSAFEPATH=1" in text


@by_name
def test_a_dockerfile_knows_no_processor(recipe: Recipe) -> None:
    """The same file builds for amd64 and arm64."""
    assert not re.search(r"amd64|x86|arm64|aarch64", recipe.dockerfile.read_text())


@by_name
def test_every_base_image_can_be_replaced(recipe: Recipe) -> None:
    """Each stage starts from an argument, so that a digest or a machine's own base can take its place."""
    text = recipe.dockerfile.read_text()
    stages = re.findall(r"^FROM (\S+)", text, re.M)
    assert stages
    assert {stage.removeprefix("$") for stage in stages} <= set(images_build.BASES)
    assert images_build.base_images(recipe, {"PYTHON_IMAGE": "x@sha256:0", "HOME": "/"}) == {
        "PYTHON_IMAGE": "x@sha256:0"
    }


def test_the_version_is_written_once() -> None:
    """Images and packages take the chart's version; no package has one of its own."""
    assert re.search(rf"^version: {re.escape(version.project_version())}$", CHART.read_text(), re.M)
    for project in sorted(paths.CLONE.glob("*/pyproject.toml")):
        text = project.read_text()
        assert 'dynamic = ["version"]' in text, project
        path = re.search(r'^path = "(\S+)"$', text, re.M)
        assert path is not None, project
        assert (project.parent / path[1]).resolve() == CHART, project


def test_the_code_version_names_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says which commit the clone holds, whether files differ from it, and the version alone without git."""
    chart = tmp_path / "charts" / "fraud-platform"
    chart.mkdir(parents=True)
    (chart / "Chart.yaml").write_text("appVersion: 1.2.3\n")
    monkeypatch.setattr(paths, "CLONE", tmp_path)
    monkeypatch.setattr(version, "CHART", chart)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert version.code_version() == "1.2.3"
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.com")
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-q", "-m", "x"]):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    assert re.fullmatch(r"1\.2\.3\+[0-9a-f]{12}", version.code_version())
    (chart / "Chart.yaml").write_text("appVersion: 1.2.3\n# changed\n")
    assert re.fullmatch(r"1\.2\.3\+[0-9a-f]{12}\.changed", version.code_version())


def test_images_are_named_by_the_version() -> None:
    """A name is registry, component and version: what the chart asks for where no tag is set."""
    assert RECIPES[0].reference() == f"docker.io/fraud-platform/operator:{version.project_version()}"
    values = (paths.CLONE / "charts/fraud-platform/values.yaml").read_text()
    assert "registry: docker.io/fraud-platform\n" in values
    assert 'tag: ""\n' in values


def test_a_build_passes_names_and_arguments() -> None:
    """docker and podman keep layers by themselves, buildah is told to; the clone is the context."""
    tail = ["--tag=a:1", "--build-arg", "CODE_VERSION=1", "--file", "/x/Dockerfile", str(paths.CLONE)]
    for tool, layers in (("docker", []), ("podman", []), ("buildah", ["--layers"])):
        command = containers.build_arguments(
            tool, Path("/x/Dockerfile"), {"CODE_VERSION": "1"}, ["--tag=a:1"]
        )
        assert command == ["build", *layers, *tail]


def test_the_first_tool_that_answers_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A docker without an engine is passed over; CONTAINER names one; none at all is an error with its remedy."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name, code in (("docker", 1), ("podman", 0), ("buildah", 0)):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\nexit {code}\n")
        program.chmod(0o755)
    assert containers.choose().name == "podman"
    assert containers.choose("buildah").name == "buildah"
    with pytest.raises(LocalError, match="no docker answers here: start Docker"):
        containers.choose("docker")
    with pytest.raises(LocalError, match="CONTAINER=nerdctl: it may be docker, podman, buildah"):
        containers.choose("nerdctl")
