"""Four times the load that fits, for a minute: everybody is answered or refused in time, nothing is lost, and full service follows."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis as redis_client

from fraud_testing import kafka, redis, serving
from fraud_testing.kafka import wait_for
from fraud_testing.required import require
from fraud_testing.stack import Stack, running

pytestmark = [pytest.mark.integration, pytest.mark.accept]
DEADLINE = 0.25
LATE = DEADLINE + 0.05
POLICY = {"fallback": serving.NO_STREAM | {"deadline": f"{DEADLINE * 1000:.0f}ms"}}
FIRST, STEP, MOST = 150.0, 1.25, 2_000.0
WARM_SECONDS, RAMP_SECONDS, OVERLOAD_SECONDS, PAUSE = 10.0, 5.0, 60.0, 10.0


@dataclass
class Run:
    """What an open loop's requests got: number, seconds since they were due, status, and what they did without or why not."""

    prefix: str
    answers: list[tuple[int, float, int, list[str]]]
    unanswered: int

    @property
    def late(self) -> float:
        return sum(seconds > LATE for _, seconds, _, _ in self.answers) / len(self.answers)

    @property
    def whole(self) -> float:
        return sum((status, notes) == (200, []) for _, _, status, notes in self.answers) / len(self.answers)

    def ids(self, status: int, note: str | None = None) -> set[str]:
        numbers = (
            n for n, _, got, notes in self.answers if got == status and (note is None or note in notes)
        )
        return {f"{self.prefix}-{number}" for number in numbers}

    def figures(self) -> dict[str, Any]:
        seconds = sorted(seconds for _, seconds, _, _ in self.answers)
        outcomes = Counter(f"{status} {','.join(notes)}".strip() for _, _, status, notes in self.answers)
        at = {q: round(seconds[int(q * (len(seconds) - 1))] * 1000, 1) for q in (0.5, 0.99, 0.999, 1.0)}
        return {"requests": len(seconds), "ms": at, "outcomes": dict(outcomes)}


def send(service: serving.Process, rate: float, seconds: float, prefix: str) -> Run:
    """By a process of its own; fails where it didn't end in time."""
    out = service.folder / f"{prefix}.json"
    options = {"url": service.url, "rate": rate, "seconds": seconds, "prefix": prefix, "out": out}
    command = [sys.executable, "-m", "fraud_bench.open_loop"]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    subprocess.run(command, check=True, timeout=seconds + 60)
    result = orjson.loads(out.read_bytes())
    run = Run(prefix, [tuple(one) for one in result["answers"]], result["unanswered"])
    print(f"{prefix}: {rate:.0f}/s {run.figures()}")  # pytest -rP shows it
    return run


@contextmanager
def probed(service: serving.Process) -> Iterator[Counter[str]]:
    """Asks as the kubelet does, each half second, with its shortest patience; -> how often which probe failed, or didn't."""
    counted: Counter[str] = Counter()
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.5):
            for path in ("/healthz", "/readyz"):
                try:
                    urllib.request.urlopen(service.url + path, timeout=1).close()
                    counted["answered"] += 1
                except OSError:
                    counted[path] += 1

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield counted
    finally:
        over.set()
        thread.join()


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    require(kafka.missing() or redis.missing())
    with running(tmp_path) as whole:
        identity = whole.config.identity
        store = redis_client.Redis.from_url(whole.redis.url)
        store.set(identity.redis_complete(whole.config.hash6), whole.config.epoch)
        whole.release("r1", POLICY)
        yield whole


def load_that_fits(service: serving.Process) -> float:
    """Requests a second of which all but one in a thousand get a whole answer in time: the last step of a ramp. A step may be tried twice."""
    fits, rate = 0.0, FIRST
    while rate <= MOST and is_carried(service, rate, "ramp"):
        fits, rate = rate, rate * STEP
    return fits


def is_carried(service: serving.Process, rate: float, name: str) -> bool:
    runs = (send(service, rate, RAMP_SECONDS, f"{name}-{rate:.0f}-{number}") for number in range(2))
    return any(run.whole >= 0.999 and run.late <= 0.001 for run in runs)


def test_an_overload_is_answered_or_refused_in_time(stack: Stack) -> None:
    """99.9 % within the deadline and 50 ms, none above twice the deadline, from when each was due; none lost, each recorded as it was answered."""
    with serving.decision_service(stack.config, stack.folder, stack.redis.url) as service:
        send(service, FIRST, WARM_SECONDS, "warm")
        fits = load_that_fits(service)
        assert fits, "this machine is too busy for any load"
        with probed(service) as probes:
            over = send(service, 4 * fits, OVERLOAD_SECONDS, "over")
        time.sleep(PAUSE)
        carried = is_carried(service, fits, "after")
        accepted: dict[str, list[Any]] = {}
        begun = over.ids(200) | over.ids(503, "kafka_unavailable")
        for message in wait_for(lambda: recorded(stack, begun), 30, "the records"):
            accepted.setdefault(message["event"]["id"], []).append(message["decision"])
    assert over.unanswered == 0
    assert {status for _, _, status, _ in over.answers} <= {200, 503}
    assert over.late <= 0.001
    assert max(seconds for _, seconds, _, _ in over.answers) <= 2 * DEADLINE
    assert probes.keys() == {"answered"}, probes
    assert carried
    # Refused before it was begun is nothing that anybody has seen; what was begun is recorded, and one decision for each id.
    assert not over.ids(503, "overloaded") & accepted.keys()
    assert all(len({orjson.dumps(one) for one in decisions}) == 1 for decisions in accepted.values())


def recorded(stack: Stack, ids: set[str]) -> list[dict[str, Any]] | None:
    """All of ``accepted``, once it has these ids."""
    messages = [
        orjson.loads(one.value()) for one in stack.broker.read(stack.config.identity.topic("accepted"))
    ]
    return messages if ids <= {one["event"]["id"] for one in messages} else None
