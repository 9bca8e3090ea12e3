"""The images that are shipped, and what each must be able to start. Pure. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fraud_local import paths
from fraud_local.version import project_version

# What the chart's `images.registry` says of a clone: what Docker calls an image that has no registry in its name.
REGISTRY = "docker.io/fraud-platform"


@dataclass(frozen=True)
class Recipe:
    """One image.

    ``folder`` holds its Dockerfile and its lock, ``sources`` are the folders whose wheels it has, all modules of ``packages``
    can be imported there, each command line of ``starts`` ends with 0, and each pattern of ``holds`` is the path of some file.
    """

    name: str
    folder: str
    sources: tuple[str, ...]
    packages: tuple[str, ...]
    starts: tuple[tuple[str, ...], ...]
    holds: tuple[str, ...] = ()

    @property
    def dockerfile(self) -> Path:
        return paths.CLONE / self.folder / "Dockerfile"

    @property
    def lock(self) -> Path:
        return paths.CLONE / self.folder / "requirements.txt"

    def reference(self, registry: str = REGISTRY) -> str:
        """The image's full name; its tag is the project's version."""
        return f"{registry}/{self.name}:{project_version()}"


def _help(module: str) -> tuple[str, ...]:
    return ("python", "-m", module, "--help")


# The stream's JVM runs Python inside itself.
LOAD_PYTHON = (
    "import ctypes, find_libpython as find; ctypes.CDLL(find.find_libpython() or 'no library of Python')"
)

RECIPES = (
    Recipe(
        "operator",
        "operator",
        ("contracts", "operator"),
        ("fraud_contracts", "fraud_operator"),
        (_help("fraud_operator"),),
    ),
    Recipe(
        "flink",
        "flink",
        ("contracts", "pipelines", "flink"),
        ("fraud_contracts", "fraud_pipelines", "fraud_flink"),
        # Flink's operator mounts over this folder; it can't make one in an image.
        (
            ("test", "-d", "/opt/flink/pod-template"),
            ("java", "-version"),
            ("flink", "--version"),
            ("python", "-c", LOAD_PYTHON),
        ),
        # Without it a job of a detector on s3:// doesn't start, and no program says so before.
        ("opt/flink/plugins/s3-fs-hadoop/*.jar",),
    ),
    Recipe(
        "ray",
        "ray",
        ("contracts", "pipelines", "ray"),
        ("fraud_contracts", "fraud_pipelines", "fraud_ray"),
        (_help("fraud_ray.refit"), ("ray", "start", "--help"), ("ray", "job", "submit", "--help")),
    ),
    Recipe(
        "serving",
        "serving",
        ("contracts", "pipelines", "serving", "console"),
        ("fraud_contracts", "fraud_pipelines", "fraud_sinks", "fraud_serving", "fraud_console"),
        (_help("fraud_serving.predictor"), _help("fraud_serving.dead_letters"), _help("fraud_sinks.prune")),
    ),
    Recipe("mlflow", "serving/mlflow", (), (), (("mlflow", "server", "--help"),)),
)
