"""Requests to a decision service at a given rate: open loop, as payments come, whatever the answers take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from fraud_pipelines import simulator
from fraud_pipelines.simulated_people import Population
from fraud_testing import serving

KEY = {"X-API-Key": serving.API_KEY}


@dataclass
class Answer:
    """``status`` is 0 where there was no answer in time."""

    id: str
    status: int
    body: bytes
    seconds: float

    @property
    def document(self) -> dict[str, Any]:
        return dict(orjson.loads(self.body))


def transactions(people: Population, rate: float, seconds: float, run: int = 1) -> list[dict[str, Any]]:
    """The simulator's live traffic in the fields of ``fraud_testing.detectors``, without its times."""
    rows = simulator.live(people, rate, seconds, 1_700_000_000_000, run)
    return [
        {
            "id": row["transaction_id"],
            "amount": row["amount"],
            "card": row["card"],
            "merchant": row["merchant_id"],
            "category": row["category"],
        }
        for row in rows
    ]


async def post(
    session: aiohttp.ClientSession, url: str, event_id: str, body: bytes, patience: float = 30.0
) -> Answer:
    start = time.perf_counter()
    try:
        async with asyncio.timeout(patience), session.post(url, data=body, headers=KEY) as answer:
            return Answer(event_id, answer.status, await answer.read(), time.perf_counter() - start)
    except (TimeoutError, aiohttp.ClientError, OSError):
        return Answer(event_id, 0, b"{}", time.perf_counter() - start)


def session(limit: int = 0) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=limit), json_serialize=lambda value: orjson.dumps(value).decode()
    )


async def open_loop(url: str, sent: Sequence[dict[str, Any]], rate: float) -> list[Answer]:
    """Sends each with the time at which it goes out; the next one waits for the clock, never for an answer."""
    async with session() as client:
        start = time.monotonic()
        tasks = []
        for i, transaction in enumerate(sent):
            wait = start + i / rate - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            body = orjson.dumps({**transaction, "time": time.time_ns() // 1_000_000})
            tasks.append(asyncio.create_task(post(client, url, transaction["id"], body)))
        return await asyncio.gather(*tasks)


async def together(url: str, bodies: Iterable[tuple[str, bytes]], at_once: int = 64) -> list[Answer]:
    """Sends each body, ``at_once`` at a time; answers in the order given."""
    gate = asyncio.Semaphore(at_once)
    async with session() as client:

        async def one(event_id: str, body: bytes) -> Answer:
            async with gate:
                return await post(client, url, event_id, body)

        return await asyncio.gather(*(one(event_id, body) for event_id, body in bodies))
