"""Running other programs with an error that says which one failed and why. Standard library only."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_STARTED = time.monotonic()


class LocalError(Exception):
    """Something that a person has to act on; its text is the whole message."""


class CommandError(LocalError):
    """A program failed; holds its last output."""

    def __init__(self, command: Sequence[str | Path], code: int, output: str) -> None:
        self.code = code
        self.output = output
        shown = " ".join(str(part) for part in command)
        super().__init__(f"{shown[:300]} failed ({code}):\n{output.strip()[-3000:]}")


def say(text: str) -> None:
    """A progress line with the seconds since the start."""
    print(f"{time.monotonic() - _STARTED:7.1f} s  {text}", flush=True)


def run(
    *command: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    timeout: float | None = None,
) -> str:
    """Run to the end and give the standard output; CommandError with both outputs otherwise."""
    parts = [str(part) for part in command]
    done = subprocess.run(
        parts,
        check=False,
        capture_output=True,
        text=True,
        input=stdin,
        cwd=cwd,
        timeout=timeout,
        env={**os.environ, **env} if env else None,
    )
    if done.returncode:
        raise CommandError(parts, done.returncode, done.stdout + done.stderr)
    return done.stdout


def wait_for(what: str, check: Callable[[], bool], timeout: float, interval: float = 0.3) -> None:
    """Poll until ``check`` is true; LocalError naming ``what`` after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not check():
        if time.monotonic() > deadline:
            raise LocalError(f"{what}: not so after {timeout:.0f} s")
        time.sleep(interval)


def main(body: Callable[[], None]) -> None:
    """Run a command's body; a LocalError is its message and exit status 1, not a traceback."""
    try:
        body()
    except LocalError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
