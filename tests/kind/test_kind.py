"""The README as a reader with Docker does it: images, a kind cluster with the upstream operators, helm, a decision."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from fraud_local import kind
from fraud_testing import pages
from fraud_testing.required import require


def commands() -> list[pages.Block]:
    """The README's blocks for Docker with images of this clone, then those that follow on every way.

    A release's block is left out, and so is the native node's own.
    """
    with_docker = [block for block in pages.blocks("elsewhere", "README.md") if "oci://" not in block.text]
    either = [block for block in pages.blocks("cluster", "README.md") if "make cluster-up" not in block.text]
    return [*with_docker, *either]


@pytest.fixture
def docker() -> Iterator[None]:
    """An engine and the programs beside it; the cluster that the commands make is deleted afterwards."""
    lacking = [program for program in ("kind", "kubectl", "helm") if not shutil.which(program)]
    require("no Docker engine answers" if not kind.docker_answers() else None)
    require(f"not on PATH: {', '.join(lacking)}" if lacking else None)
    try:
        yield
    finally:
        subprocess.run(["make", "down"], cwd=pages.ROOT, check=True, timeout=300)


def test_the_readme_ends_in_a_decision_on_kind(docker: None) -> None:
    """From an empty Docker host a rule decides, without history or model, and the answer says so."""
    printed = pages.run(commands(), {}, 3600)
    answer = json.loads(printed[printed.index('{"id":') :].splitlines()[0])
    assert (answer["action"], answer["degraded"]) == ("review", ["no_model"])
