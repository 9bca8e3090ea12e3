"""Workers that come, go and die beside others: each record is decided once, and who keeps a partition goes on with it."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fraud_contracts.detector_policy import Policy
from fraud_contracts.release import Release
from fraud_serving.worker.tail import LOOKED_AT
from fraud_testing import detectors, redis, serving
from fraud_testing.feature_stream import Stream, exactly_once, feed
from fraud_testing.kafka import wait_for

pytestmark = pytest.mark.integration
PARTITIONS = 4


class Feeder(threading.Thread):
    """Fifty records a second of fifty cards, until told."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(name="feeder", daemon=True)
        self._stream, self.ids, self.on = stream, list[str](), True

    def run(self) -> None:
        while self.on:
            self.ids += feed(self._stream, f"fed-{len(self.ids)}", 25, 0.02)


@pytest.fixture
def stream(stack: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Stream:
    """Of a detector of four partitions for this test alone, decided by rules."""
    name = f"out{abs(hash(request.node.name)) % 10_000}"
    config = detectors.detector(stack.broker.bootstrap, partitions=PARTITIONS, name=name)
    stack.broker.create_detector_topics(str(config.identity), PARTITIONS)
    redis.claims_whole(stack.redis, config.identity)
    serving.write_release(tmp_path, Release(name="r0", policy=Policy(), policy_revision=1))
    return Stream(replace(stack, config=config, folder=tmp_path))


@pytest.fixture
def start(stream: Stream) -> Iterator[Callable[[], serving.Process]]:
    """Starts one more worker."""
    stack = stream.stack
    with ExitStack() as exits:
        login = stack.redis.login(stack.config.identity)
        yield lambda: exits.enter_context(serving.worker(stack.config, stack.folder, login))


def told(worker: serving.Process, message: str) -> list[dict[str, Any]]:
    """What it logged under that message."""
    lines = [line for line in worker.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in map(json.loads, lines) if line["message"] == message]


def own(worker: serving.Process) -> set[int]:
    moves = told(worker, "partitions moved")
    return set(moves[-1]["own"]) if moves else set()


def shared(*workers: serving.Process) -> Callable[[], bool]:
    """Whether they have all partitions between them, each some."""

    def all_taken() -> bool:
        parts = [own(worker) for worker in workers]
        return all(parts) and sorted(one for part in parts for one in part) == list(range(PARTITIONS))

    return all_taken


def test_workers_come_and_go_beside_others(stream: Stream, start: Callable[[], serving.Process]) -> None:
    """One is added, one is killed, one ends: nothing is lost or doubled, and each time only their partitions move."""
    feeder = Feeder(stream)
    feeder.start()
    first, second = start(), start()
    wait_for(shared(first, second), 60, "two workers with all partitions")
    before = own(first), own(second)
    third = start()
    wait_for(shared(first, second, third), 60, "three workers with all partitions")
    # Four among three: one partition has moved, and nobody lost one that it has now.
    assert len(own(third)) == 1
    assert own(first) <= before[0] and own(second) <= before[1]
    kept = own(third)
    second.stop(signal.SIGKILL)
    wait_for(shared(first, third), 60, "the other two to have all")
    assert kept <= own(third)
    assert first.stop() == 0
    wait_for(shared(third), 60, "the last one to have all")
    feeder.on = False
    feeder.join(60)
    stream.wait(*feeder.ids, seconds=90)
    exactly_once(stream, feeder.ids, "fed-")
    for worker in (first, third):
        moves = told(worker, "partitions moved")
        assert not [move for move in moves if set(move["gone"]) & set(move["come"])], worker.log


def test_who_takes_over_reads_no_more_than_claims_may_lack(
    stream: Stream, start: Callable[[], serving.Process]
) -> None:
    """However much is published: the successor reads the last batches, and an id from long before is a repeat by its claim."""
    ids = [f"long-{number}" for number in range(1_500)]
    records = [stream.record(event_id, f"card-{number % 50}") for number, event_id in enumerate(ids)]
    worker = start()
    stream.send(*records)
    stream.wait(*ids, seconds=90)
    # What is committed next says up to where all is vouched for.
    ids += feed(stream, "next", 40, 0.05)
    stream.wait(*ids, seconds=60)
    worker.stop(signal.SIGKILL)
    successor = start()
    wait_for(shared(successor), 60, "a successor with all partitions")
    remembered = told(successor, "decisions remembered")[-PARTITIONS:]
    assert {line["partition"] for line in remembered} == set(range(PARTITIONS))
    assert all(line["read"] <= LOOKED_AT for line in remembered), remembered
    stream.send(records[0], records[700], stream.record("last"))
    stream.wait("last")
    exactly_once(stream, [*(one for one in ids if one.startswith("long"))], "long-")


def test_where_redis_is_away_the_successor_reads_all_that_is_remembered(
    stream: Stream, start: Callable[[], serving.Process]
) -> None:
    """An id that comes again then is known by the log: nothing else could tell."""
    ids = [f"known-{number}" for number in range(1_500)]
    records = [stream.record(event_id, f"card-{number % 50}") for number, event_id in enumerate(ids)]
    worker = start()
    stream.send(*records)
    stream.wait(*ids, seconds=90)
    stream.wait(*feed(stream, "next", 40, 0.05), seconds=60)
    assert worker.stop() == 0
    stream.stack.redis.stop()
    try:
        successor = start()
        stream.send(records[0], records[700], *(stream.record(f"end-{n}", f"card-{n}") for n in range(50)))
        decisions = stream.wait(*(f"end-{n}" for n in range(50)), seconds=60)
    finally:
        stream.stack.redis.start()
    assert all("idempotency" in decisions[f"end-{n}"]["degraded"] for n in range(50))
    exactly_once(stream, ids, "known-")
    assert sum(line["read"] for line in told(successor, "decisions remembered")) > len(ids)
