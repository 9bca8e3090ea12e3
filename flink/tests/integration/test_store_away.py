"""The object store away for ten minutes under a streaming job that checkpoints into it: nothing is lost, and payments go on.

``FRAUD_AWAY_SECONDS`` makes it shorter, for a look.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fraud_testing import detectors, flink_cluster, kafka, objects
from fraud_testing.paced_payments import PacedPayments

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.accept,
    pytest.mark.skipif(bool(kafka.missing()), reason=str(kafka.missing())),
    pytest.mark.skipif(bool(flink_cluster.missing()), reason=str(flink_cluster.missing())),
]
AWAY_SECONDS = float(os.environ.get("FRAUD_AWAY_SECONDS", "600"))
RATE = 200
BEFORE, AFTER = 30, 60
# A checkpoint is due each two seconds; the one that is under way when the store comes back may have to give up first.
BACK_SECONDS = 30
THREADS = 30


@dataclass
class Story:
    """A streaming job at work on a store, with as many payments as the story takes."""

    store: objects.Server
    flink: flink_cluster.Cluster
    payments: PacedPayments

    def go_on(self, seconds: float) -> None:
        """For so long the features keep coming, second by second."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            seen = self.payments.emitted
            kafka.wait_for(lambda at=seen: self.payments.emitted > at + RATE, 60, "features", 0.5)

    def come_back(self) -> None:
        """The store is there again, and soon a checkpoint is."""
        last, back = self.payments.taken_in, time.monotonic()
        self.store.start()
        kafka.wait_for(lambda: self.payments.taken_in > last, BACK_SECONDS, "a checkpoint after the outage")
        print(f"a checkpoint {time.monotonic() - back:.1f} s after the store's return")

    def end(self) -> tuple[int, int]:
        """Once all is in a checkpoint: how many records were emitted again, and by how many runs."""
        count = self.payments.count
        kafka.wait_for(lambda: self.payments.taken_in == count, 180, "a checkpoint after the last payment")
        return self.payments.check()


@contextmanager
def story(folder: Path, patch: pytest.MonkeyPatch, away: float) -> Iterator[Story]:
    with objects.server_of_environment(patch) as store, kafka.broker(folder / "kafka") as broker:
        config = detectors.detector(broker.bootstrap)
        broker.create_detector_topics(str(config.identity))
        count = round(RATE * (BEFORE + away + AFTER))
        payments = PacedPayments(config, broker, count, RATE, once_in=20)
        settings = {
            **flink_cluster.documented()["objectStore"],
            "execution.checkpointing.interval": "2 s",
            "execution.checkpointing.dir": f"{store.uri}/ns.cards/checkpoints",
        }
        with flink_cluster.cluster(config, folder / "flink", settings) as flink:
            flink.add_task_manager()
            flink.wait_running(300)
            yield Story(store, flink, payments)


def test_a_store_away_for_ten_minutes_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dozens of checkpoints fail; the job never restarts, keeps no threads of them, and soon has a checkpoint when the store is back.

    A kill -9 after that is as any other.
    """
    with story(tmp_path, monkeypatch, AWAY_SECONDS) as told:
        flink, payments = told.flink, told.payments
        with payments.sending():
            kafka.wait_for(lambda: payments.taken_in > RATE * BEFORE // 2, 120, "a checkpoint")
            threads = kafka.wait_for(flink.task_manager_threads, 60, "a count of threads")
            failed = flink.checkpoints()["failed"]
            told.store.stop(signal.SIGKILL)
            told.go_on(AWAY_SECONDS)
            failed, now = flink.checkpoints()["failed"] - failed, flink.task_manager_threads()
            print(f"{failed} checkpoints failed, {threads} threads before and {now} after")
            assert failed > AWAY_SECONDS / 20 and flink.restarts() == 0
            assert now < threads + THREADS
            told.come_back()
            assert flink.restarts() == 0
            flink.kill_task_manager()
            flink.add_task_manager()
            kafka.wait_for(lambda seen=payments.emitted: payments.emitted > seen, 300, "features")
        again, runs = told.end()
    assert again > 0 and runs == 2


def test_a_task_manager_lost_meanwhile_comes_back_with_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its state is in the store: the job restarts until that is there, then emits again all since the last checkpoint."""
    away = AWAY_SECONDS / 10
    with story(tmp_path, monkeypatch, 2 * away) as told:
        flink, payments = told.flink, told.payments
        with payments.sending():
            kafka.wait_for(lambda: payments.taken_in > RATE * BEFORE // 2, 120, "a checkpoint")
            told.store.stop(signal.SIGKILL)
            told.go_on(away)
            unsafe = payments.emitted - payments.taken_in
            flink.kill_task_manager()
            flink.add_task_manager()
            kafka.wait_for(lambda: flink.restarts() > 2, 300, "the job to try in vain")
            assert not flink.running()
            told.store.start()
            flink.wait_running(120)
        again, runs = told.end()
    assert again >= unsafe > RATE * away / 2 and runs >= 2
