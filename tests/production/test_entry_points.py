"""What an image runs needs nothing that only tests, demo and benches have. Run in each component's environment.

An environment holds both locks; an image installs ``requirements.txt`` alone. So a process imports each module with every
distribution hidden that this lock doesn't name.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# By environment: the project folders whose code its image runs, and the packages of these.
IMAGES = {
    "operator": ("contracts operator", "fraud_contracts fraud_operator"),
    "flink": ("contracts pipelines flink", "fraud_contracts fraud_pipelines fraud_flink"),
    "ray": ("contracts pipelines ray", "fraud_contracts fraud_pipelines fraud_ray"),
    "serving": (
        "contracts pipelines serving console",
        "fraud_contracts fraud_pipelines fraud_sinks fraud_serving fraud_console",
    ),
}
# Arguments: the lock, then package names. Prints each module that it imported; an ImportError names what is missing.
IMPORT_ALL = r"""
import ast, importlib, importlib.machinery, importlib.metadata, pathlib, pkgutil, re, sys

lock, *packages = sys.argv[1:]
normal = lambda name: re.sub(r"[-_.]+", "-", name).lower()
allowed = {normal(name) for name in re.findall(r"^([\w.-]+)(?:\[[^]]*\])?==", pathlib.Path(lock).read_text(), re.M)}
hidden = {
    str(file.locate())
    for found in importlib.metadata.distributions()
    if normal(found.metadata["Name"]) not in allowed
    for file in found.files or ()
}

class Image(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        spec = super().find_spec(name, path, target)
        return None if spec is not None and spec.origin in hidden else spec

sys.meta_path[:] = [Image if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path]
assert Image in sys.meta_path and hidden
for package in packages:
    root = importlib.import_module(package)
    for module in pkgutil.walk_packages(root.__path__, package + "."):
        source = importlib.import_module(module.name).__file__
        for node in ast.walk(ast.parse(pathlib.Path(source).read_text())):
            # Also what a function imports only when it is called.
            if isinstance(node, ast.Import):
                for alias in node.names:
                    importlib.import_module(alias.name)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                namespace = importlib.import_module(node.module)
                for alias in node.names:
                    hasattr(namespace, alias.name) or importlib.import_module(f"{node.module}.{alias.name}")
        print(module.name)
"""


def imported(environment: str, packages: str) -> subprocess.CompletedProcess[str]:
    """The end of a process that imports the packages' modules with what the environment's image holds."""
    folders, _ = IMAGES[environment]
    return subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, ROOT / environment / "requirements.txt", *packages.split()],
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": "/nonexistent",
            "PYTHONSAFEPATH": "1",
            "PYTHONPATH": ":".join(str(ROOT / folder / "src") for folder in folders.split()),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def environment() -> str:
    return Path(sys.prefix).name


def test_every_module_is_imported_with_what_the_image_holds(environment: str) -> None:
    """Each entry point of the component, and all that it may import later, works with the production lock alone."""
    _, packages = IMAGES[environment]
    process = imported(environment, packages)
    assert process.returncode == 0, process.stderr
    for package in packages.split():
        folder = next(ROOT.glob(f"*/src/{package}"))
        entries = {
            ".".join(path.relative_to(folder.parent).with_suffix("").parts)
            for path in folder.rglob("*.py")
            if 'if __name__ == "__main__":' in path.read_text()
        }
        assert entries <= set(process.stdout.split())


def test_what_only_the_tests_have_is_hidden(environment: str) -> None:
    """The check isn't idle: pytest, which this test runs by, can't be imported."""
    process = imported(environment, "pytest")
    assert process.returncode != 0
    assert "No module named 'pytest'" in process.stderr
