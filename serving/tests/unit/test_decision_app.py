"""The inline door's HTTP at its edges: who is refused before anything is done for them, and what is never refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from fraud_contracts.detector_clients import Scope as KeyScope
from fraud_process.access import KeyCheck
from fraud_process.instruments import Instruments
from fraud_serving.decision.app import OTHERS, OTHERS_WHEN_BUSY, Api, DecisionFastPath
from fraud_serving.decision.arrival import ARRIVED
from fraud_testing import serving
from fraud_testing.batches import CONFIG, OF

DEADLINE = 0.25
LABEL = orjson.dumps({"id": "a", "label": "fraud", "source": "analyst"})


class Service:
    """Decides, and appends labels, once the test lets it."""

    def __init__(self) -> None:
        self.deadline, self.identity, self.config = DEADLINE, OF, CONFIG
        self.instruments = Instruments(CollectorRegistry(), detector=str(OF))
        self.release = SimpleNamespace(name="r1", ruling=None)
        self.arrived: list[float] = []
        self.go = asyncio.Event()
        self.go.set()
        self.log = SimpleNamespace(append=self.append)

    async def decide(self, raw: bytes, arrived: float) -> bytes:
        self.arrived.append(arrived)
        await self.go.wait()
        return b"{}"

    async def append(self, topic: str, key: bytes, value: bytes) -> None:
        await self.go.wait()


class Door:
    def __init__(self, folder: Path) -> None:
        self.service: Any = Service()
        clients = serving.access("all", serving.API_KEY, scopes=[KeyScope.ADMIN])
        keys = KeyCheck(serving.write_clients(folder, clients), self.service.instruments)
        nothing: Any = None
        self.app: DecisionFastPath = Api(self.service, keys, nothing, nothing).application()

    async def ask(
        self,
        path: str,
        body: bytes | None = b"{}",
        age: float | None = 0.0,
        key: str = serving.API_KEY,
        late_body: Callable[[], None] = lambda: None,
    ) -> tuple[int, bytes, dict[str, str]]:
        """(status, body, headers). ``age`` is how long ago the request was whole; None: its body comes when it is asked for."""
        scope = {
            "type": "http",
            "method": "GET" if body is None else "POST",
            "path": path,
            "headers": [(b"x-api-key", key.encode())],
            "query_string": b"",
        }
        if age is not None:
            scope[ARRIVED] = time.perf_counter() - age
        told: list[Any] = []

        async def receive() -> dict[str, Any]:
            late_body()
            return {"type": "http.request", "body": body or b"", "more_body": False}

        async def send(message: Any) -> None:
            told.append(message)

        await self.app(scope, receive, send)
        headers = {name.decode(): value.decode() for name, value in told[0]["headers"]}
        return told[0]["status"], told[1]["body"], headers

    async def hold(self, path: str, count: int, body: bytes = b"{}") -> list[asyncio.Task[Any]]:
        """So many requests that are under way."""
        self.service.go.clear()
        tasks = [asyncio.create_task(self.ask(path, body)) for _ in range(count)]
        for _ in range(20):
            await asyncio.sleep(0)
        return tasks

    async def gauge(self, name: str) -> float:
        _, page, _ = await self.ask("/metrics", None)
        [line] = [line for line in page.decode().splitlines() if line.startswith(name + "{")]
        return float(line.rsplit(" ", 1)[1])


Steps = Callable[[Door], Awaitable[None]]


@pytest.fixture
def with_door(tmp_path: Path) -> Callable[[Steps], None]:
    def run(steps: Steps) -> None:
        async def whole() -> None:
            await steps(Door(tmp_path))

        asyncio.run(whole())

    return run


def code(body: bytes) -> str:
    return str(orjson.loads(body)["error"]["code"])


@pytest.mark.parametrize("key", [serving.API_KEY, "wrong"])
def test_who_waited_too_long_is_refused_before_their_key_is_looked_at(key: str, with_door: Any) -> None:
    """503 ``overloaded`` with Retry-After, counted; nothing else is done for it."""

    async def steps(door: Door) -> None:
        status, body, headers = await door.ask("/v1/decisions", age=DEADLINE / 2, key=key)
        assert (status, code(body), headers["retry-after"]) == (503, "overloaded", "1")
        assert door.service.arrived == []
        labels = {"detector": str(OF), "reason": "overloaded"}
        assert door.service.instruments.registry.get_sample_value("fraud_requests_refused_total", labels) == 1

    with_door(steps)


def test_a_decisions_time_begins_when_it_was_whole(with_door: Any) -> None:
    """Also where the body comes after its head, as by a slow line: that wait isn't the platform's."""

    async def steps(door: Door) -> None:
        began = time.perf_counter()
        assert (await door.ask("/v1/decisions", age=0.01))[0] == 200
        assert door.service.arrived[0] < began
        whole: list[float] = []
        assert (
            await door.ask("/v1/decisions", age=None, late_body=lambda: whole.append(time.perf_counter()))
        )[0] == 200
        assert door.service.arrived[1] >= whole[0]

    with_door(steps)


def test_a_place_is_given_back_however_a_request_ends(with_door: Any) -> None:
    """Answered, of a wrong key, or with a body that is too large: none stays under way."""

    async def steps(door: Door) -> None:
        for body, key in ((b"{}", serving.API_KEY), (b"{}", "wrong"), (b"x" * 70_000, serving.API_KEY)):
            for age in (0.0, None):
                await door.ask("/v1/decisions", body, age, key)
        assert await door.gauge("fraud_decisions_under_way") == 0

    with_door(steps)


def test_as_many_as_fit_are_begun_and_probes_are_always_answered(with_door: Any) -> None:
    """A quarter of a second at a thousand a second are 250; the next is refused, the probes and the metrics aren't."""

    async def steps(door: Door) -> None:
        held = await door.hold("/v1/decisions", 300)
        assert len(door.service.arrived) == 250
        assert (await door.ask("/healthz", None))[0] == 200
        assert await door.gauge("fraud_decisions_under_way") == 250
        assert (await door.ask("/v1/decisions", age=None))[0] == 503
        door.service.go.set()
        assert sorted(status for status, _, _ in await asyncio.gather(*held)) == [200] * 250 + [503] * 50
        assert (await door.ask("/v1/decisions"))[0] == 200

    with_door(steps)


def test_labels_have_places_of_their_own_and_fewer_while_decisions_are_refused(with_door: Any) -> None:
    """They take none from decisions, and hardly any time while that is short."""

    async def steps(door: Door) -> None:
        await door.hold("/v1/labels", OTHERS, LABEL)
        assert (await door.ask("/v1/labels", LABEL))[0] == 503
        assert await door.gauge("fraud_decisions_under_way") == 0
        door.service.go.set()
        assert (await door.ask("/v1/decisions"))[0] == 200
        await door.ask("/v1/decisions", age=DEADLINE)
        await door.hold("/v1/labels", OTHERS_WHEN_BUSY, LABEL)
        status, body, _ = await door.ask("/v1/labels", LABEL)
        assert (status, code(body)) == (503, "overloaded")
        door.service.go.set()

    with_door(steps)
