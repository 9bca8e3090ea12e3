"""Claims that a worker had no chance to make or to mark are made up for by it or its successor, over a real Redis."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from fraud_serving import wholeness
from fraud_serving.wholeness import DAY_MS, Mark
from fraud_serving.worker import batch_claims
from fraud_serving.worker.processor import BatchProcessor
from fraud_serving.worker.published_ids import DecisionStamp, Publication
from fraud_testing import batches, redis
from fraud_testing.batches import CONFIG, OF, publish
from fraud_testing.feature_stream import Stream

pytestmark = pytest.mark.integration


@pytest.fixture
def stream() -> Stream:
    return Stream(SimpleNamespace(config=CONFIG, digest="sha256:0"))  # type: ignore[arg-type]  # no servers


@pytest.fixture
def worker(server: redis.Server, store: Any) -> Callable[[], BatchProcessor]:
    return lambda: batches.processor(server)


def test_what_was_published_without_a_claim_is_no_loss(worker: Any, store: Any, stream: Stream) -> None:
    """Redis was away; nor is one whose claim is over, nor one from before a loss that is known."""
    now = int(time.time() * 1000)
    one = worker()
    one.remember(0, [Publication("unclaimed", DecisionStamp("h", now))])
    one.remember(0, [Publication("over", DecisionStamp("h", now - DAY_MS))], claimed=True)
    one.idle()
    assert store.get(OF.redis_whole) == b"0"
    known = Mark(now + 1).pack()
    store.set(OF.redis_whole, known)
    one.remember(0, [Publication("before", DecisionStamp("h", now))], claimed=True)
    publish(one, stream.record("pay"))
    assert store.get(OF.redis_whole) == known


def test_what_a_worker_left_unclaimed_is_claimed_by_the_next(worker: Any, store: Any, stream: Stream) -> None:
    """It was published while Redis was away, and its worker ended before that was back: a retry gets the same decision."""
    record = stream.record("pay")
    [decision] = batches.decided(publish(worker(), record))
    decision = {**decision, "degraded": ["idempotency"]}
    store.delete(OF.redis_claim("pay"))
    successor = worker()
    stamp = DecisionStamp(decision["hash"], decision["decided"])
    successor.remember(0, [Publication("pay", stamp, decision["action"], 7)])
    successor.unclaimed_record(orjson.dumps(decision), "pay")
    successor.vouch(0, 7, 8)
    assert successor.vouched(0) == 7
    successor.idle()
    assert batches.claim(store, "pay").published
    assert successor.vouched(0) == 8


@pytest.mark.parametrize("what", ["unmarked", "unclaimed"])
def test_more_than_is_remembered_counts_as_lost(
    what: str, worker: Any, store: Any, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis was away for that long: for a day the ledger is asked of ids without a claim."""
    monkeypatch.setattr(batch_claims, "KEPT", 2)
    one = worker()
    one.vouch(0, 0, 9)
    records = [stream.record(f"pay{number}") for number in range(3)]
    if what == "unclaimed":
        for decision in batches.decided(publish(worker(), *records)):
            one.unclaimed_record(orjson.dumps(decision), decision["id"])
    else:
        publish(one, *records)
        one._settle()
    assert store.get(OF.redis_whole) == b"0"
    assert one.vouched(0) == 0
    one._claims._asked = 0.0
    one.idle()
    mark = wholeness.read(store.get(OF.redis_whole))
    assert mark is not None
    assert mark.since > 0
    assert one.vouched(0) == 9


def test_a_log_that_is_longer_than_what_is_remembered_of_it_is_no_loss(
    worker: Any, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who takes a partition over where nobody says how far claims vouch reads more than it remembers."""
    monkeypatch.setattr(batch_claims, "KEPT", 2)
    one, now = worker(), int(time.time() * 1000)
    one.remember(0, [Publication(f"pay{number}", DecisionStamp("h", now)) for number in range(3)])
    one.vouch(0, 0, 9)
    one.idle()
    assert store.get(OF.redis_whole) == b"0"
    assert one.vouched(0) == 9


def test_an_idle_worker_notices_a_loss(worker: Any, store: Any, stream: Stream) -> None:
    """It asks once a second, whatever there is to do."""
    one = worker()
    publish(one, stream.record("pay"))
    store.flushall()
    one._claims._asked = 0.0
    one.idle()
    assert store.exists(OF.redis_whole)
