"""How far the stream is, as the job itself writes it: behind the profiles, by each subtask, on each partition."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import orjson
import pytest

from fraud_contracts import profile_header
from fraud_contracts.names import profile_key
from fraud_contracts.stream_progress import StreamProgress, is_progress, read_applied, read_progress
from fraud_pipelines.events import EventSchema, Tokeniser
from fraud_sinks.profile_progress import PartitionProgress
from fraud_testing import detectors, kafka, stream

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(kafka.missing()), reason=str(kafka.missing())),
    pytest.mark.skipif(bool(stream.missing()), reason=str(stream.missing())),
]
PARALLELISM, PARTITIONS, COUNT = 2, 3, 400


def test_what_is_told_covers_the_profiles_before_it(tmp_path: Path) -> None:
    """Two subtasks of each stage tell of both inputs, up to their ends while nothing comes; no event that they tell of is missing
    in the profiles that lie before on the partition."""
    start = int(time.time() * 1000)
    with kafka.broker(tmp_path / "kafka") as broker:
        config = detectors.detector(broker.bootstrap, partitions=PARTITIONS)
        identity = config.identity
        broker.create_detector_topics(str(identity), PARTITIONS)
        sent = [
            {
                "id": f"tx-{i}",
                "time": start + i,
                "amount": 5,
                "card": f"card-{i % 50}",
                "merchant": f"m-{i % 9}",
            }
            for i in range(COUNT)
        ]
        topic = identity.topic("transactions")
        broker.produce(topic, [(one["card"], orjson.dumps(one)) for one in sent])
        placed = {orjson.loads(m.value())["id"]: (m.partition(), m.offset()) for m in broker.read(topic)}
        ends: dict[int, int] = {}
        for partition, offset in placed.values():
            ends[partition] = max(ends.get(partition, 0), offset + 1)

        def told() -> dict[tuple[int, int, int], StreamProgress]:
            """The last by stage, subtask and partition of the profiles."""
            last = {}
            for message in broker.read(identity.topic("profiles")):
                if is_progress(message.value()):
                    hash6, progress = read_progress(message.key(), message.value())
                    assert hash6 == config.hash6
                    last[progress.stage, progress.subtask, message.partition()] = progress
            return last

        def all_at_the_end() -> bool:
            last = told()
            return len(last) == 2 * PARALLELISM * PARTITIONS and all(
                one.applied.get("transactions") == ends for one in last.values()
            )

        with stream.mini_cluster(config, tmp_path, **{"parallelism.default": str(PARALLELISM)}) as job:

            def ended_or_told() -> bool:
                if job.poll() is not None:
                    raise RuntimeError((tmp_path / "job.log").read_text()[-4000:])
                return all_at_the_end()

            kafka.wait_for(ended_or_told, 300, "word of all subtasks on all partitions")
        messages = broker.read(identity.topic("profiles"))

    schema, tokeniser = (
        EventSchema(config.spec.event, config.spec.entities),
        Tokeniser.from_hex(stream.TOKEN_KEY),
    )
    events = [(schema.canonical(row, tokeniser, start + COUNT), *placed[row["id"]]) for row in sent]
    keys = [
        (profile_key(config.hash6, entity, token).encode(), partition, offset)
        for event, partition, offset in events
        for entity, token in event["entities"].items()
    ]
    homes = {m.key(): m.partition() for m in messages if not is_progress(m.value())}
    assert {key for key, _, _ in keys} == set(homes)
    merged = [PartitionProgress(None) for _ in range(PARTITIONS)]
    seqs: Counter[bytes] = Counter()
    said = 0
    for message in messages:
        if not is_progress(message.value()):
            seqs[message.key()] = max(seqs[message.key()], profile_header.read(message.value()).seq)
            continue
        packed = merged[message.partition()].read(read_progress(message.key(), message.value())[1])
        if packed is None:
            continue
        applied = read_applied(packed).applied.get("transactions", {})
        due = Counter(
            key
            for key, partition, offset in keys
            if homes[key] == message.partition() and offset < applied.get(partition, 0)
        )
        said += sum(due.values())
        assert [key for key, least in due.items() if seqs[key] < least] == []
    assert said >= len(keys)
