"""What `make kind-up` asks for before it makes anything."""

from __future__ import annotations

import pytest

from fraud_local import kind
from fraud_local.real_images.recipes import RECIPES
from fraud_local.shell import LocalError
from fraud_local.version import project_version

OURS = [f"fraud-platform/{recipe.name}:{project_version()}" for recipe in RECIPES]


def docker(monkeypatch: pytest.MonkeyPatch, *images: str) -> list[tuple[str, ...]]:
    """Docker with those images; the commands that were run."""
    commands: list[tuple[str, ...]] = []

    def run(*command: str) -> str:
        commands.append(command)
        return "\n".join(images) if command[:2] == ("docker", "images") else ""

    monkeypatch.setattr(kind, "run", run)
    monkeypatch.setattr(kind.shutil, "which", lambda program: f"/usr/bin/{program}")
    return commands


def test_an_image_that_was_not_built_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that builds it, and before a cluster is made; one of another version is none."""
    commands = docker(monkeypatch, *OURS[1:], "fraud-platform/operator:0.0.0", "postgres:15")
    with pytest.raises(LocalError, match=rf"no {OURS[0]}: run `make images CONTAINER=docker` first"):
        kind.up()
    assert [command for command in commands if command[0] == "kind"] == []


def test_images_of_this_version_are_the_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    """All five, and no others."""
    docker(monkeypatch, *OURS, "postgres:15")
    assert kind.built_images() == OURS
