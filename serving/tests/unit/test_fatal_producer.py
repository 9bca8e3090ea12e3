"""A decision replica whose Kafka producer is past use ends, whatever else of it still works."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# The library's own test hook makes the error; what follows from it is the library's and ours.
START = """
import asyncio, ctypes, glob, os
import confluent_kafka
from fraud_contracts import log
from fraud_process.kafka import KafkaAccess
from fraud_serving.clients import kafka_log
log.setup()
libraries = glob.glob(os.path.join(os.path.dirname(confluent_kafka.__file__), "..", "confluent_kafka.libs", "librdkafka*.so*"))
library = ctypes.CDLL(libraries[0])
library.rd_kafka_test_fatal_error.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p]
real = confluent_kafka.Producer
kafka_log.Producer = lambda settings: real({**settings, "test.mock.num.brokers": 1})
async def main():
    log = kafka_log.KafkaLog(KafkaAccess("unused:9092"), 2.0)
    await log.append("accepted", b"k", b"v")
    %s
    await asyncio.sleep(30)
asyncio.run(main())
"""
FATAL = """handle = ctypes.c_void_p.from_address(id(log._producer) + 16).value
    assert library.rd_kafka_test_fatal_error(handle, 45, b"the broker lost the producer's state") == 0"""
DEAD = "log._producer = None"
# Nothing listens there, and somebody else is answered.
FORSAKEN = """kafka_log._FAILING_SECONDS, kafka_log.is_forsaken = 0.0, lambda producer, settings: True
    log._producer = real({"bootstrap.servers": "127.0.0.1:9", "delivery.timeout.ms": 100, "log_level": 0})
    try:
        await log.append("accepted", b"k", b"v")
    except kafka_log.StoreError:
        pass"""


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(FATAL, "OUT_OF_ORDER_SEQUENCE_NUMBER"), (DEAD, "AttributeError"), (FORSAKEN, "ForsakenError")],
    ids=["fatal", "thread", "forsaken"],
)
def test_a_producer_past_use_ends_the_process(fault: str, reason: str) -> None:
    """After a fatal error, without its polling thread, or forsaken by Kafka, no append would ever succeed: exit code 1, and the log says why."""
    done = subprocess.run(
        [sys.executable, "-c", START % fault], check=False, timeout=25, capture_output=True, text=True
    )
    assert done.returncode == 1
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["reason"] == "thread kafka-poll died"
    assert reason in last["exception"]
