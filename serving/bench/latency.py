"""Latency of the inline door, open loop: ``python serving/bench/latency.py RATE SECONDS``.

Everything (Kafka, Redis, predictor, service, this client) runs on this machine. Latency counts from the intended time of
sending, so a stalled service can't hide behind a client that waits for it. Poisson arrivals, 500 customers, fresh ids.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path

import aiohttp
import orjson
import redis as redis_client

from fraud_contracts.release import Release
from fraud_pipelines.features import compile_detector
from fraud_testing import detectors, kafka, packages, redis, serving

WARM_UP = 3.0


async def load(url: str, rate: float, seconds: float) -> tuple[list[float], Counter[str]]:
    took: list[float] = []
    told: Counter[str] = Counter()
    headers = {"X-API-Key": serving.API_KEY, "Content-Type": "application/json"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64), headers=headers) as session:

        async def one(i: int, due: float, counted: bool) -> None:
            body = {
                "id": f"l-{i}-{random.random()}",
                "time": int(time.time() * 1000),
                "amount": random.randint(100, 100_000) / 100,
                "card": f"c{random.randrange(500)}",
                "merchant": f"m{random.randrange(200)}",
                "category": "travel",
            }
            async with session.post(url + "/v1/decisions", data=orjson.dumps(body)) as answer:
                found = orjson.loads(await answer.read())
            if counted:
                took.append(time.perf_counter() - due)
                told[str(answer.status)] += 1
                for mark in found.get("degraded", ()):
                    told[mark] += 1

        tasks = []
        start = due = time.perf_counter()
        i = 0
        while due < start + WARM_UP + seconds:
            due += random.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(one(i, due, due > start + WARM_UP)))
            i += 1
        await asyncio.gather(*tasks)
    return took, told


def steps(url: str) -> dict[str, float]:
    """Mean milliseconds of each step, from the service's own metrics."""
    with urllib.request.urlopen(url + "/metrics", timeout=5) as answer:  # noqa: S310 - our own loopback address
        lines = answer.read().decode().splitlines()
    sums: dict[str, list[float]] = {}
    for line in lines:
        for part in ("sum", "count"):
            if line.startswith(f"fraud_decision_step_seconds_{part}"):
                step = line.split('step="')[1].split('"')[0]
                sums.setdefault(step, []).append(float(line.rsplit(" ", 1)[1]))
    return {step: round(1000 * min(pair) / max(1.0, max(pair)), 3) for step, pair in sums.items()}


def cpu_seconds(process: serving.Process) -> float:
    """Processor time used so far; steadier than any latency on a machine that others use too."""
    assert process.process is not None
    fields = Path(f"/proc/{process.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(rate: float, seconds: float) -> None:
    folder = Path(tempfile.mkdtemp(prefix="fraud-latency-"))
    with kafka.broker() as broker, redis.server(append_only=True) as store:
        config = detectors.detector(broker.bootstrap, partitions=4)
        broker.create_detector_topics(str(config.identity), 4)
        mark = config.identity.redis_complete(config.hash6)
        redis_client.Redis.from_url(store.url).set(mark, 1)
        names = list(compile_detector(config.spec).names)
        digest = packages.make(folder / "package", names, config.feature_set, rounds=300)
        with serving.predictor(folder / "package", f"{config.name}-a", folder) as predictor:
            package = packages.release_package(digest, config.feature_set, predictor.url)
            serving.write_release(folder, Release(name="r", stable=package, policy={}, policy_revision=1))  # type: ignore[arg-type]
            with serving.decision_service(config, folder, store.url) as service:
                asyncio.run(load(service.url, rate, 1.0))  # connections, caches
                before = [cpu_seconds(process) for process in (service, predictor)]
                took, told = asyncio.run(load(service.url, rate, seconds))
                used = [
                    cpu_seconds(process) - b for process, b in zip((service, predictor), before, strict=True)
                ]
                all_sent = rate * (seconds + WARM_UP)
                took.sort()

                def at(share: float) -> float:
                    return round(took[min(len(took) - 1, int(share * len(took)))] * 1000, 2)

                result = {
                    "rate": rate,
                    "requests": len(took),
                    "p50_ms": at(0.5),
                    "p99_ms": at(0.99),
                    "p999_ms": at(0.999),
                    "answers": dict(told),
                    "cpu_us_per_decision": {
                        "service": round(1e6 * used[0] / all_sent),
                        "predictor": round(1e6 * used[1] / all_sent),
                    },
                    "steps_mean_ms": steps(service.url),
                    "load_average": round(os.getloadavg()[0], 1),
                }
                sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(float(sys.argv[1]), float(sys.argv[2]))
