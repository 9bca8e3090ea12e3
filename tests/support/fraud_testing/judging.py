"""A worker's judgement in this process, by rules alone, over a real Redis: batches in, what would be published out."""

from __future__ import annotations

from typing import Any

import orjson
from prometheus_client import CollectorRegistry

from fraud_contracts.config import DetectorConfig
from fraud_contracts.detector_policy import Policy
from fraud_contracts.release import Release
from fraud_pipelines.events import Tokeniser
from fraud_pipelines.sealing import Sealer
from fraud_process.instruments import Instruments
from fraud_serving import claims
from fraud_serving.clients.blocking_model import BlockingModelClient
from fraud_serving.worker import incoming
from fraud_serving.worker.incoming import Incoming
from fraud_serving.worker.judge import Judge, Judged
from fraud_serving.worker.store import RedisClaims
from fraud_testing import detectors, redis, serving

CONFIG = detectors.detector("unused:9092")
OF = CONFIG.identity


def judge(server: redis.Server, config: DetectorConfig = CONFIG) -> Judge:
    made = Judge(
        config,
        Tokeniser.from_hex(serving.TOKEN_KEY),
        Sealer(serving.DEAD_LETTER_KEY),
        RedisClaims(server.url),
        BlockingModelClient(1.0),
        Instruments(CollectorRegistry(), detector=str(config.identity)),
    )
    made.release.take(Release(name="r0", policy=Policy(), policy_revision=1))
    return made


def read(*records: dict[str, Any]) -> list[Incoming]:
    return [incoming.read(0, b"k", orjson.dumps(record)) for record in records]


def decided(judged: Judged) -> list[dict[str, Any]]:
    return [orjson.loads(out.value) for out in judged.out if out.noun == "decisions"]


def claim(store: Any, event_id: str) -> claims.Claim:
    """What lies under an id that is claimed."""
    found = claims.read(store.get(OF.redis_claim(event_id)), event_id)
    assert found is not None
    return found
