"""The stream door as a process of its own: every record decided once for committed readers, whatever is killed."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import signal
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis as redis_client
from confluent_kafka import TopicPartition
from cryptography.fernet import Fernet

from fraud_contracts.config import DetectorConfig
from fraud_contracts.detector_policy import Policy
from fraud_contracts.release import Release
from fraud_serving import claims
from fraud_serving.worker.loop import WorkerLoop
from fraud_serving.worker.processor import BatchProcessor
from fraud_serving.worker.published_ids import PublishedIds
from fraud_testing import batches, detectors, packages, redis, serving
from fraud_testing.feature_stream import Stream, exactly_once, feed
from fraud_testing.kafka import Broker, wait_for

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def stream(stack: Any) -> Stream:
    return Stream(stack)


@pytest.fixture(scope="module")
def worker(stack: Any) -> Iterator[serving.Process]:
    candidate = packages.release_package(
        stack.digest,
        stack.config.feature_set,
        f"http://127.0.0.1:{stack.predictor.port}/v2/models/cards-a/infer",
        slot="b",
    )
    policy = {
        "rules": [{"name": "large", "when": "event.amount > 500000", "action": "Decline"}],
        "fallback": {"deadline": "1s"},
    }
    stack.release(candidate=candidate, policy=policy)
    with (
        serving.worker(stack.config, stack.folder, stack.redis.login(stack.config.identity)) as process,
        process.kept_running(),
    ):
        yield process


def metric(worker: serving.Process, line: str) -> float:
    with urllib.request.urlopen(worker.url + "/metrics", timeout=5) as answer:
        lines = [text for text in answer.read().decode().splitlines() if text.startswith(line)]
    return float(lines[0].rsplit(" ", 1)[1]) if lines else 0.0


def test_stream_records_are_decided_and_flagged_ones_are_alerts(
    stream: Stream, worker: serving.Process
) -> None:
    """A decision holds vector, score, shadow score and source; a declined one is an alert too."""
    stream.send(stream.record("s1"), stream.record("s2", amount=900_000))
    decisions = stream.wait("s1", "s2")
    one = decisions["s1"]
    assert (one["door"], one["arm"], one["model_digest"]) == ("stream", "stable", stream.stack.digest)
    assert one["shadow"]["probability"] == one["probability"]
    assert one["source"]["topic"].endswith("transactions.v1")
    assert decisions["s2"]["action"] == "decline"
    assert [alert["id"] for alert in stream.committed("alerts")] == ["s2"]


def test_a_repeat_is_counted_and_another_body_is_a_dead_letter(
    stream: Stream, worker: serving.Process
) -> None:
    """Same id and hash: skipped. Another hash: sealed with its reason, and no second decision."""
    first = stream.record("rep")
    stream.send(first)
    stream.wait("rep")
    stream.send({**first, "repeat": True}, stream.record("rep", amount=7), stream.record("after"))
    decisions = stream.wait("after")
    assert Counter(d["id"] for d in stream.committed())["rep"] == 1
    assert decisions["rep"]["event"]["amount"] == 1000
    [letter] = stream.committed("dead-letters")
    assert (letter["id"], letter["reason"], letter["stage"]) == ("rep", "id_reused", "worker")
    opened = Fernet(serving.DEAD_LETTER_KEY).decrypt(base64.b64decode(letter["payload"]))
    assert json.loads(opened)["amount"] == 7
    assert metric(worker, "fraud_repeats_total") >= 1


def test_a_repeat_within_one_batch_is_one_decision(stream: Stream, worker: serving.Process) -> None:
    """Copies that arrive together are as one."""
    record = stream.record("twin")
    stream.send(record, record, record, stream.record("twin-end"))
    stream.wait("twin-end")
    assert Counter(d["id"] for d in stream.committed())["twin"] == 1


def test_inline_decisions_are_published_with_their_parity(stream: Stream, worker: serving.Process) -> None:
    """Equal where the same was seen; stale where not; mismatch where bits differ though the same was seen."""
    equal, stale, wrong = stream.record("eq", "p"), stream.record("st", "p"), stream.record("mm", "p")
    none = stream.record("no", "p")
    other = {"customer": (1, 0, "0" * 16), "counterparty": (1, 0, "0" * 16)}
    stream.send(
        stream.inline(equal),
        stream.inline(stale, saw=other),
        stream.inline(wrong, vector=[1.0] * len(wrong["vector"])),
        {**stream.inline(none), "vector": None, "reason": "stage failed"},
    )
    decisions = stream.wait("eq", "st", "mm", "no")
    assert [decisions[i]["parity"] for i in ("eq", "st", "mm", "no")] == [
        "equal",
        "stale",
        "mismatch",
        "none",
    ]
    assert decisions["eq"]["streamed"] is None
    assert decisions["mm"]["streamed"]["vector"] == json.loads(orjson.dumps(wrong["vector"]))
    assert decisions["mm"]["vector"][0] == 1.0
    assert decisions["eq"]["decided"] == equal["appended"]


def test_a_claim_of_the_other_door_stands(stream: Stream, worker: serving.Process) -> None:
    """A record that the inline door claimed gets the inline decision; with another body it is a dead letter."""
    store = redis_client.Redis.from_url(stream.stack.redis.url)
    record, other = stream.record("claimed"), stream.record("claimed-other")
    decision = stream.inline(record, action="review")["decision"]
    foreign = {**decision, "id": "claimed-other", "event": other["event"], "hash": "x"}
    store.set(stream.of.redis_claim("claimed"), claims.pack(decision, appended=False))
    store.set(stream.of.redis_claim("claimed-other"), claims.pack(foreign, appended=False))
    before = len(stream.committed("dead-letters"))
    stream.send(record, other, stream.record("claimed-end"))
    decisions = stream.wait("claimed", "claimed-end")
    assert (decisions["claimed"]["action"], decisions["claimed"]["door"]) == ("review", "inline")
    assert "claimed-other" not in decisions
    assert len(stream.committed("dead-letters")) == before + 1


def test_failed_features_and_a_lost_redis_are_stated(stream: Stream, worker: serving.Process) -> None:
    """A null vector is decided by the policy alone; without Redis the decision says that it wasn't claimed."""
    stream.send(stream.record("null", vector=None, reason="stage failed"))
    assert stream.wait("null")["null"]["degraded"] == ["features_failed"]
    stream.stack.redis.stop()
    try:
        stream.send(stream.record("unclaimed"))
        assert stream.wait("unclaimed")["unclaimed"]["degraded"] == ["idempotency"]
    finally:
        stream.stack.redis.start()
    numbers = itertools.count()

    def claimed() -> bool:
        event_id = f"claimed-again-{next(numbers)}"
        stream.send(stream.record(event_id))
        degraded: list[str] = stream.wait(event_id)[event_id]["degraded"]
        return degraded == []

    # The worker leaves a failed store alone for a second.
    wait_for(claimed, 30, "a decision that is claimed again")


def test_a_vector_of_another_feature_set_is_refused(stream: Stream, worker: serving.Process) -> None:
    """It reaches no model; its event is decided by the policy alone and says so, with the vector under its own set."""
    foreign = stream.record("foreign", set="f" * 64)
    stream.send(foreign, stream.record("native"))
    decisions = stream.wait("foreign", "native")
    assert decisions["foreign"]["degraded"] == ["other_feature_set"]
    assert (decisions["foreign"]["score"], decisions["foreign"]["model_version"]) == (None, None)
    assert (decisions["foreign"]["set"], decisions["native"]["degraded"]) == ("f" * 64, [])
    assert decisions["foreign"]["vector"] == json.loads(orjson.dumps(foreign["vector"]))


def test_an_unreadable_record_stops_nothing(stream: Stream, worker: serving.Process) -> None:
    """What isn't a feature record becomes a dead letter with its bytes, and the next one is decided."""
    before = len(stream.committed("dead-letters"))
    stream.stack.broker.produce(stream.of.topic("features"), [("k", b"{"), ("k", b'{"event": {}}')])
    stream.send(stream.record("after-unreadable"))
    stream.wait("after-unreadable")
    wait_for(lambda: len(stream.committed("dead-letters")) == before + 2, 20, "two dead letters")


def test_a_large_unreadable_record_stops_nothing(stream: Stream, worker: serving.Process) -> None:
    """Sealed it would be too much for a record of Kafka: its dead letter holds the beginning, and the next one is decided."""
    before = len(stream.committed("dead-letters"))
    stream.stack.broker.produce(stream.of.topic("features"), [("k", b"x" * 900_000)])
    stream.send(stream.record("after-large"))
    stream.wait("after-large")
    assert len(stream.committed("dead-letters")) == before + 1


def test_unreadable_decisions_stop_no_worker_that_starts(stream: Stream, tmp_path: Path) -> None:
    """Foreign bytes in the tail of decisions are counted; the ids beside them are known as published."""
    stack = stream.stack
    config = detectors.detector(stack.broker.bootstrap, partitions=1, name="tail")
    stack.broker.create_detector_topics(str(config.identity), 1)
    serving.write_release(tmp_path, Release(name="r0", policy=Policy(), policy_revision=1))
    tail = Stream(replace(stack, config=config, folder=tmp_path))
    published = tail.record("published")
    decision = orjson.dumps(tail.inline(published)["decision"])
    spoilt = [b"", None, b"{", b"[]", b'{"id":"x"}', b'{"id":1,"hash":"h","decided":1}', b"\xff"]
    topic = config.identity.topic("decisions")
    stack.broker.produce(topic, [("k", value) for value in [*spoilt, decision]])
    with serving.worker(config, tmp_path, stack.redis.url) as process:
        tail.send(published, tail.record("new"))

        def ids() -> list[str]:
            values = [message.value() or b"" for message in stack.broker.read(topic, committed=True)]
            return [
                orjson.loads(value)["id"]
                for value in values
                if value.startswith(b'{"id":"') and b"hash" in value
            ]

        wait_for(lambda: "new" in ids(), 60, "a decision beside unreadable ones")
        assert ids() == ["published", "new"]
        unreadable = f'fraud_unreadable_total{{detector="{config.identity}",what="decision"}}'
        assert metric(process, unreadable) == len(spoilt)


def test_a_killed_worker_loses_and_doubles_nothing(stream: Stream, worker: serving.Process) -> None:
    """kill -9 under load, again and again: its successor goes on, exactly once."""
    ids: list[str] = []
    for round_ in range(3):
        ids += feed(stream, f"kill-{round_}", 60, 0.005)
        worker.stop(signal.SIGKILL)
        ids += feed(stream, f"kill-b{round_}", 20, 0.001)
        worker.start()
    stream.wait(*ids, seconds=90)
    exactly_once(stream, ids, "kill-")


def restart(broker: Broker) -> None:
    """Away for as long as it takes to start: seconds."""
    broker.stop(signal.SIGKILL)
    broker.start()


@pytest.mark.accept
def test_a_killed_broker_loses_and_doubles_nothing(stream: Stream, worker: serving.Process) -> None:
    """kill -9 of the broker under the worker's transactions: each record is decided once."""
    ids = feed(stream, "broker-a", 100, 0.005)
    restart(stream.stack.broker)
    ids += feed(stream, "broker-b", 100, 0.005)
    stream.wait(*ids, seconds=120)
    exactly_once(stream, ids, "broker-")


@pytest.mark.accept
def test_a_broker_killed_while_nothing_is_to_be_decided_stops_nobody(
    stream: Stream, worker: serving.Process
) -> None:
    """Its next record is decided by the same process, in seconds, though the client lost its only broker meanwhile."""
    stream.send(stream.record("idle-before"))
    stream.wait("idle-before")
    restart(stream.stack.broker)
    process = worker.process
    assert process is not None
    pid = process.pid
    stream.send(stream.record("idle-after"))
    stream.wait("idle-after", seconds=30)
    assert process.poll() is None
    assert worker.process is not None and worker.process.pid == pid


@pytest.mark.accept
def test_a_transaction_that_the_broker_forgot_holds_up_nobody(
    stream: Stream, worker: serving.Process
) -> None:
    """Its records and offsets wait for a marker that nobody will write; the worker's start ends it, and all is decided."""
    broker, of = stream.stack.broker, stream.of
    worker.stop()
    logs = sorted((broker.folder / "data").glob("__transaction_state-*"))
    kept = stream.stack.folder / "kept"
    settings = {"transactional_id": of.transactional_id(0), "metadata_recovery_strategy": "none"}
    producer = broker.producer(**settings)
    producer.init_transactions(30)
    broker.stop()
    for log in logs:
        shutil.copytree(log, kept / log.name)
    broker.start()
    member = broker.consumer(of.group("worker"))
    producer.begin_transaction()
    for noun in ("decisions", "alerts"):
        for partition in (0, 1):
            producer.produce(of.topic(noun), b"left open", partition=partition)
    places = [TopicPartition(of.topic("features"), partition, 0) for partition in (0, 1)]
    producer.send_offsets_to_transaction(places, member.consumer_group_metadata(), 30)
    assert producer.flush(30) == 0
    broker.stop(signal.SIGKILL)
    for log in logs:
        shutil.rmtree(log)
        shutil.copytree(kept / log.name, log)
    broker.start()
    worker.start()
    ids = feed(stream, "forgotten", 20, 0.01)
    stream.wait(*ids, seconds=30)
    exactly_once(stream, ids, "forgotten-")


def test_a_worker_that_was_taken_for_dead_publishes_nothing_twice(
    stream: Stream, worker: serving.Process
) -> None:
    """It stands still in the middle of its work until another one has its partitions, then goes on, or ends and is started anew."""
    suspended = worker.process
    assert suspended is not None
    ids = feed(stream, "suspended-a", 30, 0.005)
    suspended.send_signal(signal.SIGSTOP)
    other = serving.Process("fraud_serving.worker", worker.folder, worker.environ)
    try:
        ids += feed(stream, "suspended-b", 30, 0.005)
        other.start()
        stream.wait(*ids, seconds=60)
        suspended.send_signal(signal.SIGCONT)
        ids += feed(stream, "suspended-c", 60, 0.02)
        stream.wait(*ids, seconds=60)
        exactly_once(stream, ids, "suspended-")
    finally:
        suspended.send_signal(signal.SIGCONT)
        assert other.stop() == 0


@contextmanager
def forgetful(config: DetectorConfig, server: redis.Server) -> Iterator[BatchProcessor]:
    """A worker's loop in this process that remembers two published ids of a partition, where life's remembers 50,000."""
    processor = batches.processor(server, config)
    processor.published_ids = PublishedIds(kept=2)
    loop = WorkerLoop(config, processor, lambda: None)
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        yield processor
    finally:
        loop.stopping = True
        thread.join(60)


def test_an_id_is_published_once_after_newer_ones_and_a_restart(stream: Stream) -> None:
    """Real Kafka and Redis: both doors' records come again when the worker, then its successor, has forgotten their ids."""
    stack = stream.stack
    config = detectors.detector(stack.broker.bootstrap, partitions=1, name="once")
    stack.broker.create_detector_topics(str(config.identity), 1)
    once = Stream(replace(stack, config=config))
    record, inline = once.record("stream"), once.inline(once.record("inline"))
    store = redis_client.Redis.from_url(stack.redis.url)
    store.set(config.identity.redis_claim("inline"), claims.pack(inline["decision"], appended=True), ex=500)
    with forgetful(config, stack.redis) as processor:
        once.send(record, inline)
        once.wait("stream", "inline")
        once.send(once.record("newer-1"), once.record("newer-2"))
        once.wait("newer-2")
        once.send(record, inline, once.record("end-1"))
        once.wait("end-1")
        wait_for(lambda: len(processor.published_ids) == 2, 10, "a memory of two")
    with forgetful(config, stack.redis):
        once.send(inline, record, once.record("end-2"))
        once.wait("end-2")
    counts = Counter(decision["id"] for decision in once.committed())
    assert counts == dict.fromkeys(["stream", "inline", "newer-1", "newer-2", "end-1", "end-2"], 1)


def test_a_claim_says_where_its_decision_lies(stream: Stream) -> None:
    """Once it is published, by the broker's word; a successor of a worker that died reads it off the record."""
    stack = stream.stack
    config = detectors.detector(stack.broker.bootstrap, partitions=1, name="placed")
    of = config.identity
    stack.broker.create_detector_topics(str(of), 1)
    placed = Stream(replace(stack, config=config))
    store = redis_client.Redis.from_url(stack.redis.url)

    def place(event_id: str) -> Any:
        claim = claims.read(store.get(of.redis_claim(event_id)), event_id)
        return None if claim is None else claim.place

    with forgetful(config, stack.redis):
        placed.send(placed.record("told"))
        told = wait_for(lambda: place("told"), 20, "its place")
    [message] = stack.broker.read(of.topic("decisions"), committed=True)
    assert (told.partition, told.offset) == (0, message.offset())
    decision = orjson.loads(message.value())
    store.set(of.redis_claim("told"), claims.pack(decision, appended=True))
    assert place("told") is None
    with forgetful(config, stack.redis):
        assert wait_for(lambda: place("told"), 20, "the place that the tail has") == told
