"""The job's state: what is forgotten, and which savepoints of another version of it can be read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from fraud_contracts import profile_header
from fraud_contracts.config import DetectorConfig
from fraud_contracts.names import profile_key
from fraud_contracts.profile_header import Header
from fraud_contracts.stream_progress import is_progress
from fraud_pipelines.events import EventSchema, Tokeniser
from fraud_pipelines.features import compile_detector
from fraud_testing import detectors, flink_cluster, kafka, stream

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(kafka.missing()), reason=str(kafka.missing())),
    pytest.mark.skipif(bool(flink_cluster.missing()), reason=str(flink_cluster.missing())),
]
# Python in a TaskManager finds functions by their module's name: what is changed here is changed there.
PROGRAM = """\
import sys

import changed
from fraud_flink import job

job.EntityFunction = changed.EntityFunction
job.main(sys.argv[1:])
"""
CHANGED = """\
from pyflink.common import Types
from pyflink.datastream.state import ValueStateDescriptor

from fraud_contracts import lifetimes
from fraud_flink import functions

{change}


class EntityFunction(functions.EntityFunction):
    pass
"""
NEVER_FORGETS = (
    "functions.profile_state = lambda reach: "
    "ValueStateDescriptor(functions.STATE, Types.PICKLED_BYTE_ARRAY())"
)
SECONDS = 10
FORGETS_SOON = f"lifetimes.state_kept = lambda reach: {SECONDS * 1000}"
HEAP = {"state.backend.type": "hashmap", "execution.checkpointing.incremental": "false"}


def program(folder: Path, change: str) -> Path:
    """An entry point of the job with one thing changed."""
    folder.mkdir(parents=True)
    (folder / "changed.py").write_text(CHANGED.format(change=change))
    (folder / "changed_job.py").write_text(PROGRAM)
    return folder / "changed_job.py"


def profiles(broker: kafka.Broker, config: DetectorConfig) -> dict[bytes, list[bytes]]:
    """By key, in the order in which they were written."""
    written: dict[bytes, list[bytes]] = {}
    for message in broker.read(config.identity.topic("profiles")):
        if not is_progress(message.value()):
            written.setdefault(message.key(), []).append(message.value())
    return written


def key_of(config: DetectorConfig, card: str) -> bytes:
    token = Tokeniser.from_hex(stream.TOKEN_KEY).token("card", card)
    return profile_key(config.hash6, "customer", token).encode()


def test_a_key_that_nothing_comes_to_is_forgotten(tmp_path: Path) -> None:
    """Its next event finds no state, and is its first; that of another key, which came again in time, goes on."""
    with kafka.broker(tmp_path / "kafka") as broker:
        config = detectors.detector(broker.bootstrap)
        broker.create_detector_topics(str(config.identity))
        numbers = iter(range(1_000))

        def pay(card: str) -> None:
            now = int(time.time() * 1000)
            row = {"id": f"tx-{next(numbers)}", "time": now, "amount": 5, "card": card, "merchant": "m"}
            broker.produce(config.identity.topic("transactions"), [(card, orjson.dumps(row))])

        def header(card: str) -> Header | None:
            written = profiles(broker, config).get(key_of(config, card))
            return profile_header.read(written[-1]) if written else None

        changed = program(tmp_path / "program", FORGETS_SOON)
        with stream.mini_cluster(config, tmp_path, ("-P", str(changed))) as job:

            def seq_of(card: str) -> int:
                if job.poll() is not None:
                    raise RuntimeError((tmp_path / "job.log").read_text()[-4000:])
                found = header(card)
                return 0 if found is None else found.seq

            pay("idle")
            kafka.wait_for(lambda: seq_of("idle") == 1, 300, "the first profile")
            pay("idle")
            pay("busy")
            kafka.wait_for(lambda: seq_of("idle") == 2 and seq_of("busy") == 1, 60, "two more")
            begun = time.monotonic()

            def until_forgotten() -> bool:
                before = seq_of("busy")
                pay("busy")
                kafka.wait_for(lambda: seq_of("busy") == before + 1, 60, "the busy key's next profile")
                return time.monotonic() - begun > SECONDS + 1

            kafka.wait_for(until_forgotten, 60, "the end of the idle key's state")
            pay("idle")
            kafka.wait_for(lambda: seq_of("idle") == 1, 60, "a new beginning of the idle key")
            again = header("idle")
        assert again is not None
        assert again.epoch == config.epoch


class Payments:
    """Payments of some cards, sent in parts, and the profiles that all that was sent leads to."""

    def __init__(self, broker: kafka.Broker, config: DetectorConfig) -> None:
        self._broker, self._config = broker, config
        self._start = int(time.time() * 1000) - 3_600_000
        self.sent: list[dict[str, object]] = []

    def send(self, count: int) -> None:
        first = len(self.sent)
        rows = [
            {
                "id": f"tx-{n}",
                "time": self._start + n * 1000,
                "amount": n % 90,
                "card": f"card-{n % 13}",
                "merchant": f"shop-{n % 5}",
            }
            for n in range(first, first + count)
        ]
        self.sent += rows
        topic = self._config.identity.topic("transactions")
        self._broker.produce(topic, [(str(row["card"]), orjson.dumps(row)) for row in rows])

    def expected(self) -> dict[bytes, bytes]:
        """By key the last profile."""
        engine, of = compile_detector(self._config.spec), self._config
        schema = EventSchema(of.spec.event, of.spec.entities)
        tokeniser = Tokeniser.from_hex(stream.TOKEN_KEY)
        states: dict[tuple[str, str], bytes] = {}
        for row in self.sent:
            event = schema.canonical(row, tokeniser, self._start + 7_200_000)
            keys = {entity: (entity, str(token)) for entity, token in event["entities"].items()}
            own = {entity: states.get(key) for entity, key in keys.items()}
            _, new, _ = engine.observe(own, event, of.epoch)
            states.update({keys[entity]: state for entity, state in new.items()})
        return {profile_key(of.hash6, *key).encode(): state for key, state in states.items()}

    def written(self) -> dict[bytes, bytes]:
        return {key: values[-1] for key, values in profiles(self._broker, self._config).items()}


@contextmanager
def running(
    config: DetectorConfig, folder: Path, settings: dict[str, str], changed: Path | None = None
) -> Iterator[flink_cluster.Cluster]:
    with flink_cluster.cluster(config, folder, settings, changed) as flink:
        flink.add_task_manager()
        flink.wait_running(300)
        yield flink


@pytest.mark.slow
def test_a_savepoint_of_the_version_before_is_read_and_so_is_ours_by_it(tmp_path: Path) -> None:
    """That one keeps its state on the heap and forgets nothing. No key's count of events begins anew either way."""
    older = program(tmp_path / "program", NEVER_FORGETS)
    steps = (("before", HEAP, older), ("upgraded", {}, None), ("put-back", HEAP, older))
    with kafka.broker(tmp_path / "kafka") as broker:
        config = detectors.detector(broker.bootstrap)
        broker.create_detector_topics(str(config.identity))
        payments, savepoint = Payments(broker, config), ""
        for name, settings, changed in steps:
            more = {"execution.state-recovery.path": savepoint} if savepoint else {}
            with running(config, tmp_path / name, {**settings, **more}, changed) as flink:
                payments.send(100)
                expected = payments.expected()
                kafka.wait_for(lambda want=expected: payments.written() == want, 120, f"profiles, {name}")
                savepoint = flink.stop_with_savepoint(tmp_path / "savepoints")
