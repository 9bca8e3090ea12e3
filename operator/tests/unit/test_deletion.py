"""When a FlinkDeployment that is being deleted is told to end without a savepoint."""

from __future__ import annotations

from typing import Any

import pytest

from fraud_operator.deletion import SAVEPOINT_MS, end_without_savepoint

ORDERED = "2026-11-28T23:20:44Z"
NOW = 1_795_908_044_000


class Api:
    """Takes what is merged."""

    def __init__(self) -> None:
        self.merged: list[Any] = []

    def merge(self, kind: object, namespace: str, name: str, change: Any) -> None:
        self.merged.append(change)


def _job(state: str | None) -> dict[str, Any]:
    meta = {"name": "f", "namespace": "n", "deletionTimestamp": ORDERED}
    return {"metadata": meta, "spec": {}, "status": {"jobStatus": {"state": state} if state else {}}}


@pytest.mark.parametrize(("state", "waited", "without"), [
    ("RUNNING", 0, False), ("RUNNING", SAVEPOINT_MS, True),
    ("FINISHED", 0, False), ("FINISHED", SAVEPOINT_MS, True),
    ("RESTARTING", 0, True), ("FAILED", 0, True), (None, 0, True),
])  # fmt: skip
def test_a_job_that_its_savepoint_has_ended_is_left_to_go(
    state: str | None, waited: int, without: bool
) -> None:
    """FINISHED is what a stop with a savepoint leaves; nobody is told that there was none, unless it doesn't go."""
    api = Api()
    reason = end_without_savepoint(api, _job(state), NOW + waited)  # type: ignore[arg-type]  # a fake of Kube
    assert (bool(reason), bool(api.merged)) == (without, without)
