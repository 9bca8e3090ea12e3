"""Real servers for the sinks' tests: one Kafka and one PostgreSQL for all, a detector and its topics for each test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fraud_contracts.config import DetectorConfig
from fraud_testing import kafka, postgres, redis
from fraud_testing.detectors import detector
from fraud_testing.required import require

_NUMBERS = itertools.count(1)
Make = Callable[..., DetectorConfig]


@pytest.fixture(scope="session")
def broker() -> Iterator[kafka.Broker]:
    require(kafka.missing())
    with kafka.broker() as running:
        yield running


@pytest.fixture(scope="session")
def database() -> Iterator[postgres.Server]:
    require(postgres.missing())
    with postgres.server() as running:
        yield running


@pytest.fixture
def store() -> Iterator[redis.Server]:
    require(redis.missing())
    with redis.server() as running:
        yield running


@pytest.fixture
def make(broker: kafka.Broker, tmp_path: Path) -> Make:
    """A new detector with its topics; its lake is in the test's folder."""

    def new(partitions: int = 2) -> DetectorConfig:
        config = detector(broker.bootstrap, partitions, name=f"sinks{next(_NUMBERS)}")
        broker.create_detector_topics(str(config.identity), partitions)
        return config.model_copy(update={"storage_uri": f"file://{tmp_path}"})

    return new
