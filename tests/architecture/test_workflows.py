"""A forge's workflows only call what the repository has, so that what they do can be done without the forge."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))
# Steps without a script: the first brings git for the checkout, the second speaks to the forge alone.
WITHOUT_SCRIPT = {
    "apt-get update -q && apt-get install -y -q git",
    'gh release create "$GITHUB_REF_NAME" --verify-tag --generate-notes build/release/*',
}
by_name = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


def load(path: Path) -> dict[Any, Any]:
    workflow = yaml.safe_load(path.read_text())
    assert isinstance(workflow, dict)
    return workflow


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in load(path)["jobs"].values() for step in job["steps"]]


def test_there_are_workflows_for_changes_kind_and_releases() -> None:
    """The three that docs/releasing.md describes, and it names each."""
    page = (ROOT / "docs" / "releasing.md").read_text()
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "kind.yml", "release.yml"]
    assert [path.name for path in WORKFLOWS if f"`{path.name}`" not in page] == []


@by_name
def test_every_step_runs_what_the_repository_has(path: Path) -> None:
    """A command is a target of the Makefile with variables that it has, a script that may be executed, or one of two exceptions."""
    makefile = (ROOT / "Makefile").read_text()
    for step in steps(path):
        if "run" not in step or step["run"] in WITHOUT_SCRIPT:
            continue
        command = step["run"].partition(" >> ")[0]
        if make := re.fullmatch(r"make (?:-s )?([a-z-]+)((?: [A-Z]+=\S+)*)", command):
            assert re.search(rf"^{make[1]}:", makefile, re.M), command
            for variable in re.findall(r" ([A-Z]+)=", make[2]):
                assert re.search(rf"^{variable} \?=", makefile, re.M), command
        else:
            assert (ROOT / command).stat().st_mode & 0o111, command


@by_name
def test_actions_are_named_by_a_version(path: Path) -> None:
    """A major version's tag and never a branch; a commit's digest stands here only once somebody has seen it."""
    actions = [step["uses"] for step in steps(path) if "uses" in step]
    assert actions
    assert [one for one in actions if not re.fullmatch(r"[a-z-]+/[a-z-]+@(v\d+|[0-9a-f]{40})", one)] == []


@by_name
def test_a_workflow_may_do_little_and_ends(path: Path) -> None:
    """Rights are named, every job has a limit of time, and no secret but the forge's own token is used."""
    workflow = load(path)
    assert workflow["permissions"]["contents"] in ("read", "write")
    assert all(job["timeout-minutes"] <= 240 for job in workflow["jobs"].values())
    assert set(re.findall(r"secrets\.(\w+)", path.read_text())) <= {"GITHUB_TOKEN"}


def test_a_machine_of_ones_own_is_one_that_the_forge_can_make() -> None:
    """GitHub takes neither network nor entrypoint among a container's options; the node's state is on a volume, which takes overlays."""
    container = load(ROOT / ".github/workflows/ci.yml")["jobs"]["all"]["container"]
    assert not re.search(r"--(network|entrypoint)\b", container["options"])
    assert [volume.partition(":")[2] for volume in container["volumes"]] == ["/var/lib"]


def test_only_a_release_may_write() -> None:
    """A change from anywhere runs in the other workflows."""
    writers = [path.name for path in WORKFLOWS if "write" in load(path)["permissions"].values()]
    assert writers == ["release.yml"]
    # YAML 1.1 reads the key `on` as true.
    assert load(ROOT / ".github/workflows/release.yml")[True] == {"push": {"tags": ["v*"]}}
