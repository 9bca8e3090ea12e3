"""A TaskManager killed in mid-stream: what the consumers of features and profiles have after recovery.

Checkpoints lie on the node, or in an object store, which goes away before.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from fraud_contracts.stream_progress import is_progress
from fraud_pipelines.events import EventSchema, Tokeniser
from fraud_pipelines.features import compile_detector, profile_key
from fraud_testing import detectors, flink_cluster, kafka, objects, stream

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(bool(kafka.missing()), reason=str(kafka.missing())),
    pytest.mark.skipif(bool(flink_cluster.missing()), reason=str(flink_cluster.missing())),
]
COUNT = int(os.environ.get("FRAUD_TEST_EVENTS", "12000"))
RATE = 1000
CARDS, SHOPS = 500, 200
AWAY_SECONDS = 20.0


@contextmanager
def checkpoints(place: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[objects.Server | None]:
    """The object store of the checkpoints; None where they lie on the node."""
    if place == "node":
        yield None
        return
    with objects.server_of_environment(monkeypatch) as store:
        yield store


# The store away, too, takes minutes.
@pytest.mark.parametrize("place", ["node", pytest.param("objects", marks=pytest.mark.accept)])
def test_a_killed_task_manager_loses_nothing(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After kill -9 each id is in features with the right vector, and each key's last profile is complete.

    An object store that was away for twenty seconds before has restarted nothing.
    """
    # So slow that the outage ends amid the stream.
    rate = RATE if place == "node" else RATE // 8
    start = time.time_ns() // 1_000_000 - COUNT - 60_000
    with checkpoints(place, monkeypatch) as store, kafka.broker(tmp_path / "kafka") as broker:
        config = detectors.detector(broker.bootstrap)
        identity = config.identity
        broker.create_detector_topics(str(identity))
        sent = [
            {
                "id": f"tx-{i}",
                "time": start + i,
                "amount": i % 90,
                # Half of the cards are seen once: a profile that is lost has no later one to hide behind.
                "card": f"card-{i}" if i % 2 else f"card-{i % CARDS}",
                "merchant": f"shop-{i * 104_729 % SHOPS}",
            }
            for i in range(COUNT)
        ]
        settings = {"execution.checkpointing.interval": "2 s"}
        if store is not None:
            settings |= flink_cluster.documented()["objectStore"]
            settings["execution.checkpointing.dir"] = f"{store.uri}/ns.cards/checkpoints"
        with flink_cluster.cluster(config, tmp_path / "flink", settings) as flink:
            first = flink.add_task_manager()
            flink.wait_running(300)
            # Its REST tells of jobs and takes no JAR.
            assert (flink.status_of("/jobs/overview"), flink.status_of("/jars")) == (200, 404)
            producing = threading.Thread(
                target=_produce, args=(broker, identity.topic("transactions"), sent, rate)
            )
            producing.start()
            features = identity.topic("features")
            group = identity.features_group(config.hash6)

            def taken_in() -> int:
                """By the last checkpoint."""
                return broker.committed(group, identity.topic("transactions"))[0]

            kafka.wait_for(lambda: taken_in() > COUNT // 10, 120, "a checkpoint in mid-stream")
            if store is not None:
                _go_away(store)
                last = taken_in()
                kafka.wait_for(lambda: taken_in() > last, 120, "a checkpoint after the outage")
            kafka.wait_for(lambda: broker.count(features) > COUNT // 3, 120, "a third of the features")
            os.killpg(first.pid, signal.SIGKILL)
            killed = time.monotonic()
            before = broker.count(features)
            flink.add_task_manager()
            kafka.wait_for(lambda: broker.count(features) > before, 300, "features after the kill")
            print(f"recovered after {time.monotonic() - killed:.1f} s, {before} features before")
            producing.join()
            kafka.wait_for(lambda: taken_in() == COUNT, 120, "a checkpoint after the last transaction")
        emitted = [orjson.loads(message.value()) for message in broker.read(features)]
        written = broker.read(identity.topic("profiles"))
        profiles = {m.key(): m.value() for m in written if not is_progress(m.value())}

    engine = compile_detector(config.spec)
    schema, tokeniser = (
        EventSchema(config.spec.event, config.spec.entities),
        Tokeniser.from_hex(stream.TOKEN_KEY),
    )
    states: dict[tuple[str, str], bytes] = {}
    vectors: dict[str, list[float | None]] = {}
    for row in sent:
        event = schema.canonical(row, tokeniser, start + COUNT)
        keys = {entity: (entity, str(token)) for entity, token in event["entities"].items()}
        own_states = {entity: states.get(key) for entity, key in keys.items()}
        vector, new, _ = engine.observe(own_states, event, config.epoch)
        states.update({keys[entity]: state for entity, state in new.items()})
        vectors[event["id"]] = [None if value != value else value for value in vector]
    print(f"{len(emitted)} emitted, {len(emitted) - COUNT} of them again, {len(profiles)} profiles")
    assert {record["event"]["id"] for record in emitted} == set(vectors)
    assert [r["event"]["id"] for r in emitted if r["vector"] != vectors[r["event"]["id"]]] == []
    assert not any(record["repeat"] for record in emitted)
    assert len(emitted) > COUNT, "the kill fell between a checkpoint and the next record: it showed nothing"
    assert len({record["run"] for record in emitted}) == 2
    lost = [
        key
        for key, state in states.items()
        if profiles.get(profile_key(config.hash6, *key).encode()) != state
    ]
    assert lost == []


def _go_away(store: objects.Server) -> None:
    store.stop(signal.SIGKILL)
    gone = time.monotonic()
    kafka.wait_for(lambda: time.monotonic() - gone > AWAY_SECONDS, 30, "the end of the outage")
    store.start()


def _produce(broker: kafka.Broker, topic: str, sent: list[dict[str, object]], rate: int) -> None:
    producer = broker.producer()
    begin = time.monotonic()
    for i, row in enumerate(sent):
        producer.produce(topic, orjson.dumps(row), str(row["card"]).encode())
        producer.poll(0)
        ahead = begin + i / rate - time.monotonic()
        if ahead > 0.01:
            time.sleep(ahead)  # paces the stream; nothing is awaited by it
    assert producer.flush(30) == 0
