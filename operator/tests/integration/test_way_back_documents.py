"""What this version keeps for an unchanged spec is read by the version that an upgrade begins with, and that it may be taken back to."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from fraud_contracts.detector_policy import Policy
from fraud_contracts.lineage import Lineage, Lineages
from fraud_contracts.release import ModelPackage, Release, Split
from fraud_operator.rollout_state import RolloutPhase, RolloutState
from fraud_testing.required import require

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[3]
READ = """
import json, sys
from fraud_contracts.lineage import Lineages
from fraud_contracts.release import parse_release
from fraud_operator.rollout_state import RolloutState
documents = json.load(sys.stdin)
parse_release(documents["release"])
RolloutState.model_validate_json(documents["rollout"])
Lineages.model_validate_json(documents["lineages"])
"""


def earlier_commit() -> str:
    text = (ROOT / "local/src/fraud_local/earlier.py").read_text()
    [line] = (line for line in text.splitlines() if line.startswith("COMMIT"))
    return line.split('"')[1]


def package(version: str) -> ModelPackage:
    return ModelPackage(
        name="m",
        version=version,
        digest=f"sha256:{version * 64}",
        feature_set="f" * 64,
        slot="a",
        url="http://payments-a-predictor-pods.payments.svc:8080",
        score_map=[(0.0, 0.0), (1.0, 1000.0)],
    )


def test_the_version_before_reads_release_rollout_and_lineages(tmp_path: Path) -> None:
    """A field that it doesn't know is written only where the spec declares it."""
    made = subprocess.run(
        ["git", "-C", ROOT, "archive", earlier_commit(), "contracts/src", "operator/src"],
        check=False,
        capture_output=True,
        timeout=60,
    )
    require(None if made.returncode == 0 else "the commit of earlier.py: clone with all history")
    with tarfile.open(fileobj=io.BytesIO(made.stdout)) as tar:
        tar.extractall(tmp_path, filter="data")
    one, two = package("1"), package("2")
    split = Split(salt="s", share=500)
    release = Release(name="r", stable=one, candidate=two, split=split, policy=Policy(), policy_revision=1)
    state = RolloutState(phase=RolloutPhase.RAMP, stable=one, candidate=two)
    lineages = Lineages(detector="payments.payments", known=(Lineage(feature_set="f" * 64, generation=1),))
    documents = {
        "release": release.to_json(),
        "rollout": state.model_dump_json(exclude_none=True),
        "lineages": lineages.model_dump_json(),
    }
    read = subprocess.run(
        [sys.executable, "-c", READ],
        check=False,
        input=json.dumps(documents),
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": f"{tmp_path}/contracts/src:{tmp_path}/operator/src"},
    )
    assert read.returncode == 0, read.stderr
