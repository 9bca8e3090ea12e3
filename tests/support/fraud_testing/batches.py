"""A worker's batches in this process, by rules alone, over a real Redis: batches in, what would be published out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from prometheus_client import CollectorRegistry

from fraud_contracts.config import DetectorConfig
from fraud_contracts.detector_policy import Policy
from fraud_contracts.errors import StoreError
from fraud_contracts.release import Release
from fraud_pipelines.dead_letter_cipher import DeadLetterCipher
from fraud_pipelines.events import Tokeniser
from fraud_process.instruments import Instruments
from fraud_process.store_address import StoreAddress
from fraud_serving import claims
from fraud_serving.clients.blocking_model import BlockingModelClient
from fraud_serving.clients.ledger_link import LedgerLink, Look
from fraud_serving.past_decisions import Ledger
from fraud_serving.worker.batch import BatchResult, Incoming, read_incoming
from fraud_serving.worker.processor import BatchProcessor
from fraud_serving.worker.redis_claims import RedisClaims
from fraud_testing import detectors, redis, serving

CONFIG = detectors.detector("unused:9092")
OF = CONFIG.identity


class DictLedger:
    """Holds what a test publishes; ``reached`` is how far it is."""

    def __init__(self) -> None:
        self.decisions: dict[str, bytes] = {}
        self.reached = {(0, 0): 0}
        self.asked = 0
        self.away = False

    def look(self, ids: Sequence[str]) -> Look:
        self.asked += 1
        if self.away:
            raise StoreError("postgres", "away")
        return Look({one: self.decisions[one] for one in ids if one in self.decisions}, self.reached)

    def take(self, *decisions: dict[str, Any]) -> None:
        self.decisions |= {one["id"]: orjson.dumps(one) for one in decisions}


def no_ledger() -> LedgerLink:
    return LedgerLink(StoreAddress(serving.NO_LEDGER), OF)


def processor(
    server: redis.Server, config: DetectorConfig = CONFIG, ledger: Ledger | None = None
) -> BatchProcessor:
    batch_processor = BatchProcessor(
        config,
        Tokeniser.from_hex(serving.TOKEN_KEY),
        DeadLetterCipher(serving.DEAD_LETTER_KEY),
        RedisClaims(StoreAddress(server.login(config.identity))),
        ledger or no_ledger(),
        BlockingModelClient(1.0),
        Instruments(CollectorRegistry(), detector=str(config.identity)),
    )
    batch_processor.release.take(Release(name="r0", policy=Policy(), policy_revision=1))
    return batch_processor


def read(*records: dict[str, Any]) -> list[Incoming]:
    return [read_incoming(0, b"k", orjson.dumps(record)) for record in records]


def publish(one: BatchProcessor, *records: dict[str, Any]) -> BatchResult:
    """Decides the records, and takes them for committed."""
    result = one.process(read(*records))
    one.committed(result)
    return result


def decided(result: BatchResult) -> list[dict[str, Any]]:
    return [orjson.loads(out.value) for out in result.outgoing if out.noun == "decisions"]


def claim(store: Any, event_id: str) -> claims.Claim:
    """What lies under an id that is claimed."""
    found = claims.read(store.get(OF.redis_claim(event_id)), event_id)
    assert found is not None
    return found


def pass_time(store: Any, seconds: int) -> None:
    """Whole claims of published decisions are as if these had been published so much earlier."""
    for key, at in store.zrange(OF.redis_due, 0, -1, withscores=True):
        store.zadd(OF.redis_due, {key: at - seconds * 1000})
