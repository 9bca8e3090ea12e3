"""docker, podman or buildah: whichever builds here. Standard library only."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fraud_local import paths
from fraud_local.shell import LocalError, run

# A client alone builds nothing: what each is asked, to see whether its engine answers.
ANSWERS = {"docker": ("info",), "podman": ("info",), "buildah": ("version",)}


@dataclass(frozen=True)
class Tool:
    """A program that builds images; ``options`` come before each of its subcommands."""

    name: str
    options: tuple[str, ...] = ()

    def run(self, *arguments: str | Path) -> str:
        """Standard output; CommandError where it fails."""
        return run(self.name, *self.options, *arguments, cwd=paths.CLONE)

    def show(self, *arguments: str | Path) -> None:
        """Runs with its output on the terminal, as builds are long; LocalError where it fails."""
        command = [self.name, *self.options, *(str(argument) for argument in arguments)]
        code = subprocess.run(command, check=False, cwd=paths.CLONE).returncode
        if code:
            raise LocalError(f"{' '.join(command[:6])} … ended with {code}; the reason stands above")


def choose(wanted: str = "") -> Tool:
    """The tool of that name, or the first that answers; LocalError says what to install or to start."""
    if wanted and wanted not in ANSWERS:
        raise LocalError(f"CONTAINER={wanted}: it may be {', '.join(ANSWERS)}")
    for name in [wanted] if wanted else ANSWERS:
        if _answers(name):
            return Tool(name)
    lacking = f"no {wanted} answers here" if wanted else f"none of {', '.join(ANSWERS)} answers here"
    raise LocalError(f"{lacking}: start Docker, or install podman or buildah")


def _answers(name: str) -> bool:
    if not shutil.which(name):
        return False
    try:
        return (
            subprocess.run([name, *ANSWERS[name]], check=False, capture_output=True, timeout=20).returncode
            == 0
        )
    except subprocess.TimeoutExpired:
        return False


def build_arguments(
    tool: str, dockerfile: Path, arguments: Mapping[str, str], options: Sequence[str]
) -> list[str]:
    """The subcommand that builds an image, layer by layer, from the clone; its name is among the options."""
    # buildah keeps no layers unless told to; docker and podman know no other way.
    layers = ["--layers"] if tool == "buildah" else []
    values = [part for name, value in arguments.items() for part in ("--build-arg", f"{name}={value}")]
    return ["build", *layers, *options, *values, "--file", str(dockerfile), str(paths.CLONE)]


def save(tool: Tool, reference: str, target: Path) -> None:
    """The image as a docker-archive of that path; a file that is there is replaced by a whole one."""
    fresh = target.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    if tool.name == "buildah":
        tool.run("push", "--quiet", reference, f"docker-archive:{fresh}:{reference}")
    else:
        tool.run("save", "--output", fresh, reference)
    fresh.rename(target)
