"""A worker whose loop stands still is ended from within."""

from __future__ import annotations

import subprocess
import sys

HANGS = """
import time
from prometheus_client import CollectorRegistry
from fraud_serving.worker import health
h = health.Health(0, CollectorRegistry(), lambda: None)
h.last_heartbeat -= health.STILL
time.sleep(30)
"""


def test_a_loop_that_stands_still_ends_its_process() -> None:
    """The kubelet starts a successor at once; where it stood is in the log."""
    done = subprocess.run(
        [sys.executable, "-c", HANGS], check=False, timeout=20, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "time.sleep" in done.stderr or 'File "<string>"' in done.stderr
