"""A failed demo says which Pods aren't ready, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fraud_local import paths
from fraud_local.demo import failure
from fraud_local.demo.kubectl import KubectlError


def pod(name: str, phase: str, *containers: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": {"phase": phase, "containerStatuses": list(containers)}}


CRASHED = pod(
    "kafka-0",
    "Running",
    {
        "name": "kafka",
        "ready": False,
        "restartCount": 3,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
    },
)
READY = pod("mlflow-0", "Running", {"name": "mlflow", "ready": True, "restartCount": 0, "state": {}})


class Kube:
    """kubectl's answers for one namespace; the other one doesn't answer."""

    def get(self, *arguments: str) -> dict[str, Any]:
        return {"items": [CRASHED, READY]}

    def kubectl(self, *arguments: str) -> str:
        if "away" in arguments:
            raise KubectlError("the server was asked too often")
        return "described" if "describe" in arguments else f"first\nlast line of {arguments[3]}\n"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (CRASHED, "Running, kafka CrashLoopBackOff, kafka restarted 3 times"),
        (READY, None),
        (pod("traffic", "Succeeded", {"name": "feed", "ready": False, "state": {}}), None),
        ({"metadata": {"name": "new"}, "status": {"phase": "Pending"}}, "Pending"),
        (
            {
                "metadata": {"name": "new"},
                "status": {
                    "phase": "Pending",
                    "conditions": [
                        {"type": "PodScheduled", "status": "False", "message": "no claim is bound"}
                    ],
                },
            },
            "Pending, no claim is bound",
        ),
        ({"metadata": {"name": "new"}}, "Unknown"),
    ],
)
def test_a_pod_that_is_not_ready_says_why(body: dict[str, Any], reason: str | None) -> None:
    assert failure.unready(body) == reason


def test_logs_of_every_pod_are_kept_and_those_of_unready_ones_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "kubelet.log").write_text("started")
    monkeypatch.setattr(paths, "LOGS", tmp_path / "node")
    lines: list[str] = []
    failure.keep(Kube(), ("payments", "away"), tmp_path / "kept", lines.append)  # type: ignore[arg-type]  # answers as kubectl does
    kept = {path.name for path in (tmp_path / "kept").iterdir()}
    assert kept == {"payments.describe.txt", "payments.kafka-0.log", "payments.mlflow-0.log", "node"}
    assert (tmp_path / "kept" / "node" / "kubelet.log").read_text() == "started"
    assert (
        lines[0]
        == "not ready: Pod payments/kafka-0: Running, kafka CrashLoopBackOff, kafka restarted 3 times"
    )
    assert "  last line of kafka-0" in lines
    assert "Pods of away: the server was asked too often" in lines
    assert not any("mlflow" in line for line in lines)
