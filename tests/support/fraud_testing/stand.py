"""Service, worker and predictors before whose stores stand proxies, which stall, break or slow them down."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import redis as redis_client

from fraud_contracts.config import DetectorConfig
from fraud_contracts.detector_policy import Policy
from fraud_contracts.release import BUCKETS, ModelPackage, Release, Split
from fraud_pipelines.features import compile_detector
from fraud_testing import detectors, kafka, packages, redis, serving
from fraud_testing.kafka import wait_for
from fraud_testing.proxy import Proxy, proxy

DEADLINE = 1.0
DELIVERY = 1.0
POLICY = {"fallback": serving.NO_STREAM | {"deadline": f"{DEADLINE * 1000:.0f}ms"}}


@dataclass
class Stand:
    config: DetectorConfig
    broker: kafka.Broker
    redis: redis.Server
    service: serving.Process
    worker: serving.Process
    proxies: dict[str, Proxy]
    folder: Path
    package: ModelPackage
    candidate: ModelPackage
    candidates: serving.Process
    number: int = 0

    def release(self, name: str, candidate: bool = False, rules: Any = (), **fallback: str) -> None:
        """``candidate``: a second model answers all buckets."""
        policy = {"fallback": {**POLICY["fallback"], **fallback}, "rules": list(rules)}
        whole: dict[str, Any] = {"stable": self.package, "policy_revision": 1}
        if candidate:
            whole |= {"candidate": self.candidate, "split": Split(salt="s", share=BUCKETS)}
        whole["policy"] = Policy.model_validate(policy)
        serving.write_release(self.folder, Release(name=name, **whole))
        wait_for(lambda: self.get("/readyz")["release"] == name, 10, f"release {name}")

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.service.url + path, timeout=5) as answer:
            return orjson.loads(answer.read())

    def metric(self, process: serving.Process, name: str, *labels: str) -> float:
        with urllib.request.urlopen(process.url + "/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.startswith(name + "{") and all(label in line for label in labels)
        )

    def transaction(self) -> dict[str, Any]:
        self.number += 1
        return {
            "id": f"tx-{self.number}",
            "time": int(time.time() * 1000),
            "amount": 12.34,
            "card": f"card-{self.number}",
            "merchant": "m1",
            "category": "travel",
        }

    def ask(self, count: int = 1) -> list[tuple[int, Any, float, dict[str, Any]]]:
        """(status, answer, seconds, request) of so many transactions at once."""
        return self.send([self.transaction() for _ in range(count)])

    def send(self, bodies: list[dict[str, Any]]) -> list[tuple[int, Any, float, dict[str, Any]]]:

        async def run() -> list[tuple[int, Any, float, dict[str, Any]]]:
            limit = aiohttp.ClientTimeout(total=20)
            async with aiohttp.ClientSession(timeout=limit) as session:

                async def one(body: dict[str, Any]) -> tuple[int, Any, float, dict[str, Any]]:
                    start = time.monotonic()
                    async with session.post(
                        self.service.url + "/v1/decisions",
                        data=json.dumps(body),
                        headers={"X-API-Key": serving.API_KEY},
                    ) as answer:
                        document = orjson.loads(await answer.read())
                        return answer.status, document, time.monotonic() - start, body

                return await asyncio.gather(*(one(body) for body in bodies))

        return asyncio.run(run())

    def healthy(self) -> bool:
        status, answer, _, _ = self.ask()[0]
        return status == 200 and answer["degraded"] == []

    def heal(self) -> None:
        for one in self.proxies.values():
            one.set(None)
        wait_for(self.healthy, 30, "whole answers again")

    def committed(self) -> list[dict[str, Any]]:
        messages = self.broker.read(self.config.identity.topic("decisions"), committed=True)
        return [orjson.loads(message.value()) for message in messages]


@contextmanager
def stand(folder: Path) -> Iterator[Stand]:
    """All of it, with one model's release in place."""
    with ExitStack() as stack:
        enter = stack.enter_context
        port = kafka.free_port()
        broker, store = enter(kafka.broker(proxy_port=port)), enter(redis.server())
        proxies = {"kafka": enter(proxy(port, broker.behind))}
        config = detectors.detector(f"127.0.0.1:{port}", partitions=2, name="degraded")
        broker.create_detector_topics(str(config.identity), 2)
        names = list(compile_detector(config.spec).names)
        digest = packages.make(folder / "package", names, config.feature_set)
        predictor = enter(serving.predictor(folder / "package", f"{config.name}-a", folder))
        proxies["predictor"] = enter(proxy(kafka.free_port(), predictor.port))
        worse = packages.make(folder / "candidate", names, config.feature_set, seed=2)
        candidates = enter(serving.predictor(folder / "candidate", f"{config.name}-b", folder))
        proxies["candidate"] = enter(proxy(kafka.free_port(), candidates.port))
        candidate = packages.release_package(
            worse, config.feature_set, f"http://127.0.0.1:{proxies['candidate'].port}", version="2", slot="b"
        )
        proxies["redis"] = enter(proxy(kafka.free_port(), store.port))
        package = packages.release_package(
            digest, config.feature_set, f"http://127.0.0.1:{proxies['predictor'].port}"
        )
        whole = {"stable": package, "policy": Policy.model_validate(POLICY), "policy_revision": 1}
        serving.write_release(folder, Release(name="r0", **whole))
        redis_client.Redis.from_url(store.url).set(config.identity.redis_complete(config.hash6), 1)
        redis.claims_whole(store, config.identity)
        url = f"redis://127.0.0.1:{proxies['redis'].port}/0"
        delivery = {"FRAUD_DELIVERY_SECONDS": str(DELIVERY)}
        service = enter(serving.decision_service(config, folder, url, **delivery))
        worker = enter(serving.worker(config, folder, url))
        yield Stand(config, broker, store, service, worker, proxies, folder, package, candidate, candidates)
