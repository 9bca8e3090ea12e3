"""Figures of the whole path at work: inline decisions with shadow on, freshness, a burst, a rollback; then the Flask baseline.

python -m fraud_bench.live
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import lightgbm
import numpy as np
import orjson
import pandas as pd
import redis as redis_client
import uvloop

from fraud_bench import load, measure, stack, stream
from fraud_contracts import metrics
from fraud_contracts.model_package import NATIVE
from fraud_contracts.names import profile_key
from fraud_pipelines.events import Tokeniser
from fraud_pipelines.features import compile_detector
from fraud_testing import kafka, serving

RATE = 500.0
SECONDS = float(os.environ.get("BENCH_SECONDS", 20))
WARM = 5.0
WARM_UP = int(os.environ.get("BENCH_BACKLOG", 120_000)) // 3
PROBES = 200
BURSTS, BURST = 10, 10
# More than both doors need for what is on its way when a release changes.
ROLLBACK_SECONDS = 14.0
LIBRARIES = (
    "uvicorn",
    "starlette",
    "onnxruntime",
    "confluent-kafka",
    "hiredis",
    "flask",
    "gunicorn",
    "mlflow-skinny",
)


def send(url: str, prefix: str, rate: float, seconds: float, warm: float) -> load.Answers:
    async def run() -> load.Answers:
        client = load.Load(url, "/v1/decisions", stack.HEADERS, lambda i: stack.body(f"{prefix}-{i}"))
        return await client.run(rate, seconds, warm)

    answers: load.Answers = uvloop.run(run())
    return answers


def warm_up(path: stack.Stack) -> None:
    """Traffic until the JVMs have compiled what they run, which takes a core for a while; then a pause until they rest."""
    measure.note(f"warming up with {WARM_UP} transactions")
    stream.fill(path, "w0", WARM_UP)

    def done() -> bool:
        time.sleep(1)
        return stream.judged(path)

    kafka.wait_for(done, 200, "the warm-up's decisions")

    def resting() -> bool:
        before = path.cpu()
        time.sleep(2)
        return path.cpu()["stream"] - before["stream"] < 0.4

    kafka.wait_for(resting, 60, "the stream to rest")


def inline(path: stack.Stack, service: serving.Process) -> None:
    measure.note(f"inline decisions, {RATE:.0f}/s")
    send(service.url, "w", RATE, 1.0, WARM)
    steps = metrics.STEP_SECONDS.name
    cpu, before, start = path.cpu(), measure.samples(service.url, steps), time.perf_counter()
    answers = send(service.url, "d", RATE, SECONDS, 1.0)
    after, spent = measure.samples(service.url, steps), time.perf_counter() - start
    count = len(answers.seconds) * (SECONDS + 1.0) / SECONDS
    used = {name: round(1e6 * (now - cpu[name]) / count) for name, now in path.cpu().items()}
    measure.report(
        "inline",
        **latencies(answers),
        offered=RATE,
        model_p99_ms=round(1000 * measure.histogram_quantile(before, after, 0.99, 'step="model"'), 2),
        cpu_us=used,
        cpu_cores=round(sum(used.values()) * count / 1e6 / spent, 2),
        versions=measure.versions(*LIBRARIES),
    )


def latencies(answers: load.Answers) -> dict[str, Any]:
    return {
        "requests": len(answers.seconds),
        "done_per_s": round(len(answers.seconds) / max(answers.elapsed, 1e-9)),
        "p50_ms": round(answers.at(0.5), 1),
        "p99_ms": round(answers.at(0.99), 1),
        "p999_ms": round(answers.at(0.999), 1),
        "answers": dict(answers.outcomes),
        "lost": answers.lost,
    }


class Background(threading.Thread):
    """Both doors' traffic beside a measurement; its own latencies aren't looked at."""

    def __init__(self, path: stack.Stack, rate: float) -> None:
        super().__init__(daemon=True)
        self._path, self._rate, self._on = path, rate, True

    def run(self) -> None:
        producer, due, i = self._path.broker.producer(), time.monotonic(), 0
        while self._on:
            due += 1 / self._rate
            time.sleep(max(0.0, due - time.monotonic()))
            payment = stack.transaction(f"b-{id(self)}-{i}")
            producer.produce(self._path.topic("transactions"), orjson.dumps(payment), payment["card"])
            producer.poll(0)
            i += 1
        producer.flush(30)

    def __enter__(self) -> Background:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._on = False
        self.join(40)


def freshness(path: stack.Stack) -> None:
    """From the record's append in ``transactions`` to its profile in Redis, of cards never seen before."""
    measure.note("freshness")
    of, tokeniser = path.config.identity, Tokeniser.from_hex(serving.TOKEN_KEY)
    store, producer = redis_client.Redis.from_url(path.store.url), path.broker.producer()
    ages: list[float] = []
    appended: list[int] = []
    with Background(path, RATE):
        time.sleep(2)
        for i in range(PROBES):
            card = f"probe-{i}"
            key = of.redis_profile(profile_key(path.config.hash6, "customer", tokeniser.token("card", card)))
            appended.clear()
            producer.produce(
                path.topic("transactions"),
                stack.body(f"p-{i}", card),
                card,
                on_delivery=lambda _, message: appended.append(message.timestamp()[1]),
            )
            producer.flush(10)
            end = time.monotonic() + 10
            while not store.exists(key) and time.monotonic() < end:
                time.sleep(0.002)
            ages.append(time.time() * 1000 - appended[0])
            time.sleep(0.013)  # not in step with the stream's own quarter of a second
    measure.report(
        "freshness",
        probes=PROBES,
        beside_per_s=RATE,
        p50_ms=round(load.quantile(ages, 0.5)),
        p99_ms=round(load.quantile(ages, 0.99)),
    )


def ask(service: serving.Process, sent: dict[str, Any]) -> dict[str, Any]:
    request = Request(service.url + "/v1/decisions", orjson.dumps(sent), stack.HEADERS)
    with urlopen(request, timeout=10) as answer:
        return dict(orjson.loads(answer.read()))


def burst(path: stack.Stack, service: serving.Process) -> None:
    """Ten payments of a card in a second, each after the last one's answer: what the inline vectors counted."""
    measure.note("bursts")
    at = compile_detector(path.config.spec).names.index("customer_count_1h")
    ids: dict[str, int] = {}
    longest = 0.0
    with Background(path, RATE):
        time.sleep(1)
        for b in range(BURSTS):
            start = time.monotonic()
            for i in range(BURST):
                ask(service, stack.transaction(f"burst-{b}-{i}", f"burst-{b}"))
                ids[f"burst-{b}-{i}"] = i + 1
                time.sleep(max(0.0, start + (i + 1) * 0.09 - time.monotonic()))
            longest = max(longest, time.monotonic() - start)
    counted: dict[str, float] = {}

    def read() -> bool:
        for message in path.broker.read(path.topic("accepted")):
            decision = orjson.loads(message.value())["decision"]
            if decision["id"] in ids:
                counted[decision["id"]] = decision["vector"][at]
        return len(counted) == len(ids)

    kafka.wait_for(read, 30, "the bursts in accepted")
    right = sum(counted[name] == want for name, want in ids.items())
    measure.report("burst", bursts=BURSTS, payments=len(ids), exact=right, longest_s=round(longest, 2))


def rollback(path: stack.Stack, service: serving.Process) -> None:
    """From the order (a new release document) to the last decision of either door on the release left behind."""
    measure.note("rollback")
    path.use("promoted")
    time.sleep(3)
    ordered: list[float] = []

    def order() -> None:
        ordered.append(time.time() * 1000)
        path.use("shadowed")

    start = path.broker.count(path.topic("decisions"))
    with Background(path, RATE / 2):
        timer = threading.Timer(4.0, order)
        timer.start()
        send(service.url, "r", RATE / 2, ROLLBACK_SECONDS, 0.0)
        timer.join()
    time.sleep(2)
    last: dict[str, float] = {}
    doors: Counter[str] = Counter()
    for message in path.broker.read(path.topic("decisions"), committed=True):
        decision = orjson.loads(message.value())
        doors[decision["door"]] += 1
        if decision["release"] == "promoted":
            last[decision["door"]] = max(last.get(decision["door"], 0.0), decision["decided"])
    measure.report(
        "rollback",
        decisions_since=path.broker.count(path.topic("decisions")) - start,
        last_old_s={door: round((at - ordered[0]) / 1000, 2) for door, at in last.items()},
        seconds=round(max(max(last.values()) - ordered[0], 0.0) / 1000, 2),
    )


@contextmanager
def flask(path: stack.Stack) -> Iterator[serving.Process]:
    """The baseline on gunicorn: two processes, as many as there are cores, connections kept."""
    import mlflow.lightgbm  # slow to import, and only this needs it
    from mlflow.models import infer_signature

    names = list(compile_detector(path.config.spec).names)
    booster = lightgbm.Booster(model_file=str(path.folder / "package-a" / NATIVE))
    rows = pd.DataFrame(np.random.default_rng(1).lognormal(2, 2, (50, len(names))), columns=names)
    model = path.folder / "pyfunc"
    signature = infer_signature(rows, booster.predict(rows))
    mlflow.lightgbm.save_model(booster, str(model), signature=signature, pip_requirements=[])
    environ = {**serving.environment(path.config, path.folder, path.store.url), "BENCH_MODEL": str(model)}
    process = serving.Process("gunicorn", path.folder, environ)
    process.arguments = [
        *("--bind", f"127.0.0.1:{process.port}", "--workers", "2", "--threads", "8"),
        *("--worker-class", "gthread", "--keep-alive", "75", "fraud_bench.flask_app:app"),
    ]
    try:
        yield process.start()
    finally:
        process.stop()


def family_cpu(pid: int) -> float:
    """A server's processor time, its workers' included."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return measure.cpu_seconds(pid) + sum(measure.cpu_seconds(int(child)) for child in children)


def baseline(path: stack.Stack) -> None:
    with flask(path) as process:
        assert process.process is not None
        for rate in (RATE, RATE / 5):
            measure.note(f"Flask with pyfunc, {rate:.0f}/s")
            send(process.url, f"fw{rate}", rate / 2, 1.0, 3.0)
            before = family_cpu(process.process.pid)
            answers = send(process.url, f"f{rate}", rate, SECONDS / 2, 1.0)
            used = family_cpu(process.process.pid) - before
            each = round(1e6 * used / max(1.0, len(answers.seconds) * (SECONDS / 2 + 1) / (SECONDS / 2)))
            measure.report(f"flask_{rate:.0f}", offered=rate, **latencies(answers), cpu_us=each)


def main() -> None:
    measure.begin()
    if shutil.which("redis-server") is None:
        sys.exit("redis-server is not installed")
    with stack.data_path() as path:
        measure.note("starting the stream")
        with path.features(), path.worker(), path.service() as service:
            warm_up(path)
            inline(path, service)
            freshness(path)
            burst(path, service)
            rollback(path, service)
        baseline(path)


if __name__ == "__main__":
    main()
