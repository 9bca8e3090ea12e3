"""The whole job over TLS with a login, against a real broker; its own Java clients take user and password from the files."""

from __future__ import annotations

import time
from pathlib import Path

import orjson
import pytest

from fraud_contracts.config import KafkaAddress
from fraud_testing import detectors, kafka_tls, stream
from fraud_testing.kafka import wait_for

pytestmark = [
    pytest.mark.integration,
    pytest.mark.accept,
    pytest.mark.skipif(bool(kafka_tls.missing()), reason=str(kafka_tls.missing())),
    pytest.mark.skipif(bool(stream.missing()), reason=str(stream.missing())),
]
FIRST, SECOND = "the first password", "the second password"


def test_the_job_logs_in_and_comes_back_with_another_password(tmp_path: Path) -> None:
    """A changed password is read when a client is made anew: the broker's restart leads to a restart from the checkpoint.

    Neither password is in anything that the job writes into its storage.
    """
    with kafka_tls.locked_broker() as broker:
        config = detectors.detector(
            broker.bootstrap, namespace=kafka_tls.REVIEWED.namespace, name=kafka_tls.REVIEWED.name
        )
        identity = config.identity
        broker.plain.create_detector_topics(str(identity))
        broker.set_password("stream", FIRST)
        broker.allow_as("stream", "features")
        access = broker.login(tmp_path / "login", "stream", FIRST)
        address = KafkaAddress(bootstrap_servers=broker.bootstrap, partitions=1, login=str(access.folder))
        config = config.model_copy(update={"kafka": address})

        def send(name: str) -> None:
            event = {
                "id": name, "time": time.time_ns() // 1_000_000, "amount": 1.0,
                "card": "c", "merchant": "m", "category": "food",
            }  # fmt: skip
            broker.plain.produce(identity.topic("transactions"), [("c", orjson.dumps(event))])

        def decided() -> set[str]:
            return {
                orjson.loads(m.value())["event"]["id"] for m in broker.plain.read(identity.topic("features"))
            }

        restarts = {
            "restart-strategy.type": "fixed-delay",
            "restart-strategy.fixed-delay.attempts": "50",
            "restart-strategy.fixed-delay.delay": "1 s",
        }
        with stream.mini_cluster(config, tmp_path, **restarts) as process:
            send("before")
            wait_for(lambda: "before" in decided() or process.poll() is not None, 120, "the first record")
            broker.set_password("stream", SECOND)
            broker.login(tmp_path / "login", "stream", SECOND)
            broker.plain.stop()
            broker.plain.start()
            send("after")
            wait_for(lambda: "after" in decided() or process.poll() is not None, 120, "the second record")
        stored = [path for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()]
        assert {"before", "after"} <= decided()
        assert not [path for path in stored if FIRST.encode() in path.read_bytes()]
