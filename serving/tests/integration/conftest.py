"""Real servers shared by the module: Kafka, Redis, a predictor over a small real package."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import redis as redis_client

from fraud_serving.worker.processor import BatchProcessor
from fraud_serving.worker.published_ids import PublishedIds
from fraud_testing import batches, inline_door, kafka, redis
from fraud_testing.batches import OF, DictLedger
from fraud_testing.required import require
from fraud_testing.stack import Stack, running


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Stack]:
    require(kafka.missing() or redis.missing())
    folder = tmp_path_factory.mktemp("stack")
    with running(folder) as stack:
        yield stack


@pytest.fixture(scope="module")
def server() -> Iterator[redis.Server]:
    require(redis.missing())
    with redis.server() as running:
        yield running


@pytest.fixture
def store(server: redis.Server) -> Any:
    """A Redis that is empty but for the mark that it never lost a claim, as a client sees it."""
    client = redis_client.Redis.from_url(server.url)
    client.flushall()
    client.set(OF.redis_whole, "0")
    return client


@pytest.fixture
def ledger() -> DictLedger:
    return DictLedger()


@pytest.fixture
def with_service(server: redis.Server, store: Any, ledger: DictLedger) -> Any:
    """Runs a test's steps with a DecisionService, by rules alone."""
    return partial(inline_door.with_service, server.login(OF), ledger=ledger)


@pytest.fixture
def worker(server: redis.Server, ledger: DictLedger) -> Callable[[], BatchProcessor]:
    """Makes a worker that remembers one published id of a partition."""

    def made() -> BatchProcessor:
        one = batches.processor(server, ledger=ledger)
        one.published_ids = PublishedIds(kept=1)
        return one

    return made
