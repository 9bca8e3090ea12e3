"""One FraudDetector drives the real engines on a real node: `make demo` end to end, judged by its own evidence."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fraud_testing import pages
from fraud_testing.demo import ROOT, run


@pytest.fixture(scope="module")
def demo() -> dict:
    return run("--rate", "150", "--duration", "20", seconds=1500)


def test_every_check_of_the_demo_holds(demo: dict) -> None:
    """Nothing lost, nothing doubled, vectors equal, a trained model live under the real operators."""
    assert {check: held for check, held in demo["checks"].items() if not held} == {}
    assert demo["exit"] == 0


def test_the_summary_follows_from_the_evidence_alone(demo: dict, tmp_path: Path) -> None:
    """A copy of the evidence gives the same summary again."""
    copy = tmp_path / "evidence"
    shutil.copytree(ROOT / "build/demo/evidence", copy)
    again = subprocess.run(
        [sys.executable, "-m", "fraud_local.demo.summary", str(copy)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert json.loads(again.stdout) == {key: value for key, value in demo.items() if key != "exit"}


def test_the_pages_commands_on_the_evidence_run(demo: dict) -> None:
    """What the pages say to do with a demo's evidence gives a verdict of every check."""
    assert '"differing": 0' in pages.run(pages.blocks("demo"), {}, 300)


def test_the_node_is_gone_without_a_trace(demo: dict) -> None:
    """After the demo no namespace, link or mount of the node is left."""
    assert "fraudnode" not in subprocess.check_output(["ip", "netns"], text=True)
    assert "/var/lib/fraud-platform" not in Path("/proc/mounts").read_text()
