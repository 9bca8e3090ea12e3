"""What runs in the background is missed when it dies: the process ends with it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

START = """
import asyncio, time
from fraud_contracts import background, log
log.setup()
def die(): raise RuntimeError("the reason")
async def adie(): die()
"""
THREAD = "background.thread('poll', die); time.sleep(30)"
TASK = """
async def main():
    background.watched(asyncio.create_task(adie(), name='keeper'))
    await asyncio.sleep(30)
asyncio.run(main())
"""
FINE = """
async def main():
    background.thread('short', lambda: None).join()
    cancelled = background.watched(asyncio.create_task(asyncio.sleep(30)))
    await background.watched(asyncio.create_task(asyncio.sleep(0)))
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
asyncio.run(main())
"""


def run(script: str) -> tuple[int, list[str]]:
    """-> exit code and lines of standard output."""
    done = subprocess.run(
        [sys.executable, "-c", START + script], check=False, timeout=20, capture_output=True, text=True
    )
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize(("script", "who"), [(THREAD, "thread poll"), (TASK, "task keeper")])
def test_one_that_dies_ends_the_process_and_says_why(script: str, who: str) -> None:
    """Exit code 1, and the last line of the log names it with its error."""
    code, lines = run(script)
    assert code == 1
    last = json.loads(lines[-1])
    assert (last["level"], last["reason"]) == ("critical", f"{who} died")
    assert "RuntimeError: the reason" in last["exception"]


def test_one_that_ends_or_is_cancelled_ends_nothing() -> None:
    """A thread that returns and tasks that return or are cancelled are no faults."""
    assert run(FINE) == (0, [])
