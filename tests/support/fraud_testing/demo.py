"""`make demo` as a test runs it: to its end, with its summary."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from fraud_local import cluster
from fraud_testing.required import require

ROOT = Path(__file__).resolve().parents[3]


def run(*arguments: str, seconds: float) -> dict[str, Any]:
    """The summary with the exit code as ``exit``; needs a machine that can become a node."""
    lacking = cluster.missing()
    require(f"the native node lacks: {lacking}" if lacking else None)
    command = [sys.executable, "-m", "fraud_local.demo", "--once", *arguments]
    process = subprocess.run(command, cwd=ROOT, check=False, timeout=seconds, capture_output=True, text=True)
    sys.stdout.write(process.stdout[-16_000:] + process.stderr[-4_000:])
    summary = ROOT / "build/demo/summary.json"
    assert summary.exists(), "the demo ended without a summary"
    result: dict[str, Any] = json.loads(summary.read_text())
    return result | {"exit": process.returncode}
