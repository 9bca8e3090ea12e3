"""The story through the real Flink job, restored from a checkpoint in the middle: with one partition and with two.

Leaves every emission, and the order in which each stage took the events that its last state is made of.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import orjson
import pytest

from fraud_testing import kafka, parity, stream
from fraud_testing.required import require

pytestmark = pytest.mark.integration
KILLED_IN = 2  # chapter: those before have labels, those after have more


class Run:
    """One detector's job over the story; killed in the middle of a chapter, then started from the newest checkpoint."""

    def __init__(self, broker: kafka.Broker, folder: Path, partitions: int) -> None:
        self.broker, self.folder = broker, folder
        self.config = parity.config(broker.bootstrap, partitions)
        self.story = parity.tell()
        self.settings = {
            "parallelism.default": str(partitions),
            "execution.checkpointing.interval": "3 s",
            "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        }
        self.folder.mkdir()
        broker.create_detector_topics(str(self.config.identity), partitions)
        self.sent = {"transactions": 0, "labels": 0}

    def topic(self, noun: str) -> str:
        return self.config.identity.topic(noun)

    def play(self) -> list[dict[str, Any]]:
        with stream.mini_cluster(self.config, self.folder, **self.settings) as job:
            for chapter in range(KILLED_IN):
                self.chapter(chapter)
            before = self.broker.count(self.topic("features"))
            self.send_payments(KILLED_IN)
            kafka.wait_for(
                lambda: self.broker.count(self.topic("features")) >= before + parity.PAYMENTS // 3,
                120,
                "a third of the chapter's features",
            )
            os.killpg(job.pid, signal.SIGKILL)
            job.wait()
        with stream.mini_cluster(
            self.config, self.folder, **self.settings, **{"execution.state-recovery.path": self.checkpoint()}
        ):
            self.settle("transactions")
            self.send_labels(KILLED_IN)
            for chapter in range(KILLED_IN + 1, parity.CHAPTERS):
                self.chapter(chapter)
        return self.records()

    def chapter(self, chapter: int) -> None:
        self.send_payments(chapter)
        self.settle("transactions")
        self.send_labels(chapter)

    def send_payments(self, chapter: int) -> None:
        rows = [p for p in self.story.payments if p.chapter == chapter]
        self.broker.produce(self.topic("transactions"), [(p.row["card"], parity.raw(p)) for p in rows])
        self.sent["transactions"] += len(rows)

    def send_labels(self, chapter: int) -> None:
        labels = self.story.labels[chapter]
        keyed = [(label["entities"]["counterparty"] or label["id"], orjson.dumps(label)) for label in labels]
        self.broker.produce(self.topic("labels"), keyed)
        self.sent["labels"] += len(labels)
        self.settle("labels")

    def settle(self, noun: str) -> None:
        """Waits until a checkpoint holds all that was sent: what comes next is applied after it, also after a restore."""
        group = self.config.identity.features_group(self.config.hash6)

        def done() -> bool:
            at = self.broker.committed(group, self.topic(noun))
            return sum(max(0, offset) for offset in at.values()) == self.sent[noun]

        kafka.wait_for(done, 240, f"a checkpoint with {self.sent[noun]} {noun}, see {self.folder}/job.log")

    def checkpoint(self) -> str:
        checkpoints = sorted(
            self.folder.glob("checkpoints/*/chk-*/_metadata"), key=lambda path: path.stat().st_mtime
        )
        return f"file://{checkpoints[-1].parent}"

    def records(self) -> list[dict[str, Any]]:
        """Every emission in the order of its partition, with the number of its payment."""
        numbers = {
            (m.partition(), m.offset()): orjson.loads(m.value())["n"]
            for m in self.broker.read(self.topic("transactions"))
        }
        emissions = []
        for message in self.broker.read(self.topic("features")):
            record = orjson.loads(message.value())
            source = record["source"]
            record["n"] = numbers[source["partition"], source["offset"]]
            record["at"] = [message.timestamp()[1], message.partition(), message.offset()]
            emissions.append(record)
        return emissions


def order(story: parity.Story, records: list[dict[str, Any]], entity: str) -> list[int]:
    """Payments by chapter, then as the entity's stage took them: what the last state is made of, so the last emissions."""
    last = {record["n"]: record for record in records}

    def place(n: int) -> tuple[Any, ...]:
        record = last[n]
        if entity not in record["saw"]:
            return story.payments[n].chapter, "", 0, 0, 0, n
        epoch, seq, _ = record["saw"][entity]
        token, time = record["event"]["entities"][entity], record["event"]["time"]
        # What changes nothing, a repeat or one that came too late, looked before the one that did.
        return story.payments[n].chapter, token, epoch, seq, not record["repeat"], time

    return sorted(last, key=place)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Any:
    require(kafka.missing() or stream.missing())
    parity.folder()
    with kafka.broker(tmp_path_factory.mktemp("kafka")) as running:
        yield running


@pytest.mark.parametrize(("name", "partitions"), [("stream-one", 1), ("stream-two", 2)])
def test_the_stream_emits_each_payment(
    broker: kafka.Broker, tmp_path: Path, name: str, partitions: int
) -> None:
    """Killed and started from a checkpoint: every payment is in features, some twice, under two runs."""
    run = Run(broker, tmp_path / name, partitions)
    records = run.play()
    assert {record["n"] for record in records} == {payment.n for payment in run.story.payments}
    assert len(records) > len(run.story.payments), "the kill fell between a checkpoint and the next record"
    assert [r["n"] for r in records if r["repeat"] != run.story.payments[r["n"]].repeat] == []
    orders = {stage: order(run.story, records, stage) for stage in ("customer", "counterparty")}
    parity.leave(name, {"records": records, "orders": orders})
