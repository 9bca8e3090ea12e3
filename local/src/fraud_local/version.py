"""The project's version, written once: the chart's ``appVersion``. Images and packages take it from there. Standard library only.

python -m fraud_local.version TAG        fails unless that is the tag of this version
"""

from __future__ import annotations

import re
import subprocess
import sys

from fraud_local import paths
from fraud_local.shell import LocalError, main

CHART = paths.CLONE / "charts" / "fraud-platform"


def project_version() -> str:
    """``appVersion`` of the chart, which is the images' tag; LocalError where the file holds none."""
    file = CHART / "Chart.yaml"
    match = re.search(r"^appVersion: (\S+)$", file.read_text(), re.M)
    if match is None:
        raise LocalError(f"{file} has no line `appVersion: <version>`")
    return match[1]


def code_version() -> str:
    """The version and the commit, as ``0.1.0+1a2b3c4d5e6f``; ``.changed`` where files differ from it, no commit without git."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    if not commit:
        return project_version()
    changed = ".changed" if _git("status", "--porcelain") else ""
    return f"{project_version()}+{commit}{changed}"


def _git(*arguments: str) -> str:
    """What git says of the clone; empty where there is no git, or no repository of its own."""
    try:
        done = subprocess.run(
            ["git", "-C", paths.CLONE, *arguments], check=False, capture_output=True, text=True
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def require_tag(tag: str) -> None:
    """LocalError unless the tag is ``v<version>``."""
    if tag != f"v{project_version()}":
        raise LocalError(
            f"TAG={tag}: the chart's version is {project_version()}, so its tag is v{project_version()}"
        )


if __name__ == "__main__":
    main(lambda: require_tag(sys.argv[1] if len(sys.argv) > 1 else ""))
