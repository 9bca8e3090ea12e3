"""Rules of the layout that no linter knows: folders named after an engine must never shadow it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [
    ROOT / name
    for name in subprocess.check_output(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True
    ).splitlines()
]
PYTHON = [path for path in FILES if path.suffix == ".py" and path.exists()]
LIMIT = 400


def test_no_top_level_folder_is_a_package() -> None:
    """`operator/__init__.py` would hide the standard library's module, `ray/__init__.py` the engine."""
    assert [
        str(p.relative_to(ROOT)) for p in FILES if p.name == "__init__.py" and p.parent.parent == ROOT
    ] == []


def test_there_is_no_root_conftest() -> None:
    """pytest would put the root on the path, and `import ray` would find our folder."""
    assert not (ROOT / "conftest.py").exists()


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_has_one_reason_to_exist(path: Path) -> None:
    """A Python file stays short enough to be read at one sitting."""
    assert len(path.read_text().splitlines()) <= LIMIT


def test_locks_are_hashed_and_name_no_registry() -> None:
    """Each lock pins every package by hash and records no download address."""
    locks = [path for path in FILES if re.fullmatch(r"requirements(-\w+)?\.txt", path.name) and path.exists()]
    assert locks
    for lock in locks:
        text = lock.read_text()
        assert "--hash=sha256:" in text, lock
        assert not re.search(r"https?://", text), lock


def pinned(path: Path) -> set[str]:
    """The distributions that a requirement file names."""
    return set(re.findall(r"^([a-z0-9-]+)", path.read_text().lower().replace("_", "-"), re.M))


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.name == "requirements-test.in"], ids=lambda path: path.parent.name
)
def test_an_image_holds_nothing_that_only_tests_use(path: Path) -> None:
    """What tests, demo and benches ask for is in no production lock, and comes in the versions of that lock."""
    production, tests = path.with_name("requirements.txt"), path.with_name("requirements-test.txt")
    assert pinned(path) & pinned(production) == set()
    versions = [
        dict(re.findall(r"^(\S+)==([^\s;]+)", lock.read_text(), re.M)) for lock in (production, tests)
    ]
    assert {
        name for name in versions[0].keys() & versions[1].keys() if versions[0][name] != versions[1][name]
    } == set()


def test_no_code_swallows_an_error_silently() -> None:
    """No bare `except: pass`: an error is handled, counted or raised."""
    bare = [str(p.relative_to(ROOT)) for p in PYTHON if re.search(r"except\s*:\s*\n", p.read_text())]
    assert bare == []
    assert [
        str(p.relative_to(ROOT))
        for p in PYTHON
        if p != Path(__file__) and re.search(r"except (Base)?Exception:\s*\n\s+pass\b", p.read_text())
    ] == []
