"""Real servers shared by the module: Kafka, Redis, a predictor over a small real package."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis as redis_client

from fraud_testing import kafka, redis
from fraud_testing.batches import OF
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
