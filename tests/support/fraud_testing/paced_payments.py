"""Payments sent to a streaming job at a steady pace while something happens to it, and what must be on its topics afterwards."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import orjson

from fraud_contracts.config import DetectorConfig
from fraud_contracts.stream_progress import is_progress
from fraud_pipelines.events import EventSchema, Tokeniser
from fraud_pipelines.features import compile_detector, profile_key
from fraud_testing import kafka, stream

CARDS, SHOPS = 500, 200


@dataclass
class PacedPayments:
    """``count`` payments, ``rate`` of them a second. One in ``once_in`` is the only one of its card, whose profile, once lost, has no
    later one to hide behind."""

    config: DetectorConfig
    broker: kafka.Broker
    count: int
    rate: int
    once_in: int = 2
    sent: list[dict[str, object]] = field(init=False)
    start: int = field(init=False)

    def __post_init__(self) -> None:
        self.start = time.time_ns() // 1_000_000 - self.count - 60_000
        self.sent = [
            {
                "id": f"tx-{i}",
                "time": self.start + i,
                "amount": i % 90,
                "card": f"once-{i}" if i % self.once_in == 1 else f"card-{i % CARDS}",
                "merchant": f"shop-{i * 104_729 % SHOPS}",
            }
            for i in range(self.count)
        ]

    @property
    def _features(self) -> str:
        return self.config.identity.topic("features")

    @property
    def emitted(self) -> int:
        """Records of features."""
        return self.broker.count(self._features)

    @property
    def taken_in(self) -> int:
        """Payments by the last checkpoint."""
        identity = self.config.identity
        group = identity.features_group(self.config.hash6)
        return self.broker.committed(group, identity.topic("transactions"))[0]

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Sends them beside the block, and what is left of them after it."""
        thread = threading.Thread(target=self._produce, daemon=True)
        thread.start()
        yield
        thread.join()

    def _produce(self) -> None:
        producer, topic = self.broker.producer(), self.config.identity.topic("transactions")
        begin = time.monotonic()
        for i, row in enumerate(self.sent):
            producer.produce(topic, orjson.dumps(row), str(row["card"]).encode())
            producer.poll(0)
            ahead = begin + i / self.rate - time.monotonic()
            if ahead > 0.01:
                time.sleep(ahead)  # paces the stream; nothing is awaited by it
        assert producer.flush(30) == 0

    def check(self) -> tuple[int, int]:
        """Each id is in features with the right vector, and each key's last profile is complete; -> how many records were
        emitted again, and by how many runs of the job."""
        emitted = [orjson.loads(message.value()) for message in self.broker.read(self._features)]
        written = self.broker.read(self.config.identity.topic("profiles"))
        profiles = {m.key(): m.value() for m in written if not is_progress(m.value())}
        vectors, states = self._expected()
        assert {record["event"]["id"] for record in emitted} == set(vectors)
        assert [r["event"]["id"] for r in emitted if r["vector"] != vectors[r["event"]["id"]]] == []
        assert not any(record["repeat"] for record in emitted)
        lost = [
            key
            for key, state in states.items()
            if profiles.get(profile_key(self.config.hash6, *key).encode()) != state
        ]
        assert lost == []
        print(f"{len(emitted)} emitted, {len(profiles)} profiles")
        return len(emitted) - self.count, len({record["run"] for record in emitted})

    def _expected(self) -> tuple[dict[str, list[float | None]], dict[tuple[str, str], bytes]]:
        """The vector of each id, and the last state of each key, by plain replay."""
        config, engine = self.config, compile_detector(self.config.spec)
        schema = EventSchema(config.spec.event, config.spec.entities)
        tokeniser = Tokeniser.from_hex(stream.TOKEN_KEY)
        states: dict[tuple[str, str], bytes] = {}
        vectors: dict[str, list[float | None]] = {}
        for row in self.sent:
            event = schema.canonical(row, tokeniser, self.start + self.count)
            keys = {entity: (entity, str(token)) for entity, token in event["entities"].items()}
            own_states = {entity: states.get(key) for entity, key in keys.items()}
            vector, new, _ = engine.observe(own_states, event, config.epoch)
            states.update({keys[entity]: state for entity, state in new.items()})
            vectors[event["id"]] = [None if value != value else value for value in vector]
        return vectors, states
