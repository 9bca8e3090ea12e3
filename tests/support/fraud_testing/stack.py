"""Real servers that a worker or a decision service needs: Kafka, Redis, a predictor over a small real package."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fraud_contracts.config import DetectorConfig
from fraud_contracts.detector_policy import Policy
from fraud_contracts.release import Release
from fraud_pipelines.features import compile_detector
from fraud_testing import detectors, kafka, packages, redis, serving


@dataclass
class Stack:
    config: DetectorConfig
    broker: kafka.Broker
    redis: redis.Server
    predictor: serving.Process
    digest: str
    folder: Path

    def release(self, name: str = "r1", policy: dict[str, Any] | None = None, **more: Any) -> None:
        """Puts a release with the small model in place."""
        feature_set = self.config.feature_set
        stable = packages.release_package(self.digest, feature_set, f"http://127.0.0.1:{self.predictor.port}")
        chosen = Policy.model_validate(policy or {"fallback": serving.NO_STREAM | {"deadline": "1s"}})
        whole = {"stable": stable, "policy": chosen, "policy_revision": 1, **more}
        serving.write_release(self.folder, Release(name=name, **whole))

    def transaction(self, event_id: str, **changes: Any) -> dict[str, Any]:
        whole = {
            "id": event_id,
            "time": int(time.time() * 1000),
            "amount": 12.34,
            "card": "4111-card-number",
            "merchant": "m1",
            "category": "travel",
        }
        return {**whole, **changes}


@contextmanager
def running(folder: Path) -> Iterator[Stack]:
    """The servers for the block, with a first release; files go to ``folder``."""
    with kafka.broker() as broker, redis.server(append_only=True) as store:
        config = detectors.detector(broker.bootstrap, partitions=2)
        broker.create_detector_topics(str(config.identity), 2)
        redis.claims_whole(store, config.identity)
        package = folder / "package"
        names = list(compile_detector(config.spec).names)
        digest = packages.make(package, names, config.feature_set)
        with serving.predictor(package, f"{config.name}-a", folder) as predictor:
            stack = Stack(config, broker, store, predictor, digest, folder)
            stack.release()
            yield stack
