"""A decision replica that can't start ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from fraud_contracts.config import HTTP_PORT_ENV
from fraud_testing import detectors, serving


def test_a_taken_port_ends_the_process_with_an_error(tmp_path: Path) -> None:
    """The exit code isn't 0, so the start counts as failed and the kubelet tries again."""
    environ = serving.environment(detectors.detector("127.0.0.1:1"), tmp_path, "redis://127.0.0.1:1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = subprocess.run(
            [sys.executable, "-m", "fraud_serving.decision"],
            env={**os.environ, **environ, HTTP_PORT_ENV: str(taken.getsockname()[1])},
            check=False,
            timeout=30,
            capture_output=True,
            text=True,
        )
    assert done.returncode != 0, done.stdout
