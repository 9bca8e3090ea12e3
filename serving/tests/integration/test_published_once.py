"""An id is published once for as long as its claim lives: the worker's batches over a real Redis, its memory made small."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from fraud_contracts.errors import StoreError
from fraud_serving import claims
from fraud_serving.worker.batch import BatchResult
from fraud_serving.worker.processor import BatchProcessor
from fraud_serving.worker.published_ids import KEPT, DecisionStamp, Publication, PublishedIds
from fraud_serving.worker.redis_claims import RedisClaims
from fraud_testing import batches, redis
from fraud_testing.batches import CONFIG, OF, publish
from fraud_testing.feature_stream import Stream
from fraud_testing.kafka import wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def stream() -> Stream:
    return Stream(SimpleNamespace(config=CONFIG, digest="sha256:0"))  # type: ignore[arg-type]  # no servers


def forgetful(server: redis.Server) -> BatchProcessor:
    """A worker that remembers one published id of a partition, where life's remembers 50,000."""
    one = batches.processor(server)
    one.published_ids = PublishedIds(kept=1)
    return one


@pytest.mark.parametrize("door", ["stream", "inline"])
def test_an_id_is_published_once_while_its_claim_lives(
    door: str, server: redis.Server, store: Any, stream: Stream
) -> None:
    """A record that comes again, after more newer ones than are remembered, is a repeat, whichever door decided it."""
    one, record = forgetful(server), stream.record("pay")
    if door == "inline":
        record = stream.inline(record)
        store.set(OF.redis_claim("pay"), claims.pack(record["decision"], appended=False), ex=500)
    assert [decision["id"] for decision in batches.decided(publish(one, record))] == ["pay"]
    publish(one, stream.record("newer"), stream.record("newest"))
    again = publish(one, record, stream.record("beside"))
    assert [decision["id"] for decision in batches.decided(again)] == ["beside"]
    assert (again.repeats, again.conflicts, again.superseded) == ([door], 0, 0)
    assert batches.claim(store, "pay").published
    assert store.ttl(OF.redis_claim("pay")) > 500


@pytest.mark.parametrize("door", ["stream", "inline"])
def test_another_body_of_a_published_id_is_a_dead_letter(
    door: str, server: redis.Server, store: Any, stream: Stream
) -> None:
    """The claim's hash tells it, long after the id was forgotten, and though the inline door had answered."""
    one, record = forgetful(server), stream.record("pay")
    publish(one, record)
    publish(one, stream.record("newer"))
    other = stream.record("pay", amount=7)
    result = publish(one, stream.inline(other) if door == "inline" else other)
    assert [out.noun for out in result.outgoing] == ["dead-letters"]
    assert result.conflicts == 1


def test_another_answer_of_a_published_id_is_superseded(
    server: redis.Server, store: Any, stream: Stream
) -> None:
    """What was answered while the claim couldn't be asked for isn't published, and is counted."""
    one, record = forgetful(server), stream.record("pay")
    publish(one, record)
    publish(one, stream.record("newer"))
    result = publish(one, stream.inline(record, decided=5, degraded=["idempotency"]))
    assert (result.outgoing, result.repeats, result.superseded) == ([], ["inline"], 1)


def test_what_was_aborted_is_published_when_it_is_processed_again(
    server: redis.Server, store: Any, stream: Stream
) -> None:
    """A claim of a transaction that never was committed says nothing of being published."""
    record = stream.record("pay")
    aborted = batches.decided(batches.processor(server).process(batches.read(record)))
    batches.processor(server).idle()
    assert not batches.claim(store, "pay").published
    again = batches.decided(publish(batches.processor(server), record))
    assert [decision["decided"] for decision in again] == [decision["decided"] for decision in aborted]


def test_a_claim_says_published_when_no_broker_can_lose_it_any_more(
    server: redis.Server, store: Any, stream: Stream
) -> None:
    """A batch told as committed may still lose its markers with the broker; not after the next commit."""
    one = batches.processor(server)
    publish(one, stream.record("pay"))
    newer = one.process(batches.read(stream.record("newer")))
    assert not batches.claim(store, "pay").published
    one.committed(newer)
    one.process(batches.read(stream.record("newest")))
    assert batches.claim(store, "pay").published
    assert not batches.claim(store, "newer").published


def test_how_far_claims_vouch_is_known(server: redis.Server, store: Any, stream: Stream) -> None:
    """Up to the last batch whose claims say that it is published; from where a partition's next worker reads."""
    one = batches.processor(server)
    assert one.vouched(0) is None
    one.vouch(0, 5, 10)
    assert one.vouched(0) == 10
    for event_id, end in (("a", 20), ("b", 30)):
        one.committed(one.process(batches.read(stream.record(event_id))), {0: end})
    assert one.vouched(0) == 10
    one.process(batches.read(stream.record("c")))
    assert one.vouched(0) == 20
    one.idle()
    assert one.vouched(0) == 30
    one.forget(0)
    assert one.vouched(0) is None


def test_claims_that_redis_lacks_are_not_vouched_for(
    server: redis.Server, store: Any, stream: Stream
) -> None:
    """Nor what was published after them, before it is back and has them all."""
    one = batches.processor(server)
    one.vouch(0, 10, 10)
    result = one.process(batches.read(stream.record("before")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RedisClaims, "mark_and_read", raising(StoreError("redis", "away")))
        patch.setattr(RedisClaims, "claim", raising(StoreError("redis", "away")))
        one.committed(result, {0: 20})
        one.committed(one.process(batches.read(stream.record("during"))), {0: 30})
        assert one.blind
        one.idle()
        assert one.vouched(0) == 10
    wait_for(lambda: one.idle() or claims_published(store, "before", "during"), 10, "marks")
    assert one.vouched(0) == 30
    one.process(batches.read(stream.record("after")))
    assert not one.blind


def test_after_a_restart_the_tail_says_what_is_published(
    server: redis.Server, store: Any, stream: Stream
) -> None:
    """A crash between the commit and its mark: the successor marks the tail's ids, also those that it won't remember."""
    record = stream.record("pay")
    [crashed] = batches.decided(batches.processor(server).process(batches.read(record)))
    successor = forgetful(server)
    stamp = DecisionStamp(crashed["hash"], crashed["decided"])
    successor.remember(0, [Publication("pay", stamp), Publication("newer", DecisionStamp("h", 1))])
    assert successor.published_ids.get("pay") is None
    again = publish(successor, stream.record("beside"), record)
    assert [decision["id"] for decision in batches.decided(again)] == ["beside"]
    assert batches.claim(store, "pay").published


def test_a_restart_that_remembers_nothing_knows_by_the_claim(
    server: redis.Server, store: Any, stream: Stream
) -> None:
    """A resend that comes when the tail is long past is a repeat for a new process, too."""
    one, record = batches.processor(server), stream.record("pay")
    publish(one, record)
    one.idle()  # as the loop does where nothing is to be processed
    again = publish(batches.processor(server), record)
    assert (again.outgoing, again.repeats) == ([], ["stream"])


def test_only_the_published_decision_is_marked(server: redis.Server, store: Any, stream: Stream) -> None:
    """A claim of another decision of the id, made after a loss of Redis, stays as it is; a lost one isn't made anew."""
    one, record = batches.processor(server), stream.record("pay")
    [first] = batches.decided(publish(one, record, stream.record("lost")))[:1]
    other = claims.pack({**first, "decided": first["decided"] + 1}, appended=True)
    store.flushall()
    store.set(OF.redis_claim("pay"), other)
    one.idle()
    assert store.get(OF.redis_claim("pay")) == other
    assert not store.exists(OF.redis_claim("lost"))


def test_missing_marks_are_set_when_redis_is_back(server: redis.Server, store: Any, stream: Stream) -> None:
    """Published while Redis was away: the claims are made, or marked, once it answers, and the ids are known by them."""
    one, record = forgetful(server), stream.record("before")
    result = one.process(batches.read(record))
    absent = StoreError("redis", "away")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RedisClaims, "mark_and_read", raising(absent))
        patch.setattr(RedisClaims, "claim", raising(absent))
        one.committed(result)
        [unclaimed] = batches.decided(publish(one, stream.record("during")))
        assert unclaimed["degraded"] == ["idempotency", "no_model"]
    wait_for(lambda: one.idle() or claims_published(store, "before", "during"), 10, "marks")
    assert publish(one, record).repeats == ["stream"]


def without_redis(one: BatchProcessor, *records: dict[str, Any]) -> BatchResult:
    """As ``publish``, where each call of Redis fails meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RedisClaims, "mark_and_read", raising(StoreError("redis", "away")))
        patch.setattr(RedisClaims, "claim", raising(StoreError("redis", "away")))
        return publish(one, *records)


def come_back(one: BatchProcessor) -> None:
    """The worker makes up what it missed, once it asks Redis again."""
    one._claims._cool_down.answered("redis")
    one.idle()


@pytest.mark.parametrize("same", [True, False], ids=["of the same body", "of another body"])
@pytest.mark.parametrize("recorded", [True, False])
def test_the_claim_of_a_decision_that_is_not_published_publishes_nothing(
    recorded: bool, same: bool, server: redis.Server, store: Any, stream: Stream
) -> None:
    """Redis was away while the topic's decision was published; the inline door's lay in the claim, recorded or never."""
    one, record = forgetful(server), stream.record("pay")
    other = record if same else stream.record("pay", amount=7)
    inline = stream.inline(other, decided=5, action="decline")
    store.set(OF.redis_claim("pay"), claims.pack(inline["decision"], appended=recorded))
    assert [decision["door"] for decision in batches.decided(without_redis(one, record))] == ["stream"]
    come_back(one)
    if recorded:
        assert batches.decided(publish(one, inline)) == []
    publish(one, stream.record("newer"), stream.record("newest"))
    one.idle()
    assert batches.decided(publish(one, other)) == []
    assert (batches.claim(store, "pay").decision["decided"] == 5) == same


@pytest.mark.parametrize("redis_away", [True, False])
def test_an_answer_that_another_claim_contradicts_is_the_only_one_published(
    redis_away: bool, server: redis.Server, store: Any, stream: Stream
) -> None:
    """Two replicas answered an id, one of them without Redis: what lies in the claim isn't published beside the other's."""
    one, record = forgetful(server), stream.record("pay")
    held = stream.inline(record, decided=5)["decision"]
    store.set(OF.redis_claim("pay"), claims.pack(held, appended=False))
    answered = stream.inline(record, decided=6, degraded=["idempotency"] if redis_away else [])
    result = (without_redis if redis_away else publish)(one, answered)
    assert [decision["decided"] for decision in batches.decided(result)] == [6]
    come_back(one)
    publish(one, stream.record("newer"), stream.record("newest"))
    assert batches.decided(publish(one, record)) == []


def test_a_dropped_decision_is_marked_once_the_published_one_is_certain(
    server: redis.Server, store: Any, stream: Stream
) -> None:
    """Dropped for one of its own batch, whose markers the broker may yet lose, its claim says nothing before the next commit."""
    one, record = batches.processor(server), stream.record("pay")
    held = stream.inline(record, decided=5)
    store.set(OF.redis_claim("pay"), claims.pack(held["decision"], appended=True))
    publish(one, stream.inline(record, decided=6), held)
    newer = one.process(batches.read(stream.record("newer")))
    assert not batches.claim(store, "pay").published
    one.committed(newer)
    one.process(batches.read(stream.record("newest")))
    assert batches.claim(store, "pay").published


def test_an_unreadable_claim_of_a_published_decision_is_replaced(
    server: redis.Server, store: Any, stream: Stream
) -> None:
    """Found when Redis is back, it is as good as lost: a retry gets the published decision, and the id isn't published again."""
    one, record = forgetful(server), stream.record("pay")
    store.set(OF.redis_claim("pay"), b"hello")
    [published] = batches.decided(without_redis(one, record))
    come_back(one)
    assert batches.claim(store, "pay").decision["decided"] == published["decided"]
    publish(one, stream.record("newer"))
    assert batches.decided(publish(one, record)) == []


@pytest.mark.accept
def test_what_comes_again_after_ten_minutes_without_a_checkpoint_is_published_once(
    server: redis.Server, store: Any, stream: Stream
) -> None:
    """More than twice as many ids as a worker remembers come again, to the same worker and to its successor: claims know them all."""
    one, successor = batches.processor(server), batches.processor(server)
    base, published = stream.record("pay"), Counter[str]()
    ids = [f"pay-{i}" for i in range(2 * KEPT + 10_000)]
    for worker in (one, one, successor):
        for first in range(0, len(ids), 500):
            records = [
                {**base, "event": {**base["event"], "id": event_id}, "hash": event_id}
                for event_id in ids[first : first + 500]
            ]
            published.update(decision["id"] for decision in batches.decided(publish(worker, *records)))
        wait_for(lambda: one.idle() or claims_published(store, ids[-1]), 10, "marks")
    assert published == Counter(ids)


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise error

    return fail


def claims_published(store: Any, *ids: str) -> bool:
    values = [claims.read(store.get(OF.redis_claim(event_id)), event_id) for event_id in ids]
    return all(claim is not None and claim.published for claim in values)
