"""Programs of an image run as a strict Pod runs them: its own user, a read-only root, no capability, no network, /tmp in memory.

With docker or podman by their own options; with buildah, which can't make a root read-only, by runc. Standard library only.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fraud_local.real_images.containers import Tool

TIMEOUT = 180.0
NAMESPACES = ("pid", "mount", "ipc", "uts", "network")
TMP_OPTIONS = ("nosuid", "nodev", "mode=1777")


@dataclass(frozen=True)
class Confined:
    """The image ``reference`` of ``tool``, whose configuration is ``config``; ``root``: where its files are mounted, for runc."""

    tool: Tool
    reference: str
    config: Mapping[str, Any]
    root: Path | None

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        """Exit code and output of a command line, given to the image as a Pod's ``args``; -1 where it doesn't end."""
        if self.root is None:
            return _outcome([self.tool.name, *self.tool.options, *engine_arguments(self.reference, command)])
        with tempfile.TemporaryDirectory() as bundle:
            document = runtime_document(self.config, self.root, command)
            Path(bundle, "config.json").write_text(json.dumps(document))
            name = f"fraud-image-check-{os.getpid()}-{time.monotonic_ns()}"
            return _outcome(["runc", "--root", f"{bundle}/state", "run", "--bundle", bundle, name])


def engine_arguments(reference: str, command: Sequence[str]) -> list[str]:
    """How docker and podman run a command of an image so."""
    options = ["--read-only", f"--tmpfs=/tmp:{','.join(TMP_OPTIONS)}", "--cap-drop=ALL", "--network=none"]
    return [
        "run",
        "--rm",
        *options,
        "--security-opt=no-new-privileges",
        "--env=HOME=/tmp",
        reference,
        *command,
    ]


def runtime_document(config: Mapping[str, Any], root: Path, command: Sequence[str]) -> dict[str, Any]:
    """runc's description of the same, for an image's configuration. The user's group has the same number, as in the images."""
    user = int(str(config["User"]).partition(":")[0])
    quiet = ["nosuid", "noexec", "nodev"]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": user, "gid": user},
            "args": [*(config.get("Entrypoint") or []), *command],
            "env": [*(config.get("Env") or []), "HOME=/tmp"],
            "cwd": config.get("WorkingDir") or "/",
            "noNewPrivileges": True,
        },
        # Its own name, which programs look up, must be one that needs no name server.
        "hostname": "localhost",
        "root": {"path": str(root), "readonly": True},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": quiet},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "tmpfs", "options": [*quiet, "mode=1777"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": list(TMP_OPTIONS)},
        ],
        "linux": {"namespaces": [{"type": kind} for kind in NAMESPACES]},
    }


def _outcome(command: Sequence[str]) -> tuple[int, str]:
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return -1, f"it didn't end within {TIMEOUT:.0f} s"
    return done.returncode, done.stdout + done.stderr


@contextmanager
def confined(tool: Tool, reference: str, config: Mapping[str, Any]) -> Iterator[Confined]:
    """The image, ready to run programs of it; what that takes is taken away afterwards."""
    if tool.name != "buildah":
        yield Confined(tool, reference, config, None)
        return
    container = tool.run("from", reference).strip()
    try:
        yield Confined(tool, reference, config, Path(tool.run("mount", container).strip()))
    finally:
        tool.run("rm", container)
