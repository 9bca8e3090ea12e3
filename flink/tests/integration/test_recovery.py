"""A TaskManager killed in mid-stream: what the consumers of features and profiles have after recovery."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from fraud_testing import detectors, flink_cluster, kafka
from fraud_testing.paced_payments import PacedPayments

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(bool(kafka.missing()), reason=str(kafka.missing())),
    pytest.mark.skipif(bool(flink_cluster.missing()), reason=str(flink_cluster.missing())),
]
COUNT = int(os.environ.get("FRAUD_TEST_EVENTS", "12000"))
RATE = 1000


def test_a_killed_task_manager_loses_nothing(tmp_path: Path) -> None:
    """After kill -9 each id is in features with the right vector, and each key's last profile is complete."""
    with kafka.broker(tmp_path / "kafka") as broker:
        config = detectors.detector(broker.bootstrap)
        broker.create_detector_topics(str(config.identity))
        payments = PacedPayments(config, broker, COUNT, RATE)
        settings = {"execution.checkpointing.interval": "2 s"}
        with flink_cluster.cluster(config, tmp_path / "flink", settings) as flink:
            first = flink.add_task_manager()
            flink.wait_running(300)
            # Its REST tells of jobs and takes no JAR.
            assert (flink.status_of("/jobs/overview"), flink.status_of("/jars")) == (200, 404)
            with payments.sending():
                kafka.wait_for(lambda: payments.taken_in > COUNT // 10, 120, "a checkpoint in mid-stream")
                kafka.wait_for(lambda: payments.emitted > COUNT // 3, 120, "a third of the features")
                os.killpg(first.pid, signal.SIGKILL)
                killed, before = time.monotonic(), payments.emitted
                flink.add_task_manager()
                kafka.wait_for(lambda: payments.emitted > before, 300, "features after the kill")
                print(f"recovered after {time.monotonic() - killed:.1f} s, {before} features before")
            kafka.wait_for(lambda: payments.taken_in == COUNT, 120, "a checkpoint after the last transaction")
        again, runs = payments.check()
    assert again > 0, "the kill fell between a checkpoint and the next record: it showed nothing"
    assert runs == 2
